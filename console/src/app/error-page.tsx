import { useLayoutEffect, useRef, useState } from 'react'
import { t } from '@/lib/t'
import { Card } from '@/ui/card'
import { EmptyState } from '@/ui/empty-state'
import { capital, ErrorState } from '@/ui/error-state'
import { ButtonLink } from '@/ui/link'
import { PageHeader } from '@/ui/page-header'
import { withheldFrom } from './guard'

/** A page that could not be shown; the shell around it lives, and where it is a part of a page, that page's head. */
export function ErrorPage({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const own = useRef<HTMLDivElement>(null)
  const [isPart, setIsPart] = useState(false)
  useLayoutEffect(() => {
    const headings = [...document.querySelectorAll('main h1')]
    setIsPart(headings.some((heading) => own.current?.contains(heading) === false))
  }, [])
  return (
    <div ref={own} className="contents">
      {!isPart && <PageHeader title={t('This page could not be shown')} />}
      <Card flush>
        <ErrorState error={error} onRetry={onRetry} />
      </Card>
    </div>
  )
}

/** There is such a page, but not for this role. */
function WithheldPage({ role }: { role: string }) {
  return (
    <>
      <PageHeader title={t('Not for your role')} />
      <Card>
        <EmptyState
          title={t('Your role ({role}) may not see this page', { role })}
          action={<ButtonLink to="/">{t('Go to the overview')}</ButtonLink>}
        >
          {t('An owner or an admin of your organization can give you another role, under Access.')}
        </EmptyState>
      </Card>
    </>
  )
}

/** There is no such page, or no such thing; `data` says when there is one, but not for everybody. */
export function NotFoundPage({ detail, data }: { detail?: string; data?: unknown }) {
  const role = withheldFrom(data)
  if (role !== undefined) return <WithheldPage role={role} />
  return (
    <>
      <PageHeader title={t('Not found')} />
      <Card>
        <EmptyState
          title={detail === undefined ? t('There is no page at this address') : capital(detail)}
          action={<ButtonLink to="/">{t('Go to the overview')}</ButtonLink>}
        />
      </Card>
    </>
  )
}
