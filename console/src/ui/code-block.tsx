import { cx } from '@/lib/cx'
import { plainText } from '@/lib/text'
import { CopyButton } from './copy-button'

/** Text to copy as it is: a command, a snippet, an answer. Control characters and direction marks are made visible. */
export function CodeBlock({
  code,
  label,
  wrap = false,
  copy = code,
  onCopied,
  className,
}: {
  code: string
  /** Its name, for people who listen. */
  label: string
  wrap?: boolean
  /** What is copied, where it differs from what is shown. */
  copy?: string | (() => string)
  /** It is in the clipboard. */
  onCopied?: () => void
  className?: string
}) {
  return (
    <div className={cx('group relative rounded-md border bg-sunken', className)}>
      {/* What scrolls must be reachable by keyboard. */}
      <section
        aria-label={label}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: browsers other than Chromium do not do this by themselves.
        tabIndex={0}
        className="max-h-96 overflow-auto rounded-md p-3 pr-10"
      >
        <pre className={cx('text-sm', wrap && 'wrap-anywhere whitespace-pre-wrap')}>
          <code>{plainText(code, 200_000)}</code>
        </pre>
      </section>
      <div className="absolute top-1 right-1">
        <CopyButton text={copy} label={`${label}: copy`} onCopied={onCopied} />
      </div>
    </div>
  )
}
