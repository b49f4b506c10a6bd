import { Dialog as Base } from '@base-ui/react/dialog'
import { useBlocker } from '@tanstack/react-router'
import { X } from 'lucide-react'
import { type ReactNode, useEffect, useId, useRef, useState } from 'react'
import { cx } from '@/lib/cx'
import { allUnsaved, type Unsaved } from '@/lib/form'
import { t } from '@/lib/t'
import { Button } from './button'
import { CloseWindow } from './close-window'
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
 * What would be lost with the window: what was typed there, or is shown there once. It has the keyboard while it is open,
 * so whatever came since then is of it, and not of the page below.
 */
function useLostWith(open: boolean): () => Unsaved | undefined {
  const below = useRef<ReadonlySet<string>>(undefined)
  useEffect(() => {
    below.current = open ? new Set(allUnsaved().keys()) : undefined
  }, [open])
  return () => {
    if (below.current === undefined) return undefined
    for (const [key, one] of allUnsaved()) if (!below.current.has(key) && !one.saving) return one
    return undefined
  }
}

/** Asks before the window closes, or its page is left, with something that would be lost. */
function useAsking({
  open,
  onOpenChange,
  disposable = false,
}: Pick<DialogProps, 'open' | 'onOpenChange' | 'disposable'>): {
  change: (open: boolean) => void
  question: ReactNode
} {
  const onTop = useOnTop(open)
  const lostWith = useLostWith(open && !disposable)
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
  const stay = () => {
    blocker.reset?.()
    setAsked(undefined)
  }
  const leave = () => {
    setAsked(undefined)
    if (blocker.status === 'blocked') blocker.proceed()
    else onOpenChange(false)
  }
  return {
    change: (next) => {
      if (!next && !onTop()) return
      const lost = next ? undefined : lostWith()
      if (lost === undefined) onOpenChange(next)
      else setAsked(lost)
    },
    question: asked !== undefined && <Question lost={asked.lost} onStay={stay} onLeave={leave} />,
  }
}

function Question({
  lost,
  onStay,
  onLeave,
}: {
  lost: string | undefined
  onStay: () => void
  onLeave: () => void
}) {
  useOnTop(true)
  return (
    <Frame
      open
      onOpenChange={onStay}
      size="small"
      title={lost === undefined ? t('Leave without saving?') : t('Leave without copying?')}
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
  )
}

const WIDTH = { small: 'max-w-md', medium: 'max-w-xl', large: 'max-w-4xl' }

/**
 * A window over the page. It keeps the focus, closes with Escape, and gives the focus back. Where something would be lost
 * it asks first.
 */
export function DialogWindow({ children, ...props }: DialogProps) {
  const { change, question } = useAsking(props)
  return (
    <Frame {...props} onOpenChange={change}>
      <CloseWindow value={() => change(false)}>{children}</CloseWindow>
      {question}
    </Frame>
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
  const { change, question } = useAsking({ open, onOpenChange })
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
          <div className="min-h-0 flex-1 overflow-y-auto p-pad">
            <CloseWindow value={() => change(false)}>{children}</CloseWindow>
            {question}
          </div>
          {footer !== undefined && (
            <div className="flex flex-wrap justify-end gap-2 border-t px-pad py-3">{footer}</div>
          )}
          <CloseButton />
        </Base.Popup>
      </Base.Portal>
    </Base.Root>
  )
}
