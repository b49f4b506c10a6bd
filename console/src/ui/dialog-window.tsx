import { Dialog as Base } from '@base-ui/react/dialog'
import { X } from 'lucide-react'
import { useEffect, useId } from 'react'
import { cx } from '@/lib/cx'
import { t } from '@/lib/t'
import type { DialogProps, DrawerProps } from './dialog'

// `dialog.tsx` loads this when something opens: pages need not wait for it.

/**
 * The last control of a window, though it stands first: the focus begins at what the window is about. It has no
 * tooltip, which would take the first Escape for itself.
 */
function CloseButton() {
  return (
    <Base.Close
      aria-label={t('Close')}
      className="absolute top-2.5 right-2.5 flex size-control-small items-center justify-center rounded-md text-muted hover:bg-hover hover:text-text"
    >
      <X aria-hidden="true" className="size-4" />
    </Base.Close>
  )
}

const windows: string[] = []

/** Closes only the window on top: a question over a window must not close what lies under it. */
function useOnTop({
  open,
  onOpenChange,
}: Pick<DialogProps, 'open' | 'onOpenChange'>): (open: boolean) => void {
  const id = useId()
  useEffect(() => {
    if (!open) return
    windows.push(id)
    return () => void windows.splice(windows.indexOf(id), 1)
  }, [open, id])
  return (next) => {
    if (next || windows.at(-1) === id) onOpenChange(next)
  }
}

const WIDTH = { small: 'max-w-md', medium: 'max-w-xl', large: 'max-w-4xl' }

/** A window over the page. It keeps the focus, closes with Escape, and gives the focus back. */
export function DialogWindow({
  open,
  onOpenChange,
  title,
  description,
  children,
  footer,
  size = 'medium',
}: DialogProps) {
  const change = useOnTop({ open, onOpenChange })
  return (
    <Base.Root open={open} onOpenChange={change}>
      <Base.Portal>
        <Base.Backdrop className="fixed inset-0 z-40 bg-shade transition-opacity duration-100 data-[ending-style]:opacity-0 data-[starting-style]:opacity-0" />
        <Base.Viewport className="fixed inset-0 z-40 flex items-start justify-center overflow-y-auto p-3 sm:p-8 sm:pt-[12vh]">
          <Base.Popup className={cx('floating relative flex w-full flex-col', WIDTH[size])}>
            <div className="p-pad pr-12 pb-0">
              <Base.Title className="text-lg font-semibold wrap-anywhere">{title}</Base.Title>
              {description !== undefined && (
                <Base.Description className="mt-1 text-muted">{description}</Base.Description>
              )}
            </div>
            <div className="min-w-0 p-pad">{children}</div>
            {footer !== undefined && (
              <div className="flex flex-wrap justify-end gap-2 border-t px-pad py-3">{footer}</div>
            )}
            <CloseButton />
          </Base.Popup>
        </Base.Viewport>
      </Base.Portal>
    </Base.Root>
  )
}

/** A panel from the side, for details beside the list that they belong to; from below on phones. */
export function DrawerWindow({
  open,
  onOpenChange,
  title,
  description,
  children,
  footer,
  side = 'right',
}: DrawerProps) {
  const change = useOnTop({ open, onOpenChange })
  return (
    <Base.Root open={open} onOpenChange={change}>
      <Base.Portal>
        <Base.Backdrop className="fixed inset-0 z-40 bg-shade transition-opacity duration-150 data-[ending-style]:opacity-0 data-[starting-style]:opacity-0" />
        <Base.Popup
          className={cx(
            'fixed inset-y-0 z-40 flex flex-col border-line bg-raised shadow-lift transition-transform duration-150 ease-out',
            side === 'right'
              ? 'right-0 w-[min(100vw,32rem)] border-l data-[ending-style]:translate-x-full data-[starting-style]:translate-x-full'
              : 'left-0 w-[min(85vw,18rem)] border-r data-[ending-style]:-translate-x-full data-[starting-style]:-translate-x-full',
          )}
        >
          <div className="border-b p-pad pr-12">
            <Base.Title className="text-lg font-semibold wrap-anywhere">{title}</Base.Title>
            {description !== undefined && (
              <Base.Description className="mt-1 text-muted">{description}</Base.Description>
            )}
          </div>
          <div className="min-h-0 flex-1 overflow-y-auto p-pad">{children}</div>
          {footer !== undefined && (
            <div className="flex flex-wrap justify-end gap-2 border-t px-pad py-3">{footer}</div>
          )}
          <CloseButton />
        </Base.Popup>
      </Base.Portal>
    </Base.Root>
  )
}
