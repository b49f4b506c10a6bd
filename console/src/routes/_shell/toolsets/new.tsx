import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { serversQuery } from '@/features/servers/public/queries'
import { NewToolsetPage } from '@/features/toolsets/public/toolset-page'
import { t } from '@/lib/t'

const Search = v.object({
  /** A server that is in it from the start. */
  server: v.optional(v.fallback(v.optional(v.string()), undefined)),
})

export const Route = createFileRoute('/_shell/toolsets/new')({
  validateSearch: Search,
  beforeLoad: ({ context }) => onlyFor(context.session, 'toolset:manage'),
  head: () => pageTitle(t('New toolset')),
  loader: ({ context: { queryClient } }) => queryClient.ensureInfiniteQueryData(serversQuery),
  component: Page,
})

function Page() {
  const { server } = Route.useSearch()
  return <NewToolsetPage servers={server === undefined ? [] : [server]} />
}
