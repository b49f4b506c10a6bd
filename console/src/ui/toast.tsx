import { Toast as Base } from '@base-ui/react/toast'
import { CircleAlert, CircleCheck, Info, X } from 'lucide-react'
import type { ReactNode } from 'react'
import { cx } from '@/lib/cx'
import { t } from '@/lib/t'

const manager = Base.createToastManager()

interface ToastText {
  title: string
  description?: string
}

/**
 * The result of an action that somebody just took, in a live region. Nothing else is a toast: what happened by itself
 * belongs into the page.
 */
export const toast = {
  done: (text: ToastText) => manager.add({ ...text, type: 'done' }),
  note: (text: ToastText) => manager.add({ ...text, type: 'note' }),
  /** Stays until it is closed. */
  failed: (text: ToastText) => manager.add({ ...text, type: 'failed', timeout: 0, priority: 'high' }),
  /** An action's error, with what the server said. */
  problem: (title: string, error: unknown) => {
    const description =
      error instanceof Error ? ('detail' in error ? String(error.detail) : error.message) : ''
    return manager.add({ title, description, type: 'failed', timeout: 0, priority: 'high' })
  },
}

const ICON = { done: CircleCheck, failed: CircleAlert, note: Info }
const COLOUR = { done: 'text-good', failed: 'text-bad', note: 'text-info' }

/** Once around everything. */
export function ToastProvider({ children }: { children: ReactNode }) {
  return (
    <Base.Provider toastManager={manager} limit={4}>
      {children}
      <Base.Portal>
        <Base.Viewport className="fixed right-0 bottom-0 z-50 flex w-full flex-col gap-2 p-3 outline-none sm:w-96 sm:p-4">
          <Toasts />
        </Base.Viewport>
      </Base.Portal>
    </Base.Provider>
  )
}

function Toasts() {
  const { toasts } = Base.useToastManager()
  return toasts.map((one) => {
    const kind = one.type === 'done' || one.type === 'failed' ? one.type : 'note'
    const Icon = ICON[kind]
    return (
      <Base.Root key={one.id} toast={one} className={cx('floating', one.limited && 'hidden')}>
        <Base.Content className="flex items-start gap-2.5 p-3">
          <Icon aria-hidden="true" className={cx('mt-0.5 size-4 shrink-0', COLOUR[kind])} />
          <div className="min-w-0 flex-1">
            <Base.Title className="font-medium" />
            <Base.Description className="mt-0.5 max-h-32 overflow-y-auto text-sm text-muted" />
          </div>
          <Base.Close
            aria-label={t('Close')}
            className="flex size-6 shrink-0 items-center justify-center rounded text-muted hover:bg-hover hover:text-text"
          >
            <X aria-hidden="true" className="size-4" />
          </Base.Close>
        </Base.Content>
      </Base.Root>
    )
  })
}
