import { useSuspenseQuery } from '@tanstack/react-query'
import { useLocation, useMatchRoute, useNavigate } from '@tanstack/react-router'
import { Ellipsis, SquareTerminal } from 'lucide-react'
import { type ReactNode, useEffect, useRef, useState } from 'react'
import type { Server } from '@/api/generated/types'
import { isGone } from '@/api/gone'
import { useDenied, useForbidden } from '@/api/session'
import { readableTimes } from '@/lib/format'
import { t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Button, IconButton } from '@/ui/button'
import { DeletedNotice } from '@/ui/deleted-notice'
import { ButtonLink, Link, PlainLink } from '@/ui/link'
import { Notice } from '@/ui/notice'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { Elapsed, RelativeTime } from '@/ui/relative-time'
import { tabClass, tabListClass } from '@/ui/tab-class'
import { TickedText } from '@/ui/ticked-text'
import { ActingProvider, useAct } from '../acting'
import { misfit, type ServerActionId, serverAction } from '../actions'
import { PLACE } from '../place-anchor'
import { outdatedSecrets } from '../row'
import { ServerMenu } from '../server-menu'
import { logOfTrouble } from './logged'
import {
  beyondReason,
  isBeingDeleted,
  phaseKind,
  reasonAdvice,
  reasonText,
  ServerStatus,
  servesNowhere,
} from './phase'
import { serverQuery } from './queries'
import { RolloutActions } from './rollout-timeline'

/** The head of a server's pages: what it is, how it is, what can be done, and its tabs. */
export function ServerLayout({ name, children }: { name: string; children: ReactNode }) {
  const { data: server, error } = useSuspenseQuery({ ...serverQuery(name), refetchInterval: 15_000 })
  const isDeleted = isGone(error)
  const navigate = useNavigate()
  const nav = useRef<HTMLElement>(null)
  const path = useLocation({ select: (location) => location.pathname })
  // On a phone the tabs scroll; the one that is open must be in view.
  // biome-ignore lint/correctness/useExhaustiveDependencies: `path` is what makes another tab the open one.
  useEffect(() => {
    nav.current
      ?.querySelector('[aria-current="page"]')
      ?.scrollIntoView({ block: 'nearest', inline: 'nearest' })
  }, [path])
  return (
    <ActingProvider onDeleted={() => void navigate({ to: '/servers', ignoreBlocker: true })}>
      <PageHeader
        breadcrumbs={
          <Breadcrumbs>
            <Link to="/servers">{t('Servers')}</Link>
          </Breadcrumbs>
        }
        title={<span className="id text-[1.1em]">{server.name}</span>}
        meta={!isDeleted && <ServerStatus server={server} />}
        actions={isDeleted ? undefined : <Actions server={server} />}
      >
        {isDeleted ? undefined : <Why server={server} />}
      </PageHeader>
      {isDeleted ? (
        <div className="mb-4">
          <DeletedNotice
            leave={
              <ButtonLink to="/servers" size="small">
                {t('Go to the servers')}
              </ButtonLink>
            }
          />
        </div>
      ) : (
        <>
          <Trouble server={server} />
          <RolloutNote server={server} />
          <OutdatedSecrets server={server} />
        </>
      )}
      <nav ref={nav} aria-label={t('Parts of the server')} className={`mb-4 ${tabListClass}`}>
        <Tab to="/servers/$name" name={name} exact>
          {t('Overview')}
        </Tab>
        <Tab to="/servers/$name/tools" name={name}>
          {t('Tools')}
        </Tab>
        <Tab to="/servers/$name/logs" name={name}>
          {t('Logs')}
        </Tab>
        <Tab to="/servers/$name/metrics" name={name}>
          {t('Metrics')}
        </Tab>
        <Tab to="/servers/$name/revisions" name={name}>
          {t('Revisions')}
        </Tab>
        <Tab to="/servers/$name/settings" name={name}>
          {t('Settings')}
        </Tab>
      </nav>
      {children}
    </ActingProvider>
  )
}

function Tab({
  to,
  name,
  exact = false,
  children,
}: {
  to:
    | '/servers/$name'
    | '/servers/$name/tools'
    | '/servers/$name/logs'
    | '/servers/$name/metrics'
    | '/servers/$name/revisions'
    | '/servers/$name/settings'
  name: string
  exact?: boolean
  children: ReactNode
}) {
  return (
    <PlainLink
      to={to}
      params={{ name }}
      activeOptions={{ exact, includeSearch: false }}
      resetScroll={false}
      className={tabClass}
    >
      {children}
    </PlainLink>
  )
}

function Why({ server }: { server: Server }) {
  return (
    <>
      {isBeingDeleted(server)
        ? t('It is gone once what runs of it has ended')
        : capital(reasonText(server.reason))}{' '}
      · <RelativeTime at={server.since} />
    </>
  )
}

/** What is wrong, in the server's words, and what to do; nothing when nothing is wrong. */
function Trouble({ server }: { server: Server }) {
  const kind = phaseKind(server.phase)
  const immovable = useForbidden('server:deploy') !== undefined
  const { name } = server
  // Also of one that is stopped: it cannot be started.
  const reason = server.toolbox_removed_at == null ? server.reason : 'toolbox_removed'
  const nowhere = servesNowhere(server)
  if (kind !== 'bad' && kind !== 'warn' && reason !== 'toolbox_removed' && !nowhere) return null
  const said = plainText(readableTimes(server.message ?? ''))
  const message = nowhere ? said : beyondReason(reason, said)
  const advice = nowhere
    ? t('It runs nowhere until a toolbox can take it, or it is moved to another place.')
    : reasonAdvice(reason, { remote: server.kind === 'remote', message: said })
  const log = logOfTrouble(server)
  return (
    <div className="mb-4">
      <Notice
        tone={kind === 'bad' ? 'bad' : 'warn'}
        title={nowhere ? t('It runs nowhere') : capital(reasonText(reason))}
        actions={
          reason === 'toolbox_removed' || nowhere
            ? !immovable && (
                <Link to="/servers/$name/settings" params={{ name }} hash={PLACE}>
                  {t('Move it')}
                </Link>
              )
            : log !== undefined && (
                <Link to="/servers/$name/logs" params={{ name }} search={log}>
                  {t('Look into the log')}
                </Link>
              )
        }
      >
        {message !== '' && (
          <p className="wrap-anywhere whitespace-pre-wrap">
            <TickedText text={capital(message)} />
          </p>
        )}
        {advice !== undefined && <p>{advice}</p>}
        {server.next_attempt_at != null && (
          <p>
            {t('Next attempt:')} <RelativeTime at={server.next_attempt_at} />
          </p>
        )}
      </Notice>
    </div>
  )
}

/** A rollout that is under way or was rolled back, where its steps are not shown. */
function RolloutNote({ server }: { server: Server }) {
  const matchRoute = useMatchRoute()
  const { name, rollout } = server
  const shownBelow =
    matchRoute({ to: '/servers/$name', params: { name } }) !== false ||
    matchRoute({ to: '/servers/$name/settings', params: { name } }) !== false
  if (rollout == null || shownBelow) return null
  if (rollout.state !== 'progressing' && rollout.state !== 'rolled_back') return null
  const underWay = rollout.state === 'progressing'
  return (
    <div className="mb-4">
      <Notice
        tone={underWay ? 'info' : 'warn'}
        title={
          underWay ? (
            <>
              {t('Revision {number} is being rolled out', { number: rollout.to_revision })} ·{' '}
              <Elapsed since={rollout.started_at} />
            </>
          ) : (
            t('Revision {number} was rolled back', { number: rollout.to_revision })
          )
        }
        actions={
          <>
            <Link to="/servers/$name" params={{ name }}>
              {t('See the steps')}
            </Link>
            <RolloutActions rollout={rollout} />
          </>
        }
      >
        {underWay ? (
          <TickedText text={capital(readableTimes(rollout.log?.at(-1)?.message ?? ''))} limit={200} />
        ) : (
          capital(reasonText(rollout.reason))
        )}
      </Notice>
    </div>
  )
}

/** That something of it was started with an older secret than the current one. */
function OutdatedSecrets({ server }: { server: Server }) {
  const names = outdatedSecrets(server)
  // What runs is being replaced or ended already.
  if (names.length === 0 || isBeingDeleted(server) || server.rollout?.state === 'progressing') return null
  return (
    <div className="mb-4">
      <Notice
        tone="warn"
        title={t('It runs with an older secret of {credentials}', {
          credentials: oneLine(names.join(', '), 200),
        })}
        actions={<ActionButton id="restart" server={server} />}
      >
        {t('Restart it to use the new one.')}
      </Notice>
    </div>
  )
}

function Actions({ server }: { server: Server }) {
  const [start, restart] = [server.enabled ? 'stop' : 'start', 'restart'] as const
  const { name } = server
  const mayCall = useForbidden('tool:call') === undefined
  if (isBeingDeleted(server)) return null
  return (
    <>
      {mayCall && (server.phase === 'ready' || server.phase === 'degraded') && (
        <ButtonLink to="/playground/$name" params={{ name }} icon={SquareTerminal}>
          {t('Try it')}
        </ButtonLink>
      )}
      <ActionButton id={restart} server={server} />
      <ActionButton id={start} server={server} />
      <ServerMenu
        server={server}
        only="rest"
        trigger={<IconButton icon={Ellipsis} label={t('More actions')} variant="secondary" />}
      />
    </>
  )
}

function ActionButton({ id, server }: { id: ServerActionId; server: Server }) {
  const act = useAct()
  const action = serverAction(id)
  const denied = useDenied(action.needs)
  const [busy, setBusy] = useState(false)
  return (
    <Button
      icon={action.icon}
      busy={busy}
      disabledReason={denied ?? misfit(id, server)}
      onClick={() => {
        setBusy(true)
        void act(id, server.name).finally(() => setBusy(false))
      }}
    >
      {action.label}
    </Button>
  )
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
