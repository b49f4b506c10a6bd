import { type ReactNode, useCallback, useContext, useState } from 'react'
import { useUnsaved } from '@/lib/form'
import { Button } from './button'
import { CloseWindow } from './close-window'
import { CodeBlock } from './code-block'

/**
 * Keeps a window that shows a secret once from closing without a question, until the secret was copied. Gives what to call
 * when it was, or is not needed any more.
 */
export function useShownOnce({
  shown,
  lost,
}: {
  /** Whether the secret is on the screen. */
  shown: boolean
  /** What is said to who closes it. */
  lost: string
}): () => void {
  const [settled, setSettled] = useState(false)
  useUnsaved(shown && !settled, { lost })
  return useCallback(() => setSettled(true), [])
}

/** The button that ends a window. It asks as Escape does, where something would be lost. */
export function CloseButton({
  variant = 'primary',
  children,
}: {
  variant?: 'primary' | 'secondary'
  children: ReactNode
}) {
  const { close } = useContext(CloseWindow)
  return (
    <Button variant={variant} onClick={() => close()}>
      {children}
    </Button>
  )
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
