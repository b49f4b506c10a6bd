import { Dialog } from '@base-ui/react/dialog'
import { useQuery } from '@tanstack/react-query'
import { type LinkProps, useNavigate } from '@tanstack/react-router'
import {
  ArrowRight,
  Boxes,
  Keyboard,
  KeyRound,
  Layers,
  LockKeyhole,
  type LucideIcon,
  Moon,
  Rocket,
  Search,
  Server,
  Store,
  Sun,
} from 'lucide-react'
import { type KeyboardEvent, useEffect, useId, useState } from 'react'
import { listEntries } from '@/api/generated/catalog'
import { listCredentials } from '@/api/generated/credentials'
import { listKeys } from '@/api/generated/keys'
import { listServers } from '@/api/generated/servers'
import { listToolboxes } from '@/api/generated/toolboxes'
import { listToolsets } from '@/api/generated/toolsets'
import type { Action } from '@/api/generated/types'
import { q } from '@/api/queries'
import { may, useSession } from '@/api/session'
import { entryParams } from '@/features/catalog/public/entry-parts'
import { cx } from '@/lib/cx'
import { plural, t } from '@/lib/t'
import { LiveRegion } from '@/ui/live-region'
import { setTheme } from './appearance'
import { fitting, furtherPages, ranked } from './commands'
import type { Held } from './held-keys'
import { navigation } from './navigation'

interface Command {
  id: string
  label: string
  /** Further words that find it. */
  words?: string | undefined
  group: string
  icon: LucideIcon
  run: () => void
}

/** Goes anywhere and does things, by typing: pages, things by their names, actions. */
export function CommandPalette({
  onOpenChange,
  onShortcuts,
  held,
}: {
  onOpenChange: (open: boolean) => void
  onShortcuts: () => void
  /** Gives what was typed before this had the keyboard, once. */
  held: () => Held | undefined
}) {
  const [text, setText] = useState('')
  // By its id: what arrives above it does not move the choice.
  const [at, setAt] = useState<string>()
  /** Whether Enter was pressed before all was found. */
  const [entered, setEntered] = useState(false)
  const id = useId()
  const { commands, coming, missing } = useCommands(text, onShortcuts)
  const chosen = commands.find((command) => command.id === at) ?? commands[0]
  // The first one is chosen once all is found, and stays so.
  if (!coming && chosen !== undefined && chosen.id !== at) setAt(chosen.id)
  const nothing = missing ?? t('Nothing found')
  const run = (command: Command | undefined) => {
    if (command === undefined) return
    onOpenChange(false)
    command.run()
  }
  // biome-ignore lint/correctness/useExhaustiveDependencies: what is chosen is known when all is found.
  useEffect(() => {
    if (!entered || coming) return
    setEntered(false)
    run(chosen)
  }, [entered, coming])
  const press = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
    if (step !== undefined && chosen !== undefined) {
      event.preventDefault()
      setEntered(false)
      const next = commands.at((commands.indexOf(chosen) + step) % commands.length)
      setAt(next?.id)
      document.getElementById(`${id}-${next?.id}`)?.scrollIntoView({ block: 'nearest' })
    } else if (event.key === 'Enter') {
      event.preventDefault()
      // One that was pointed at is meant; else what fits best may still come.
      if (coming && at === undefined) setEntered(true)
      else run(chosen)
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
              placeholder={t('A page, the name of anything, an action')}
              autoComplete="off"
              spellCheck={false}
              value={text}
              onChange={(event) => {
                setText(event.target.value)
                setAt(undefined)
                setEntered(false)
              }}
              onFocus={() => {
                const typed = held()
                if (typed === undefined || (typed.text === '' && !typed.enter)) return
                setAt(undefined)
                setText((now) => now + typed.text)
                setEntered(typed.enter)
              }}
              onKeyDown={press}
              className="h-11 w-full bg-transparent text-lg outline-none"
            />
          </div>
          {commands.length === 0 ? (
            // Not in the list: a list of options may hold nothing else.
            <p className="px-3.5 py-6 text-center text-muted">{coming ? t('Searching…') : nothing}</p>
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
                    onPointerMove={() => setAt(command.id)}
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
          {commands.length > 0 && !coming && missing !== undefined && (
            <p className="border-t px-3.5 py-2 text-sm text-muted">{missing}</p>
          )}
          <LiveRegion>
            {coming
              ? ''
              : commands.length === 0
                ? nothing
                : plural(commands.length, '{count} result', '{count} results')}
          </LiveRegion>
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  )
}

/** So many things of a kind: the page of the kind has all. */
const MOST = 8

/** So many that the API found are looked through for those that fit best. */
const MOST_FOUND = 100

/** So many of a kind are looked through where the API does not search. */
const MOST_READ = 500

interface Found {
  commands: Command[]
  /** Whether some may still come. */
  coming: boolean
  /** Why some may not be among them, in words. */
  missing: string | undefined
}

/** What fits what was typed. */
function useCommands(text: string, onShortcuts: () => void): Found {
  const session = useSession()
  const navigate = useNavigate()
  const wanted = text.trim().toLowerCase()
  const asked = (action: Action) => ({
    enabled: wanted !== '' && may(session, action),
    // Typed within a moment: what was read for the letter before is as good.
    staleTime: 10_000,
  })
  const servers = useQuery({
    ...q(listServers, { query: { search: wanted, brief: true, limit: MOST_FOUND } }),
    ...asked('server:read'),
    placeholderData: (before) => before,
  })
  const toolsets = useQuery({ ...q(listToolsets, { query: { limit: MOST_READ } }), ...asked('toolset:read') })
  const toolboxes = useQuery({ ...q(listToolboxes, {}), ...asked('toolbox:read') })
  const credentials = useQuery({
    ...q(listCredentials, { query: { limit: MOST_READ } }),
    ...asked('credential:read'),
  })
  const keys = useQuery({
    ...q(listKeys, { query: { active: true, limit: MOST_READ } }),
    ...asked('key:read'),
  })
  const entries = useQuery({
    ...q(listEntries, { query: { search: wanted.slice(0, 200), limit: MOST_FOUND } }),
    ...asked('catalog:read'),
    placeholderData: (before) => before,
  })
  const go = (to: NonNullable<LinkProps['to']>) => () => void navigate({ to })
  const allowed = ({ action }: { action?: Action }) => action === undefined || may(session, action)
  const main = navigation()
    .flatMap((group) => group.items)
    .filter(allowed)
    .map(
      ({ key, label, icon, to }): Command => ({
        id: `page-${key}`,
        label,
        group: t('Pages'),
        icon,
        run: go(to),
      }),
    )
  const further = furtherPages()
    .filter(allowed)
    .map(
      ({ label, to, words }): Command => ({
        id: `page-${to}`,
        label,
        words,
        group: t('Pages'),
        icon: ArrowRight,
        run: go(to),
      }),
    )
  const actions: Command[] = [
    ...(may(session, 'server:deploy') && may(session, 'catalog:read')
      ? [
          {
            id: 'deploy',
            label: t('Deploy a server'),
            group: t('Actions'),
            icon: Rocket,
            run: go('/marketplace'),
          },
        ]
      : []),
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
  if (wanted === '') return { commands: [...main, ...actions], coming: false, missing: undefined }
  let isMore = servers.data?.next_cursor != null
  const few = (names: readonly string[]) => {
    isMore ||= names.length > MOST
    return names.slice(0, MOST)
  }
  const those = ({ data }: { data?: { items: ReadonlyArray<{ name: string }> } | undefined }) =>
    few(fitting([...new Set(data?.items.map(({ name }) => name))], wanted))
  const things = (
    [kind, group, icon]: [kind: string, group: string, icon: LucideIcon],
    names: readonly string[],
    open: (name: string) => unknown,
  ) =>
    names.map(
      (name): Command => ({ id: `${kind}-${name}`, label: name, group, icon, run: () => void open(name) }),
    )
  const serversFound = (servers.data?.items ?? []).map((server) => server.name)
  const entriesFound = (entries.data?.items ?? [])
    .filter(({ name, title }) => `${name} ${title}`.toLowerCase().includes(wanted))
    .map(({ name }) => name)
  const found = [
    // The API found them, also by their entry; those for the text before are shown as far as they fit this one.
    ...things(
      ['server', t('Servers'), Server],
      few(servers.isPlaceholderData ? fitting(serversFound, wanted) : ranked(serversFound, wanted)),
      (name) => navigate({ to: '/servers/$name', params: { name } }),
    ),
    ...things(['toolset', t('Toolsets'), Layers], those(toolsets), (name) =>
      navigate({ to: '/toolsets/$name', params: { name } }),
    ),
    ...things(['toolbox', t('Toolboxes'), Boxes], those(toolboxes), (name) =>
      navigate({ to: '/toolboxes/$name', params: { name } }),
    ),
    ...things(['credential', t('Credentials'), LockKeyhole], those(credentials), (name) =>
      navigate({ to: '/credentials', search: { search: name } }),
    ),
    ...things(['key', t('API keys'), KeyRound], those(keys), (name) =>
      navigate({ to: '/access/keys', search: { search: name } }),
    ),
    ...things(['entry', t('Marketplace'), Store], few(ranked(entriesFound, wanted)), (name) =>
      navigate({ to: '/marketplace/$namespace/$name', params: entryParams(name) }),
    ),
  ]
  const fits = ({ label, words = '' }: Command) => `${label} ${words}`.toLowerCase().includes(wanted)
  const reads = [servers, toolsets, toolboxes, credentials, keys, entries]
  const isCut = [toolsets, credentials, keys].some(({ data }) => data?.next_cursor != null)
  return {
    commands: [...[...main, ...further].filter(fits), ...found, ...actions.filter(fits)],
    coming: reads.some((read) => read.isLoading || read.isPlaceholderData),
    missing: reads.some((read) => read.isLoadingError)
      ? t('Not everything could be searched: names may be missing')
      : isCut
        ? t('Only the first {count} of a kind were searched: names may be missing', { count: MOST_READ })
        : isMore
          ? t('There are more than the first {count} of a kind: type more of the name', { count: MOST })
          : undefined,
  }
}
