import { type ReactNode, useCallback, useState } from 'react'
import { useUnsaved } from '@/lib/form'
import { CodeBlock } from './code-block'

/** What {@link useShownOnce} gives. */
export interface ShownOnce {
  /** Closes the window; the first time, it says what would be lost. */
  close: () => void
  /** It was copied, or is not needed any more: nothing is lost by closing. */
  settle: () => void
  /** Put it where the window's buttons are. */
  warning: ReactNode
}

/** Keeps a window open that shows a secret once, until the secret was copied or the window is closed a second time. */
export function useShownOnce({
  shown,
  lost,
  onClose,
}: {
  /** Whether the secret is on the screen. */
  shown: boolean
  /** What is said to who closes it. */
  lost: string
  onClose: () => void
}): ShownOnce {
  const [settled, setSettled] = useState(false)
  const [leaving, setLeaving] = useState(false)
  const settle = useCallback(() => setSettled(true), [])
  useUnsaved(shown && !settled)
  return {
    close: () => {
      if (shown && !settled && !leaving) setLeaving(true)
      else onClose()
    },
    settle,
    warning: shown && leaving && !settled && (
      <p role="alert" className="text-warn">
        {lost}
      </p>
    ),
  }
}

/** A secret that is shown once, to copy with its button or by hand. */
export function OnceCode({ code, label, onCopied }: { code: string; label: string; onCopied: () => void }) {
  return (
    <div
      onCopy={() => {
        // A part of it is not it.
        if (document.getSelection()?.toString().includes(code)) onCopied()
      }}
    >
      <CodeBlock code={code} label={label} onCopied={onCopied} wrap />
    </div>
  )
}
