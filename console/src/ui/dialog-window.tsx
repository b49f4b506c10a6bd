import { Dialog as Base } from '@base-ui/react/dialog'
import { useBlocker } from '@tanstack/react-router'
import { X } from 'lucide-react'
import { type ReactNode, useContext, useEffect, useId, useRef, useState, useSyncExternalStore } from 'react'
import { cx } from '@/lib/cx'
import { allUnsaved, type Unsaved, watchUnsaved } from '@/lib/form'
import { t } from '@/lib/t'
import { Button } from './button'
import { CloseWindow, type Closing, sendingText } from './close-window'
import type { DialogProps, DrawerProps } from './dialog'
import { LiveRegion } from './live-region'

// `dialog.tsx` loads this when something opens: pages need not wait for it.

/**
 * The last control of a window, though it stands first: the focus begins at what the window is about. It has no
 * tooltip, which would take the first Escape for itself.
 */
function CloseButton() {
  const { sending } = useContext(CloseWindow)
  return (
    <Base.Close
      aria-label={t('Close')}
      aria-disabled={sending || undefined}
      className="absolute top-2.5 right-2.5 flex size-control-small items-center justify-center rounded-md text-muted hover:bg-hover hover:text-text aria-disabled:opacity-50"
    >
      <X aria-hidden="true" className="size-4" />
    </Base.Close>
  )
}

const windows: string[] = []

/** Whether the window is on top: a question over a window must not close what lies under it. */
function useOnTop(open: boolean): () => boolean {
  const id = useId()
  useEffect(() => {
    if (!open) return
    windows.push(id)
    return () => void windows.splice(windows.indexOf(id), 1)
  }, [open, id])
  return () => windows.at(-1) === id
}

/**
 * What began since the window is open: what was typed there, is being sent, or is shown there once. It has the keyboard
 * while it is open, so whatever came since then is of it, and not of the page below.
 */
function useOwn(open: boolean): (which: (one: Unsaved) => boolean) => Unsaved | undefined {
  const below = useRef<ReadonlySet<string>>(undefined)
  useEffect(() => {
    below.current = open ? new Set(allUnsaved().keys()) : undefined
  }, [open])
  return (which) => {
    if (below.current === undefined) return undefined
    for (const [key, one] of allUnsaved()) if (!below.current.has(key) && which(one)) return one
    return undefined
  }
}

/** How long an answer keeps the window open; after that it can be left without, after a question. */
const LONGEST_SENDING_MS = 30_000

/** Whether something has been under way for so long that nobody should have to wait for it. */
function useOverdue(sending: boolean): boolean {
  const [overdue, setOverdue] = useState(false)
  useEffect(() => {
    if (!sending) return
    const timer = setTimeout(() => setOverdue(true), LONGEST_SENDING_MS)
    return () => {
      clearTimeout(timer)
      setOverdue(false)
    }
  }, [sending])
  return overdue
}

/**
 * Asks before the window closes, or its page is left, with something that would be lost. While something is being sent the
 * window does not close: what is made may be shown in the answer, this once.
 */
function useAsking({
  open,
  onOpenChange,
  disposable = false,
}: Pick<DialogProps, 'open' | 'onOpenChange' | 'disposable'>): Closing & {
  change: (open: boolean) => void
  question: ReactNode
} {
  const onTop = useOnTop(open)
  const own = useOwn(open)
  const isSending = () => own((one) => one.saving === true) !== undefined
  const sending = useSyncExternalStore(watchUnsaved, isSending)
  const overdue = useOverdue(sending)
  const lostWith = (): Unsaved | undefined => {
    if (disposable) return undefined
    return isSending()
      ? {
          lost: t(
            'It is being sent, and may be done all the same. The answer, with what it shows only once, is lost.',
          ),
          saving: true,
        }
      : own(() => true)
  }
  const [asked, setAsked] = useState<Unsaved>()
  // It closed by itself, such as after saving.
  if (!open && asked !== undefined) setAsked(undefined)
  const blocker = useBlocker({
    shouldBlockFn: ({ current, next }) => {
      const lost = current.pathname === next.pathname ? undefined : lostWith()
      if (lost !== undefined) setAsked(lost)
      return lost !== undefined
    },
    enableBeforeUnload: () => lostWith() !== undefined,
    withResolver: true,
  })
  const latest = useRef(blocker)
  useEffect(() => {
    latest.current = blocker
  })
  useEffect(() => {
    // A question that went with its window was not answered: the page stays.
    if (open) return () => latest.current.reset?.()
  }, [open])
  const stay = () => {
    blocker.reset?.()
    setAsked(undefined)
  }
  const leave = () => {
    const now = lostWith()
    // What came while the question stood, such as a secret that is shown once, was not asked about.
    if (now !== undefined && now.lost !== asked?.lost) {
      setAsked(now)
      return
    }
    setAsked(undefined)
    if (blocker.status === 'blocked') blocker.proceed()
    else onOpenChange(false)
  }
  const close = (givenUp = false) => {
    const under = isSending()
    if (!onTop() || (under && !overdue)) return
    const lost = givenUp && !under ? undefined : lostWith()
    if (lost === undefined) onOpenChange(false)
    else setAsked(lost)
  }
  return {
    close,
    sending: sending && !overdue,
    change: (next) => (next ? onOpenChange(true) : close()),
    question: asked !== undefined && <Question asked={asked} onStay={stay} onLeave={leave} />,
  }
}

function Question({
  asked: { lost, saving = false },
  onStay,
  onLeave,
}: {
  asked: Unsaved
  onStay: () => void
  onLeave: () => void
}) {
  useOnTop(true)
  return (
    <CloseWindow value={{ close: onStay, sending: false }}>
      <Frame
        open
        onOpenChange={onStay}
        size="small"
        title={
          saving
            ? t('Leave without the answer?')
            : lost === undefined
              ? t('Leave without saving?')
              : t('Leave without copying?')
        }
        description={lost ?? t('What was typed here is lost.')}
        footer={
          <>
            <Button onClick={onStay}>{t('Stay')}</Button>
            <Button variant="danger" onClick={onLeave}>
              {t('Leave')}
            </Button>
          </>
        }
      />
    </CloseWindow>
  )
}

const WIDTH = { small: 'max-w-md', medium: 'max-w-xl', large: 'max-w-4xl' }

/**
 * A window over the page. It keeps the focus, closes with Escape, and gives the focus back. Where something would be lost
 * it asks first, and while something is being sent it waits for the answer.
 */
export function DialogWindow({ children, ...props }: DialogProps) {
  const { change, question, close, sending } = useAsking(props)
  return (
    <CloseWindow value={{ close, sending }}>
      <Frame {...props} onOpenChange={change}>
        {children}
        <LiveRegion>{sending ? sendingText() : ''}</LiveRegion>
        {question}
      </Frame>
    </CloseWindow>
  )
}

function Frame({ open, onOpenChange, title, description, children, footer, size = 'medium' }: DialogProps) {
  return (
    <Base.Root open={open} onOpenChange={onOpenChange}>
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
  const { change, question, close, sending } = useAsking({ open, onOpenChange })
  return (
    <CloseWindow value={{ close, sending }}>
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
            <div className="min-h-0 flex-1 overflow-y-auto p-pad">
              {children}
              <LiveRegion>{sending ? sendingText() : ''}</LiveRegion>
              {question}
            </div>
            {footer !== undefined && (
              <div className="flex flex-wrap justify-end gap-2 border-t px-pad py-3">{footer}</div>
            )}
            <CloseButton />
          </Base.Popup>
        </Base.Portal>
      </Base.Root>
    </CloseWindow>
  )
}
