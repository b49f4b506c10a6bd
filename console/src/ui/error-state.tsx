import { CircleAlert, RotateCw } from 'lucide-react'
import type { ReactNode } from 'react'
import { cx } from '@/lib/cx'
import { isNotLoaded } from '@/lib/not-loaded'
import { t } from '@/lib/t'
import { plainText } from '@/lib/text'
import { Button } from './button'
import { CopyButton } from './copy-button'
import { TickedText } from './ticked-text'

/** What is known of an error: the fields of a problem of the API where it is one. */
export interface ErrorFacts {
  title: string
  detail: string
  code: string | undefined
  requestId: string | undefined
}

/** What to say about an error, whatever was thrown. */
export function errorFacts(error: unknown): ErrorFacts {
  if (isNotLoaded(error))
    return {
      title: t('Toolyard does not answer'),
      detail: navigator.onLine
        ? t('this part of the console is not loaded yet, and could not be loaded now')
        : t('this device is offline, and this part of the console is not loaded yet'),
      code: undefined,
      requestId: undefined,
    }
  // as: only looks whether the fields are there, and each is checked below.
  const said = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>
  const text = (field: string) =>
    typeof said[field] === 'string' && said[field] !== '' ? plainText(said[field], 2000) : undefined
  const title = capital(text('title') ?? t('Something went wrong here'))
  const detail = text('detail') ?? text('message') ?? ''
  return {
    title,
    // The server has one sentence for both where there is nothing more to say.
    detail: capital(detail) === title ? '' : detail,
    code: text('code') ?? (error instanceof Error ? error.name || undefined : undefined),
    requestId: text('requestId'),
  }
}

/** The server's messages begin in lower case; here they begin a line. */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

function Facts({ facts }: { facts: ErrorFacts }) {
  if (facts.code === undefined && facts.requestId === undefined) return null
  return (
    <div className="mt-1.5 flex flex-wrap items-center gap-x-3 gap-y-1 text-xs text-muted">
      {facts.code !== undefined && (
        <span>
          {t('Code')} <code className="id">{facts.code}</code>
        </span>
      )}
      {facts.requestId !== undefined && (
        <span className="inline-flex min-w-0 items-center gap-1">
          {t('Request')} <code className="id truncate">{facts.requestId}</code>
          <CopyButton text={facts.requestId} label={t('Copy the request id')} />
        </span>
      )}
    </div>
  )
}

/** Something could not be shown: what, the code, the request id, and a way to try again. The rest of the page lives. */
export function ErrorState({
  error,
  onRetry,
  retrying = false,
  children,
  className,
}: {
  error: unknown
  onRetry?: (() => void) | undefined
  retrying?: boolean
  children?: ReactNode
  className?: string
}) {
  const facts = errorFacts(error)
  return (
    <div role="alert" className={cx('flex items-start gap-3 p-pad', className)}>
      <CircleAlert aria-hidden="true" className="mt-0.5 size-4 shrink-0 text-bad" />
      <div className="min-w-0 flex-1">
        <p className="font-medium">{facts.title}</p>
        {facts.detail !== '' && (
          <p className="mt-0.5 text-muted">
            <TickedText text={facts.detail} />
          </p>
        )}
        <Facts facts={facts} />
        {children}
        {onRetry !== undefined && (
          <Button size="small" icon={RotateCw} busy={retrying} onClick={onRetry} className="mt-3">
            {t('Try again')}
          </Button>
        )}
      </div>
    </div>
  )
}

/** What went wrong with a form or an action, above its buttons. Nothing when there is no error. */
export function ErrorNote({ error }: { error: unknown }) {
  if (error === undefined || error === null) return null
  const facts = errorFacts(error)
  return (
    <div role="alert" className="rounded-md border border-bad/40 bg-bad-soft px-3 py-2">
      <div tabIndex={-1} className="outline-none">
        <p className="font-medium text-bad">{facts.title}</p>
        {facts.detail !== '' && (
          <p className="mt-0.5">
            <TickedText text={facts.detail} />
          </p>
        )}
        <Facts facts={facts} />
      </div>
    </div>
  )
}
