import type { ReactNode } from 'react'
import { Boundary } from './boundary'
import { Card } from './card'
import { ErrorState } from './error-state'
import { SkeletonLines } from './skeleton'

/** What a panel looks at of a query; what `useQuery` gives has it. */
interface PanelQuery<Data> {
  data: Data | undefined
  error: unknown
  isPending: boolean
  isFetching: boolean
  refetch: () => unknown
}

/**
 * A card around a query: skeleton while it loads, error with retry, `empty` when `isEmpty` says so, else the
 * children. An error in the children stays in the panel.
 * `<Panel title={t('Rollouts')} query={useQuery(q(...))}>{(data) => ...}</Panel>`
 */
export function Panel<Data>({
  title,
  description,
  actions,
  query,
  skeleton = <SkeletonLines />,
  isEmpty,
  empty,
  flush = false,
  children,
  className,
}: {
  title: string
  description?: ReactNode
  actions?: ReactNode
  query: PanelQuery<Data>
  /** As large as what comes. */
  skeleton?: ReactNode
  isEmpty?: (data: Data) => boolean
  empty?: ReactNode
  flush?: boolean
  children: (data: Data) => ReactNode
  className?: string
}) {
  return (
    <Card title={title} description={description} actions={actions} flush={flush} className={className}>
      <Boundary where={title} resetKey={query.data} onRetry={query.refetch}>
        <Content query={query} skeleton={skeleton} isEmpty={isEmpty} empty={empty} flush={flush}>
          {children}
        </Content>
      </Boundary>
    </Card>
  )
}

function Content<Data>({
  query,
  skeleton,
  isEmpty,
  empty,
  flush,
  children,
}: {
  query: PanelQuery<Data>
  skeleton: ReactNode
  isEmpty: ((data: Data) => boolean) | undefined
  empty: ReactNode
  flush: boolean
  children: (data: Data) => ReactNode
}) {
  if (query.data !== undefined) return isEmpty?.(query.data) ? empty : children(query.data)
  if (query.isPending && query.error === null) return skeleton
  return (
    <ErrorState
      error={query.error}
      onRetry={() => void query.refetch()}
      retrying={query.isFetching}
      className={flush ? undefined : '-m-2'}
    />
  )
}
