import { Outlet, useMatches, useNavigate, useRouter } from '@tanstack/react-router'
import {
  Keyboard,
  LogOut,
  Menu as MenuIcon,
  Monitor,
  Moon,
  PanelLeft,
  Search,
  Sun,
  WifiOff,
} from 'lucide-react'
import { type ReactNode, useEffect, useLayoutEffect, useRef, useState, useSyncExternalStore } from 'react'
import { call, isProblem } from '@/api/client'
import { useOutdatedSince } from '@/api/connection'
import { deleteSession } from '@/api/generated/identity'
import { may, useSession } from '@/api/session'
import { tellOthers } from '@/features/sign-in/public/signed-in-elsewhere'
import { cx } from '@/lib/cx'
import { hasUnsaved, watchUnsaved } from '@/lib/form'
import { isTyping, modifierName } from '@/lib/hotkey'
import { storage } from '@/lib/storage'
import { t } from '@/lib/t'
import { Boundary } from '@/ui/boundary'
import { IconButton } from '@/ui/button'
import { loadWindows } from '@/ui/dialog'
import { Kbd } from '@/ui/kbd'
import { later } from '@/ui/later'
import { PlainLink } from '@/ui/link'
import { LiveRegion } from '@/ui/live-region'
import { Menu } from '@/ui/menu'
import { RelativeTime } from '@/ui/relative-time'
import { toast } from '@/ui/toast'
import { VisuallyHidden } from '@/ui/visually-hidden'
import { setTheme, useTheme } from './appearance'
import { type Held, holdKeys } from './held-keys'
import { startLive, stopLive } from './live'
import { navigation } from './navigation'
import { Navigation } from './navigation-list'
import { queryClient } from './query-client'
import { answerSignIn, leaveForSignIn, useAskedToSignIn, useOtherTabs, useSessionLost } from './signed-out'

const close = ({ onOpenChange }: { onOpenChange: (open: boolean) => void }) => onOpenChange(false)
const CommandPalette = later(() => import('./command-palette').then((module) => module.CommandPalette), close)
const NavigationDrawer = later(
  () => import('./navigation-drawer').then((module) => module.NavigationDrawer),
  close,
)
const SignInAgain = later(
  () => import('@/features/sign-in/public/sign-in-again').then((module) => module.SignInAgain),
  ({ onAnswer }) => onAnswer(false),
)
const Shortcuts = later(() => import('./shortcuts').then((module) => module.Shortcuts), close)

/** What is around every page after sign-in: navigation, search, the person, and whether changes arrive. */
export function Shell() {
  const [open, setOpen] = useState<'palette' | 'shortcuts' | 'navigation'>()
  const [narrow, setNarrow] = useState(storage.get('sidebar') === 'narrow')
  const router = useRouter()
  const asked = useAskedToSignIn()
  useOtherTabs()
  useLive(!useSessionLost())
  useRights()
  useLoadedAhead()
  useShortcuts((which) => setOpen(which))
  const toggle = () => {
    storage.set('sidebar', narrow ? undefined : 'narrow')
    setNarrow(!narrow)
  }
  const close = (next: boolean) => !next && setOpen(undefined)
  const held = useHeldKeys(open === 'palette', () => setOpen(undefined))
  return (
    <div className="min-h-dvh lg:flex">
      <a
        href="#main"
        className="fixed top-2 left-2 z-50 -translate-y-20 rounded-md bg-accent-fill px-3 py-2 text-on-accent focus:translate-y-0"
      >
        {t('Skip to the page')}
      </a>
      <header
        className={cx(
          'sticky top-0 hidden h-dvh shrink-0 flex-col border-r bg-surface lg:flex',
          narrow ? 'w-[3.75rem]' : 'w-56',
        )}
      >
        <div className={cx('flex h-13 items-center gap-1 px-2.5', !narrow && 'justify-between')}>
          {!narrow && <Brand />}
          <IconButton
            icon={PanelLeft}
            label={narrow ? t('Widen the navigation') : t('Narrow the navigation')}
            aria-expanded={!narrow}
            onClick={toggle}
          />
        </div>
        <div className="px-2.5 pb-2">
          <SearchButton narrow={narrow} onClick={() => setOpen('palette')} />
        </div>
        <Navigation narrow={narrow} />
        <div className="flex flex-col gap-1 border-t p-2.5">
          <Person narrow={narrow} onShortcuts={() => setOpen('shortcuts')} />
        </div>
      </header>
      <header className="sticky top-0 z-20 flex h-bar items-center gap-1 border-b bg-surface px-2 lg:hidden">
        <IconButton icon={MenuIcon} label={t('Navigation')} onClick={() => setOpen('navigation')} />
        <Brand />
        <div className="ml-auto flex items-center gap-1">
          <IconButton icon={Search} label={t('Search and commands')} onClick={() => setOpen('palette')} />
          <Person narrow onShortcuts={() => setOpen('shortcuts')} />
        </div>
      </header>
      <div className="min-w-0 flex-1">
        <ConnectionNote />
        <main
          id="main"
          tabIndex={-1}
          className="mx-auto w-full max-w-[90rem] px-4 py-5 sm:px-6 lg:px-8 lg:py-6"
        >
          <PageBoundary>
            <Outlet />
          </PageBoundary>
        </main>
      </div>
      {open === 'navigation' && <NavigationDrawer onOpenChange={close} />}
      {open === 'palette' && (
        <CommandPalette onOpenChange={close} onShortcuts={() => setOpen('shortcuts')} held={held} />
      )}
      {open === 'shortcuts' && <Shortcuts onOpenChange={close} />}
      {asked && (
        <SignInAgain
          onAnswer={answerSignIn}
          onLeave={() => {
            answerSignIn(false)
            void leaveForSignIn(router)
          }}
        />
      )}
    </div>
  )
}

function Brand() {
  return (
    <PlainLink
      to="/"
      className="flex items-center gap-2 rounded-md px-1.5 py-1 font-semibold tracking-[-0.01em]"
    >
      <svg viewBox="0 0 32 32" aria-hidden="true" className="size-5">
        <rect width="32" height="32" rx="7" fill="var(--accent-fill)" />
        <path d="M7 10.5h18M16 10.5V25" stroke="var(--on-accent)" strokeWidth="3.2" strokeLinecap="round" />
        <path
          d="M9.5 18.5v4M22.5 18.5v4"
          stroke="var(--on-accent)"
          strokeWidth="3.2"
          strokeLinecap="round"
          opacity="0.65"
        />
      </svg>
      Toolyard
    </PlainLink>
  )
}

function SearchButton({ narrow, onClick }: { narrow: boolean; onClick: () => void }) {
  if (narrow) return <IconButton icon={Search} label={t('Search and commands')} onClick={onClick} />
  return (
    <button
      type="button"
      onClick={onClick}
      className="flex min-h-control w-full items-center gap-2 rounded-md border bg-canvas px-2 text-sm text-muted hover:border-line-strong hover:text-text"
    >
      <Search aria-hidden="true" className="size-4" />
      <span>
        {t('Search')}
        <VisuallyHidden> {t('and commands')}</VisuallyHidden>
      </span>
      <span aria-hidden="true" className="ml-auto flex gap-1">
        <Kbd>{modifierName()}</Kbd>
        <Kbd>K</Kbd>
      </span>
    </button>
  )
}

function Person({ narrow, onShortcuts }: { narrow: boolean; onShortcuts: () => void }) {
  const session = useSession()
  const theme = useTheme()
  const navigate = useNavigate()
  const signOut = async () => {
    try {
      await call(deleteSession, {})
    } catch (error) {
      if (!isProblem(error, 401)) {
        toast.problem(t('You may still be signed in'), error)
        return
      }
    }
    tellOthers('signed out')
    stopLive()
    const { forgetLastKnown } = await import('./last-known')
    forgetLastKnown()
    await navigate({ to: '/sign-in' })
    queryClient.clear()
  }
  const mark = session.display.charAt(0).toUpperCase()
  return (
    <Menu
      align={narrow ? 'end' : 'start'}
      trigger={
        <button
          type="button"
          aria-label={narrow ? t('Account of {name}', { name: session.display }) : undefined}
          className={cx(
            'flex min-h-control min-w-0 items-center gap-2 rounded-md px-1.5 text-left hover:bg-hover',
            narrow && 'justify-center',
          )}
        >
          <span
            aria-hidden="true"
            className="flex size-6 shrink-0 items-center justify-center rounded-full bg-accent-soft text-xs font-semibold text-accent"
          >
            {mark}
          </span>
          {!narrow && (
            <span className="min-w-0 leading-tight">
              <VisuallyHidden>{t('Account of')} </VisuallyHidden>
              <span className="block truncate text-sm">{session.display}</span>
              <span className="block truncate text-xs text-faint">
                {session.organization} · {session.role}
              </span>
            </span>
          )}
        </button>
      }
      header={
        <>
          {session.display}
          <span className="block text-xs">
            {session.organization} · {session.role}
          </span>
        </>
      }
      items={[
        {
          label: t('Theme of the system'),
          icon: Monitor,
          onSelect: () => setTheme('system'),
          disabledReason: theme === 'system' ? t('in use') : undefined,
        },
        {
          label: t('Light theme'),
          icon: Sun,
          onSelect: () => setTheme('light'),
          disabledReason: theme === 'light' ? t('in use') : undefined,
        },
        {
          label: t('Dark theme'),
          icon: Moon,
          onSelect: () => setTheme('dark'),
          disabledReason: theme === 'dark' ? t('in use') : undefined,
        },
        { label: t('Keyboard shortcuts'), icon: Keyboard, onSelect: onShortcuts, separated: true },
        { label: t('Sign out'), icon: LogOut, onSelect: () => void signOut(), separated: true },
      ]}
    />
  )
}

/** Says when changes do not arrive, and how old what is shown may be. */
function ConnectionNote() {
  const since = useOutdatedSince()
  const lost = since !== undefined
  return (
    <>
      <LiveRegion>{lost ? t('The connection is lost. What is shown may be old.') : ''}</LiveRegion>
      {lost && (
        <section
          aria-label={t('Connection')}
          className="flex items-center gap-2 border-b border-warn/30 bg-warn-soft px-4 py-1.5 text-sm sm:px-6 lg:px-8"
        >
          <WifiOff aria-hidden="true" className="size-4 shrink-0 text-warn" />
          <span>
            {t('No connection to Toolyard. This is how things were')} <RelativeTime at={new Date(since)} />.
          </span>
        </section>
      )}
    </>
  )
}

function PageBoundary({ children }: { children: ReactNode }) {
  const path = useMatches({ select: (matches) => matches.at(-1)?.pathname })
  return (
    <Boundary where="page" resetKey={path}>
      {children}
    </Boundary>
  )
}

/** While nobody is signed in, nothing is followed and nothing kept. */
function useLive(on: boolean) {
  useEffect(() => {
    if (!on) return
    startLive()
    let stop: (() => void) | undefined
    let gone = false
    void import('./last-known').then(({ keepLastKnown }) => {
      if (!gone) stop = keepLastKnown(queryClient)
    })
    return () => {
      stopLive()
      gone = true
      stop?.()
    }
  }, [on])
}

/**
 * Pages are withheld by rights, which somebody may change while one is open. With something on it that would be lost the
 * page stays until that was settled; the server refuses what is not allowed any more.
 */
function useRights() {
  const router = useRouter()
  const rights = useSession().actions.join()
  const before = useRef(rights)
  const held = useSyncExternalStore(watchUnsaved, hasUnsaved)
  useEffect(() => {
    if (held || before.current === rights) return
    before.current = rights
    // What stays on the page may show less, or more.
    void router.invalidate().then(() => queryClient.invalidateQueries())
  }, [router, rights, held])
}

const REST_MS = 2000

/** What every page needs once somebody does something, loaded before it is needed. */
function useLoadedAhead() {
  useEffect(() => {
    // A failure shows when it is needed, and then it is tried again.
    const timer = setTimeout(() => void loadWindows().catch(() => undefined), REST_MS)
    return () => clearTimeout(timer)
  }, [])
}

/** Holds what is typed until the search has the keyboard, which then asks for it once. */
function useHeldKeys(on: boolean, cancel: () => void): () => Held | undefined {
  const release = useRef<() => Held>(undefined)
  // Before the browser can tell of another key.
  // biome-ignore lint/correctness/useExhaustiveDependencies: it is the same whenever it is called.
  useLayoutEffect(() => {
    if (!on) return
    release.current = holdKeys(cancel)
    return () => {
      release.current?.()
      release.current = undefined
    }
  }, [on])
  return () => {
    const held = release.current?.()
    release.current = undefined
    return held
  }
}

const CHORD_MS = 1200

/** Ctrl-K and Cmd-K, `?`, `/`, and `g` followed by a page's key. */
function useShortcuts(open: (which: 'palette' | 'shortcuts') => void) {
  const router = useRouter()
  const session = useSession()
  useEffect(() => {
    let chord = 0
    const press = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === 'k') {
        event.preventDefault()
        open('palette')
        return
      }
      if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return
      // A dialog or a menu has the keyboard for itself.
      if (document.querySelector('[role="dialog"]:not([popover]), [popover="auto"]:popover-open') !== null)
        return
      if (event.key === '?') open('shortcuts')
      else if (event.key === '/') {
        const search = document.querySelector<HTMLElement>('main [data-search]')
        event.preventDefault()
        if (search === null) open('palette')
        else search.focus()
      } else if (event.key === 'g') chord = event.timeStamp
      else if (chord > 0 && event.timeStamp - chord < CHORD_MS) {
        chord = 0
        const item = navigation()
          .flatMap((group) => group.items)
          .find((one) => one.key === event.key && (one.action === undefined || may(session, one.action)))
        if (item !== undefined) {
          event.preventDefault()
          void router.navigate({ to: item.to })
        }
      }
    }
    document.addEventListener('keydown', press)
    return () => document.removeEventListener('keydown', press)
  }, [router, session, open])
}
