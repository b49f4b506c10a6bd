import { t } from '@/lib/t'
import { Card } from '@/ui/card'
import { EmptyState } from '@/ui/empty-state'
import { capital, ErrorState } from '@/ui/error-state'
import { ButtonLink } from '@/ui/link'
import { PageHeader } from '@/ui/page-header'

/** A page that could not be shown; the shell around it lives. */
export function ErrorPage({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  return (
    <>
      <PageHeader title={t('This page could not be shown')} />
      <Card flush>
        <ErrorState error={error} onRetry={onRetry} />
      </Card>
    </>
  )
}

/** There is no such page, or no such thing. */
export function NotFoundPage({ detail }: { detail?: string }) {
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
