import { Check, Copy } from 'lucide-react'
import { useRef, useState } from 'react'
import { t } from '@/lib/t'
import { Button, type ButtonSize, IconButton } from './button'
import { LiveRegion } from './live-region'
import { toast } from './toast'

/** Copies a text and says so. With `children` it is a button with a text, else an icon named by `label`. */
export function CopyButton({
  text,
  label = t('Copy'),
  size = 'small',
  children,
  onCopied,
}: {
  text: string | (() => string)
  label?: string
  size?: ButtonSize
  children?: string
  onCopied?: () => void
}) {
  const [copied, setCopied] = useState(false)
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined)
  const copy = () => {
    copyText(typeof text === 'string' ? text : text()).then(
      () => {
        setCopied(true)
        clearTimeout(timer.current)
        timer.current = setTimeout(() => setCopied(false), 1600)
        onCopied?.()
      },
      () =>
        toast.failed({
          title: t('Could not copy'),
          description: t('the browser did not allow it; select the text and copy it by hand'),
        }),
    )
  }
  const icon = copied ? Check : Copy
  return (
    <>
      {children === undefined ? (
        <IconButton
          icon={icon}
          label={label}
          size={size}
          onClick={copy}
          className={copied ? 'text-good' : undefined}
        />
      ) : (
        <Button icon={icon} size={size} onClick={copy}>
          {children}
        </Button>
      )}
      <LiveRegion>{copied ? t('Copied') : ''}</LiveRegion>
    </>
  )
}

/** Copies a text, also where the browser has no clipboard for pages. Throws when it is refused. */
export async function copyText(text: string): Promise<void> {
  // Plain HTTP on a name other than localhost has no clipboard.
  if (navigator.clipboard !== undefined) return navigator.clipboard.writeText(text)
  const area = document.createElement('textarea')
  area.value = text
  area.setAttribute('readonly', '')
  area.className = 'sr-only'
  document.body.append(area)
  area.select()
  const done = document.execCommand('copy')
  area.remove()
  if (!done) throw new Error('copying was refused')
}
