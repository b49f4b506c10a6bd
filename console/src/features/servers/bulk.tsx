import { useRef, useState } from 'react'
import { AnswerLost } from '@/api/answer-lost'
import type { Server } from '@/api/generated/types'
import { isGone } from '@/api/gone'
import { useSession } from '@/api/session'
import { useUnsaved } from '@/lib/form'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { CancelButton, Dialog } from '@/ui/dialog'
import { errorFacts } from '@/ui/error-state'
import { TextInput } from '@/ui/inputs'
import { LiveRegion } from '@/ui/live-region'
import { Status, type StatusKind } from '@/ui/status'
import { TickedText } from '@/ui/ticked-text'
import { misfit, type ServerActionId, serverAction, serverActions } from './actions'

/** How many requests are under way at once. */
const AT_ONCE = 4

/** The bar over the list while servers are chosen. */
export function BulkBar({
  servers,
  onClear,
}: {
  /** The chosen ones. */
  servers: readonly Server[]
  onClear: () => void
}) {
  const [open, setOpen] = useState<{ id: ServerActionId; servers: readonly Server[] }>()
  const session = useSession()
  if (servers.length === 0 && open === undefined) return null
  return (
    <>
      {servers.length > 0 && (
        <section
          aria-label={t('Chosen servers')}
          className="sticky bottom-3 z-10 mt-3 flex flex-wrap items-center gap-x-3 gap-y-2 rounded-lg border border-line-strong/50 bg-raised px-4 py-2.5 shadow-lift"
        >
          <span className="tabular" role="status">
            {plural(servers.length, '{count} server chosen', '{count} servers chosen')}
          </span>
          <Button size="small" variant="ghost" onClick={onClear}>
            {t('Choose none')}
          </Button>
          <div className="flex flex-wrap gap-2 sm:ml-auto">
            {serverActions().map((action) => {
              const allowed = session.actions.includes(action.needs)
              const reasons = new Set(servers.map((server) => misfit(action.id, server)))
              const [only] = reasons
              const reason = reasons.size === 1 ? only : undefined
              return (
                <Button
                  key={action.id}
                  size="small"
                  icon={action.icon}
                  disabledReason={
                    allowed ? reason : t('Your role ({role}) does not allow this', { role: session.role })
                  }
                  className={action.id === 'delete' ? 'text-bad' : undefined}
                  onClick={() => setOpen({ id: action.id, servers })}
                >
                  {action.label}
                </Button>
              )
            })}
          </div>
        </section>
      )}
      {open !== undefined && (
        <BulkDialog
          id={open.id}
          servers={open.servers}
          onClose={(finished) => {
            setOpen(undefined)
            if (finished) onClear()
          }}
        />
      )}
    </>
  )
}

type Result =
  | { state: 'waiting' }
  | { state: 'working' }
  | { state: 'done' }
  | { state: 'skipped'; why: string }
  /** Its answer was lost. */
  | { state: 'unsure'; why: string }
  | { state: 'failed'; why: string; code: string | undefined }

function BulkDialog({
  id,
  servers,
  onClose,
}: {
  id: ServerActionId
  servers: readonly Server[]
  onClose: (finished: boolean) => void
}) {
  const action = serverAction(id)
  const [typed, setTyped] = useState('')
  const [results, setResults] = useState<ReadonlyMap<string, Result>>()
  const stopped = useRef(false)
  const words = plural(servers.length, '{count} server', '{count} servers')
  const fitting = servers.filter((server) => misfit(id, server) === undefined).length
  const running = results !== undefined && [...results.values()].some(isOpen)
  const undone = servers.filter((server) =>
    ['failed', 'unsure'].includes(results?.get(server.name)?.state ?? ''),
  )
  useUnsaved(running, { saving: running })
  const ready = id !== 'delete' || typed.trim() === String(servers.length)

  const start = async (chosen: readonly Server[]) => {
    stopped.current = false
    setResults((before) => {
      const next = new Map<string, Result>(before)
      for (const server of chosen) {
        const why = misfit(id, server)
        next.set(server.name, why === undefined ? { state: 'waiting' } : { state: 'skipped', why })
      }
      return next
    })
    const say = (name: string, result: Result) =>
      setResults((before) => new Map<string, Result>(before).set(name, result))
    const queue = chosen.filter((server) => misfit(id, server) === undefined).map((server) => server.name)
    const worker = async () => {
      for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
        if (stopped.current) {
          say(name, { state: 'skipped', why: t('Not done: you stopped here') })
          continue
        }
        say(name, { state: 'working' })
        try {
          await action.run(name)
          say(name, { state: 'done' })
        } catch (error) {
          say(name, resultOf(id, error))
        }
      }
    }
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, queue.length) }, worker))
  }

  const count = (state: Result['state']) =>
    [...(results?.values() ?? [])].filter((result) => result.state === state).length
  const counts = {
    done: count('done'),
    all: servers.length,
    failed: count('failed'),
    skipped: count('skipped'),
    unsure: count('unsure'),
  }
  const summary =
    results === undefined
      ? ''
      : counts.unsure === 0
        ? t('{done} of {all} done, {failed} failed, {skipped} skipped', counts)
        : t('{done} of {all} done, {failed} failed, {skipped} skipped, {unsure} not known', counts)
  const close = () => {
    stopped.current = true
    onClose(results !== undefined && undone.length === 0)
  }
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && close()}
      title={
        results === undefined
          ? action.question(words)
          : t('{action}: {servers}', { action: action.label, servers: words })
      }
      footer={
        results === undefined ? (
          <>
            <CancelButton />
            <Button
              variant={action.danger ? 'danger' : 'primary'}
              disabledReason={ready ? undefined : t('The number is not typed yet')}
              onClick={() => void start(servers)}
            >
              {action.label}
            </Button>
          </>
        ) : running ? (
          <Button
            onClick={() => {
              stopped.current = true
            }}
          >
            {t('Stop here')}
          </Button>
        ) : (
          <>
            {undone.length > 0 && (
              <Button onClick={() => void start(undone)}>
                {plural(undone.length, 'Try {count} again', 'Try {count} again')}
              </Button>
            )}
            <Button variant="primary" onClick={close}>
              {t('Close')}
            </Button>
          </>
        )
      }
    >
      <div className="flex flex-col gap-4">
        {results === undefined ? (
          <>
            <p className="text-muted">{action.consequence}</p>
            {fitting < servers.length && (
              <p>
                {t('{count} of them are left out: they are in that state already.', {
                  count: servers.length - fitting,
                })}
              </p>
            )}
          </>
        ) : (
          <p className="tabular">{summary}</p>
        )}
        <LiveRegion>{running ? '' : summary}</LiveRegion>
        <ul
          aria-label={t('Chosen servers')}
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
          tabIndex={0}
          className="max-h-[45vh] overflow-y-auto rounded-md border"
        >
          {servers.map((server) => {
            const why = misfit(id, server)
            const result = results?.get(server.name)
            return (
              <li
                key={server.id}
                className="flex min-h-9 flex-wrap items-center justify-between gap-x-4 gap-y-0.5 border-b px-3 py-1.5 last:border-b-0"
              >
                <span className="id min-w-0 truncate">{server.name}</span>
                {result !== undefined ? (
                  <ResultStatus result={result} />
                ) : (
                  why !== undefined && <span className="text-sm text-muted">{why}</span>
                )}
              </li>
            )
          })}
        </ul>
        {results === undefined && id === 'delete' && (
          <TextInput
            id="bulk-count"
            label={t('Type {count} to confirm: the number of servers', { count: servers.length })}
            value={typed}
            onValueChange={setTyped}
            autoComplete="off"
            inputMode="numeric"
            className="max-w-72"
          />
        )}
      </div>
    </Dialog>
  )
}

/** What an error says of one of them. */
function resultOf(id: ServerActionId, error: unknown): Result {
  // Somebody else was faster, or it was done the time before and its answer was lost.
  if (id === 'delete' && isGone(error)) return { state: 'done' }
  const { detail, title, code } = errorFacts(error)
  const why = detail === '' ? title : detail
  return error instanceof AnswerLost ? { state: 'unsure', why } : { state: 'failed', why, code }
}

function isOpen(result: Result): boolean {
  return result.state === 'waiting' || result.state === 'working'
}

const KIND: Record<Result['state'], StatusKind> = {
  waiting: 'waiting',
  working: 'working',
  done: 'good',
  skipped: 'off',
  unsure: 'warn',
  failed: 'bad',
}

function ResultStatus({ result }: { result: Result }) {
  const texts = {
    waiting: t('Waiting'),
    working: t('Under way'),
    done: t('Accepted'),
    skipped: t('Left out'),
    unsure: t('Not known'),
    failed: t('Refused'),
  }
  const why = 'why' in result ? oneLine(result.why) : ''
  return (
    <span className="flex min-w-0 flex-wrap items-center gap-x-2 text-sm">
      <Status kind={KIND[result.state]}>{texts[result.state]}</Status>
      {why !== '' && (
        <span className="min-w-0 text-muted">
          <TickedText text={why} />
        </span>
      )}
      {result.state === 'failed' && result.code !== undefined && (
        <code className="id text-xs text-faint">{result.code}</code>
      )}
    </span>
  )
}
