import { useInfiniteQuery, useSuspenseQuery } from '@tanstack/react-query'
import { useState } from 'react'
import { useForbidden } from '@/api/session'
import { t } from '@/lib/t'
import { EmptyState } from '@/ui/empty-state'
import { type LogChoice, LogView } from './log-view'
import { revisionsQuery, serverQuery } from './queries'

/** More revisions than this are not offered: the log of what is gone is kept for a while only. */
const MOST_REVISIONS = 20

/** The live log of a server. */
export function ServerLogs({
  name,
  choice,
  onChoiceChange,
}: {
  name: string
  choice: LogChoice
  onChoiceChange: (changes: LogChoice) => void
}) {
  const { data: server } = useSuspenseQuery(serverQuery(name))
  // Only to choose from: the log does not wait for them.
  const { data: revisions } = useInfiniteQuery(revisionsQuery(name))
  const denied = useForbidden('server:logs')
  // The log of an instance that ended is kept for a while; only a server that never had one has none.
  const hasOne = server.instances.length > 0
  const tried =
    server.rollout !== undefined && server.rollout !== null && server.rollout.state !== 'progressing'
  const [hadOne, setHadOne] = useState(hasOne || tried)
  if (!hadOne && (hasOne || tried)) setHadOne(true)
  if (denied !== undefined) return <EmptyState title={t('You may not read logs')}>{denied}</EmptyState>
  if (server.kind === 'remote') {
    return (
      <EmptyState title={t('A remote server has no log here')}>
        {t('It runs elsewhere, and its log is there. What it answered stands in the steps of its rollouts.')}
      </EmptyState>
    )
  }
  if (!hadOne) {
    return (
      <EmptyState title={t('No instance, no log')}>{t('The log appears with the next instance.')}</EmptyState>
    )
  }
  return (
    <LogView
      server={server}
      revisions={revisions?.pages[0]?.items.slice(0, MOST_REVISIONS).map((one) => one.number)}
      replaced={server.rollout?.from_revision != null}
      choice={choice}
      onChoiceChange={onChoiceChange}
      className="h-[max(18rem,calc(100dvh-22rem))]"
    />
  )
}
