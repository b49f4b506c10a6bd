import { createFileRoute } from '@tanstack/react-router'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { toolsetsQuery } from '@/features/mcp/public/target-list'
import { PlaygroundPicker } from '@/features/playground/public/playground-page'
import { serversQuery } from '@/features/servers/public/queries'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/playground/')({
  beforeLoad: ({ context }) => onlyFor(context.session, 'tool:call'),
  head: () => pageTitle(t('Playground')),
  loader: ({ context: { queryClient } }) =>
    Promise.all([
      queryClient.ensureQueryData(toolsetsQuery),
      queryClient.ensureInfiniteQueryData(serversQuery),
    ]),
  component: PlaygroundPicker,
})
