import { useNavigate } from '@tanstack/react-router'
import { Copy, ScrollText, SlidersHorizontal, SquareTerminal } from 'lucide-react'
import type { ReactElement } from 'react'
import type { Server } from '@/api/generated/types'
import { t } from '@/lib/t'
import { Menu, type MenuItem } from '@/ui/menu'
import { useActing } from './acting'
import { misfit, serverActions } from './actions'

/** Everything that can be done to a server, behind a button. */
export function ServerMenu({
  server,
  trigger,
  only,
}: {
  server: Server
  trigger: ReactElement<Record<string, unknown>>
  /** `rest`: without what the page of the server has as buttons and tabs. */
  only?: 'rest'
}) {
  const { act, denied: deniedOf } = useActing()
  const navigate = useNavigate()
  const { name } = server
  const actions = serverActions().map((action): MenuItem => {
    return {
      label: action.label,
      icon: action.icon,
      danger: action.id === 'delete',
      separated: action.id === 'delete',
      disabledReason: deniedOf(action.needs) ?? misfit(action.id, server),
      onSelect: () => void act(action.id, name),
    }
  })
  const [start, stop, restart, last] = actions
  const clone: MenuItem = {
    label: t('Clone'),
    icon: Copy,
    disabledReason: deniedOf('server:deploy'),
    onSelect: () => void act('clone', name),
  }
  const pages: MenuItem[] = [
    {
      label: t('Try it in the playground'),
      icon: SquareTerminal,
      separated: true,
      disabledReason: deniedOf('tool:call'),
      onSelect: () => void navigate({ to: '/playground/$name', params: { name } }),
    },
    {
      label: t('Logs'),
      icon: ScrollText,
      disabledReason: deniedOf('server:logs'),
      onSelect: () => void navigate({ to: '/servers/$name/logs', params: { name } }),
    },
    {
      label: t('Settings'),
      icon: SlidersHorizontal,
      onSelect: () => void navigate({ to: '/servers/$name/settings', params: { name } }),
    },
  ]
  const items = only === 'rest' ? [clone, last] : [start, stop, restart, clone, ...pages, last]
  return <Menu trigger={trigger} items={items.filter((item) => item !== undefined)} />
}
