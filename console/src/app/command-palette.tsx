import { Dialog } from '@base-ui/react/dialog'
import { useQuery } from '@tanstack/react-query'
import { useNavigate } from '@tanstack/react-router'
import { Keyboard, type LucideIcon, Moon, Search, Server, Sun } from 'lucide-react'
import { type KeyboardEvent, useDeferredValue, useId, useState } from 'react'
import { listServers } from '@/api/generated/servers'
import { q } from '@/api/queries'
import { may, useSession } from '@/api/session'
import { cx } from '@/lib/cx'
import { plural, t } from '@/lib/t'
import { LiveRegion } from '@/ui/live-region'
import { setTheme } from './appearance'
import { navigation } from './navigation'

interface Command {
  id: string
  label: string
  group: string
  icon: LucideIcon
  run: () => void
}

/** Goes anywhere and does things, by typing: pages, servers, actions. */
export function CommandPalette({
  onOpenChange,
  onShortcuts,
}: {
  onOpenChange: (open: boolean) => void
  onShortcuts: () => void
}) {
  const [text, setText] = useState('')
  const [at, setAt] = useState(0)
  const id = useId()
  const commands = useCommands(useDeferredValue(text), onShortcuts)
  const chosen = commands[Math.min(at, commands.length - 1)]
  const run = (command: Command | undefined) => {
    if (command === undefined) return
    onOpenChange(false)
    command.run()
  }
  const press = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
    if (step !== undefined && commands.length > 0) {
      event.preventDefault()
      const next = (at + step + commands.length) % commands.length
      setAt(next)
      document.getElementById(`${id}-${commands[next]?.id}`)?.scrollIntoView({ block: 'nearest' })
    } else if (event.key === 'Enter') {
      event.preventDefault()
      run(chosen)
    }
  }
  return (
    <Dialog.Root open onOpenChange={onOpenChange}>
      <Dialog.Portal>
        <Dialog.Backdrop className="fixed inset-0 z-40 bg-shade" />
        <Dialog.Popup
          aria-label={t('Search and commands')}
          className="floating fixed top-[12vh] left-1/2 z-40 w-[min(94vw,36rem)] -translate-x-1/2 overflow-hidden"
        >
          <div className="flex items-center gap-2 border-b px-3">
            <Search aria-hidden="true" className="size-4 text-faint" />
            <input
              type="text"
              role="combobox"
              aria-expanded={commands.length > 0}
              aria-controls={commands.length > 0 ? `${id}-list` : undefined}
              aria-activedescendant={chosen === undefined ? undefined : `${id}-${chosen.id}`}
              aria-label={t('Search and commands')}
              placeholder={t('A page, a server, an action')}
              autoComplete="off"
              spellCheck={false}
              value={text}
              onChange={(event) => {
                setText(event.target.value)
                setAt(0)
              }}
              onKeyDown={press}
              className="h-11 w-full bg-transparent text-lg outline-none"
            />
          </div>
          {commands.length === 0 ? (
            // Not in the list: a list of options may hold nothing else.
            <p className="px-3.5 py-6 text-center text-muted">{t('Nothing found')}</p>
          ) : (
            <div
              id={`${id}-list`}
              role="listbox"
              aria-label={t('Results')}
              className="max-h-[min(60vh,24rem)] overflow-y-auto p-1.5"
            >
              {commands.map((command, index) => (
                <div key={command.id}>
                  {command.group !== commands[index - 1]?.group && (
                    <div aria-hidden="true" className="px-2 pt-2 pb-1 text-xs text-faint">
                      {command.group}
                    </div>
                  )}
                  {/* biome-ignore lint/a11y/useFocusableInteractive: the focus stays in the text; the option is pointed at by aria-activedescendant. */}
                  {/* biome-ignore lint/a11y/useKeyWithClickEvents: the keys are heard by the text. */}
                  <div
                    id={`${id}-${command.id}`}
                    role="option"
                    aria-selected={command === chosen}
                    onClick={() => run(command)}
                    onPointerMove={() => setAt(index)}
                    className={cx(
                      'flex min-h-control cursor-default items-center gap-2.5 rounded-md px-2',
                      command === chosen && 'bg-pressed',
                    )}
                  >
                    <command.icon aria-hidden="true" className="size-4 shrink-0 text-muted" />
                    <span className="truncate">{command.label}</span>
                  </div>
                </div>
              ))}
            </div>
          )}
          <LiveRegion>{plural(commands.length, '{count} result', '{count} results')}</LiveRegion>
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  )
}

const MOST_SERVERS = 8

function useCommands(text: string, onShortcuts: () => void): Command[] {
  const session = useSession()
  const navigate = useNavigate()
  const wanted = text.trim().toLowerCase()
  const servers = useQuery({
    ...q(listServers, { query: { search: wanted, limit: MOST_SERVERS } }),
    enabled: wanted !== '' && may(session, 'server:read'),
    placeholderData: (before) => before,
  })
  const pages = navigation()
    .flatMap((group) => group.items)
    .filter((item) => item.action === undefined || may(session, item.action))
    .map(
      (item): Command => ({
        id: `page-${item.key}`,
        label: item.label,
        group: t('Pages'),
        icon: item.icon,
        run: () => void navigate({ to: item.to }),
      }),
    )
  const actions: Command[] = [
    {
      id: 'light',
      label: t('Use the light theme'),
      group: t('Actions'),
      icon: Sun,
      run: () => setTheme('light'),
    },
    {
      id: 'dark',
      label: t('Use the dark theme'),
      group: t('Actions'),
      icon: Moon,
      run: () => setTheme('dark'),
    },
    {
      id: 'shortcuts',
      label: t('Show keyboard shortcuts'),
      group: t('Actions'),
      icon: Keyboard,
      run: onShortcuts,
    },
  ]
  const fits = (command: Command) => command.label.toLowerCase().includes(wanted)
  const found = wanted === '' ? [] : (servers.data?.items ?? [])
  return [
    ...pages.filter(fits),
    ...found.map(
      (server): Command => ({
        id: `server-${server.name}`,
        label: server.name,
        group: t('Servers'),
        icon: Server,
        run: () => void navigate({ to: '/servers', search: { search: server.name } }),
      }),
    ),
    ...actions.filter(fits),
  ]
}
