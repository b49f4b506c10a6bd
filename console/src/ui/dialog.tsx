import { type FormEvent, type ReactNode, useContext, useState } from 'react'
import { useUnsaved } from '@/lib/form'
import { t } from '@/lib/t'
import { Button } from './button'
import { CloseWindow, sendingText } from './close-window'
import { ErrorNote } from './error-state'
import { TextInput } from './inputs'
import { later } from './later'
import { toast } from './toast'

export interface DialogProps {
  open: boolean
  onOpenChange: (open: boolean) => void
  title: ReactNode
  description?: ReactNode
  children?: ReactNode
  /** The buttons, the most important one last. */
  footer?: ReactNode
  size?: 'small' | 'medium' | 'large'
  /** What is typed there, such as a password, is given up without a question; it waits all the same for what is sent. */
  disposable?: boolean
}

/** As a dialog, at a side. */
export interface DrawerProps extends Omit<DialogProps, 'size' | 'disposable'> {
  side?: 'left' | 'right'
}

const close = ({ onOpenChange }: Pick<DialogProps, 'onOpenChange'>) => onOpenChange(false)

const DialogWindow = later<DialogProps>(
  () => import('./dialog-window').then((module) => module.DialogWindow),
  close,
)
const DrawerWindow = later<DrawerProps>(
  () => import('./dialog-window').then((module) => module.DrawerWindow),
  close,
)

/** Loads what windows are made of. The shell calls it when the page has come to rest. */
export const loadWindows = () => Promise.all([DialogWindow.loadAhead(), DrawerWindow.loadAhead()])

/** Whether it was ever open: before that there is nothing to show, and after it the closing is shown. */
function useOpened(open: boolean): boolean {
  const [opened, setOpened] = useState(open)
  if (open && !opened) setOpened(true)
  return open || opened
}

/** A window over the page. It keeps the focus, closes with Escape, and gives the focus back. */
export function Dialog(props: DialogProps) {
  if (!useOpened(props.open)) return null
  return <DialogWindow {...props} />
}

/** A panel from the side, for details beside the list that they belong to. */
export function Drawer(props: DrawerProps) {
  if (!useOpened(props.open)) return null
  return <DrawerWindow {...props} />
}

/** Gives a window up, with what was typed there; not while that is being sent. */
export function CancelButton({ children = t('Cancel') }: { children?: ReactNode }) {
  const { close, sending } = useContext(CloseWindow)
  return (
    <Button disabledReason={sending ? sendingText() : undefined} onClick={() => close(true)}>
      {children}
    </Button>
  )
}

/**
 * Asks before something happens. Name the thing in the title (`Stop everything?`) and say in the text what follows.
 * `typeToConfirm` wants the thing's name typed: for what cannot be undone. What `onConfirm` throws is shown inside; that
 * nobody knows whether it was done is a notice.
 */
export function ConfirmDialog({
  open,
  onOpenChange,
  title,
  children,
  confirm,
  danger = false,
  typeToConfirm,
  disabledReason,
  onConfirm,
}: {
  open: boolean
  onOpenChange: (open: boolean) => void
  title: ReactNode
  children?: ReactNode
  /** The button's text: the verb, as in `Delete`. */
  confirm: string
  danger?: boolean
  typeToConfirm?: string
  /** Why it cannot be done now, when that is known before. */
  disabledReason?: string | undefined
  onConfirm: () => Promise<unknown>
}) {
  const [typed, setTyped] = useState('')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const untyped =
    typeToConfirm === undefined || typed.trim() === typeToConfirm ? undefined : t('The name is not typed yet')
  const notReady = disabledReason ?? untyped
  useUnsaved(busy, { saving: busy })
  const change = (next: boolean) => {
    setTyped('')
    setError(undefined)
    onOpenChange(next)
  }
  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (notReady !== undefined || busy) return
    setBusy(true)
    setError(undefined)
    onConfirm()
      .catch((failed: unknown) => {
        // It may be done: the window must not ask for it again, and what it said would go with the thing.
        if (!toast.unsure(failed)) throw failed
      })
      .then(() => {
        setTyped('')
        onOpenChange(false)
      }, setError)
      .finally(() => setBusy(false))
  }
  return (
    <Dialog open={open} onOpenChange={change} title={title} size="small">
      <form onSubmit={submit} noValidate className="flex flex-col gap-4">
        {children !== undefined && <div className="text-muted">{children}</div>}
        {typeToConfirm !== undefined && (
          <TextInput
            id="confirm-name"
            label={t('Type {name} to confirm', { name: typeToConfirm })}
            value={typed}
            onValueChange={setTyped}
            autoComplete="off"
            mono
          />
        )}
        {error !== undefined && <ErrorNote error={error} />}
        <div className="flex flex-wrap justify-end gap-2">
          <CancelButton />
          <Button type="submit" variant={danger ? 'danger' : 'primary'} busy={busy} disabledReason={notReady}>
            {confirm}
          </Button>
        </div>
      </form>
    </Dialog>
  )
}
