import { ArrowDownToLine, Clock, Download, Pause, Play, WrapText } from 'lucide-react'
import { useDeferredValue, useMemo, useState, useSyncExternalStore } from 'react'
import { isProblem } from '@/api/client'
import { useOutdatedSince } from '@/api/connection'
import { LOG_STREAM } from '@/api/generated/enums'
import type { Instance, LogStream, Server } from '@/api/generated/types'
import { isGone } from '@/api/gone'
import { cx } from '@/lib/cx'
import { formatClock, formatNumber, formatTime } from '@/lib/format'
import { storage } from '@/lib/storage'
import { plural, t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { AnsiText } from '@/ui/ansi-text'
import { Button, IconButton } from '@/ui/button'
import { errorFacts } from '@/ui/error-state'
import { FilterChips } from '@/ui/filter-chips'
import { SearchInput } from '@/ui/search-input'
import { Select } from '@/ui/select'
import { SkeletonLines } from '@/ui/skeleton'
import { Status } from '@/ui/status'
import { VirtualList } from '@/ui/virtual-list'
import { asText, isCutOff, LogFollower, type LogSnapshot, MOST_LINES, type NumberedLine } from '../log-lines'
import { isWritten, type LogSource, PREVIOUS } from './logged'
import { phaseText } from './phase'

/** What is chosen of a log. Keep it where it can be linked, if the log is a page. */
export interface LogChoice extends LogSource {
  search?: string | undefined
  stream?: LogStream | undefined
}

/**
 * The live log of a server: the newest lines, filtered, with the terminal's colours. `compact` is for a log beside
 * something else: no filters.
 */
export function LogView({
  server,
  revisions = [],
  replaced = false,
  choice = {},
  onChoiceChange,
  compact = false,
  className,
}: {
  server: Server
  /** Revisions whose log may still be kept, newest first. */
  revisions?: readonly number[]
  /** Whether there was an instance before those that there are. */
  replaced?: boolean
  choice?: LogChoice
  onChoiceChange?: (changes: LogChoice) => void
  compact?: boolean
  /** Must give the lines a height. */
  className?: string
}) {
  const { name, instances } = server
  // Without a choice the server follows the newest instance; another one is another log.
  const newest = instances.at(-1)?.id
  const [followed, setFollowed] = useState(newest)
  if (newest !== undefined && newest !== followed) setFollowed(newest)
  const { instance, revision } = choice
  return (
    <FollowedLog
      key={`${name} ${instance ?? (revision === undefined ? followed : '')} ${revision}`}
      name={name}
      options={sources(choice, instances, revisions, replaced)}
      written={isWritten(choice, server)}
      choice={choice}
      onChoiceChange={onChoiceChange}
      compact={compact}
      className={className}
    />
  )
}

function FollowedLog({
  name,
  options,
  written,
  choice,
  onChoiceChange,
  compact,
  className,
}: {
  name: string
  options: { value: string; label: string }[]
  written: boolean
  choice: LogChoice
  onChoiceChange: ((changes: LogChoice) => void) | undefined
  compact: boolean
  className: string | undefined
}) {
  const [follower] = useState(() => new LogFollower(name, choice))
  const now = useSyncExternalStore(follower.subscribe, follower.snapshot)
  const [paused, setPaused] = useState<LogSnapshot>()
  const [follow, setFollow] = useState(true)
  const [wrap, setWrap] = useState(storage.get('log-wrap') !== 'off')
  const [times, setTimes] = useState(storage.get('log-times') !== 'off')
  const shown = paused ?? now
  const text = useDeferredValue(choice.search ?? '').toLowerCase()
  const stream = choice.stream
  const lines = useMemo(
    () =>
      text === '' && stream === undefined
        ? shown.lines
        : shown.lines.filter(
            (line) =>
              (stream === undefined || line.stream === stream) &&
              (text === '' || line.text.toLowerCase().includes(text)),
          ),
    [shown.lines, text, stream],
  )
  const waiting =
    paused === undefined ? 0 : (now.lines.at(-1)?.number ?? -1) - (paused.lines.at(-1)?.number ?? -1)
  const filtered = text !== '' || stream !== undefined
  const clear = () => onChoiceChange?.({ search: undefined, stream: undefined })
  return (
    <div className="flex min-w-0 flex-col gap-2">
      {!compact && (
        <div className="flex flex-wrap items-center gap-2">
          <SearchInput
            label={t('Filter lines')}
            value={choice.search ?? ''}
            onValueChange={(search) => onChoiceChange?.({ search: search || undefined })}
            className="max-sm:max-w-none! sm:max-w-64!"
          />
          <FilterChips
            label={t('Stream')}
            chosen={stream === undefined ? [] : [stream]}
            options={LOG_STREAM.map((one) => ({ value: one, label: one }))}
            onChange={([next]) => onChoiceChange?.({ stream: next })}
          />
          <Select
            id="log-instance"
            label={t('Whose log')}
            hideLabel
            className="w-52"
            value={choiceText(choice)}
            options={options}
            onValueChange={(next) => onChoiceChange?.(sourceOf(next))}
          />
          <div className="ml-auto flex items-center gap-1">
            <IconButton
              icon={Clock}
              label={t('Times')}
              size="small"
              aria-pressed={times}
              className={times ? 'bg-pressed text-text' : undefined}
              onClick={() => {
                storage.set('log-times', times ? 'off' : undefined)
                setTimes(!times)
              }}
            />
            <IconButton
              icon={WrapText}
              label={t('Wrap long lines')}
              size="small"
              aria-pressed={wrap}
              className={wrap ? 'bg-pressed text-text' : undefined}
              onClick={() => {
                storage.set('log-wrap', wrap ? 'off' : undefined)
                setWrap(!wrap)
              }}
            />
            <IconButton
              icon={Download}
              label={t('Download these lines')}
              size="small"
              disabledReason={lines.length === 0 ? t('there are none') : undefined}
              onClick={() => download(`${name}.log`, asText(lines))}
            />
            <Button
              size="small"
              icon={paused === undefined ? Pause : Play}
              onClick={() => setPaused(paused === undefined ? now : undefined)}
            >
              {paused === undefined ? t('Pause') : t('Continue')}
            </Button>
          </div>
        </div>
      )}
      <div className="relative min-w-0">
        {lines.length === 0 ? (
          <div className={cx('overflow-auto rounded-md border bg-sunken p-3', className)}>
            {shown.state.kind === 'loading' ? (
              <SkeletonLines count={6} />
            ) : filtered && shown.lines.length > 0 ? (
              <p className="text-muted">
                {t('None of the {count} lines fits.', { count: formatNumber(shown.lines.length) })}{' '}
                <Button size="small" onClick={clear}>
                  {t('Clear the filter')}
                </Button>
              </p>
            ) : (
              <p className="text-muted">{emptyText(shown, choice, written)}</p>
            )}
          </div>
        ) : (
          <VirtualList
            items={lines}
            itemKey={(line) => line.number}
            label={t('Log of {name}', { name })}
            follow={follow && paused === undefined}
            onFollowChange={setFollow}
            estimate={20}
            className={cx('rounded-md border bg-sunken py-1 font-mono text-[0.8125rem]/5', className)}
          >
            {(line) => <Line line={line} times={times} streams={!compact} wrap={wrap} />}
          </VirtualList>
        )}
        {!follow && lines.length > 0 && (
          <Button
            size="small"
            icon={ArrowDownToLine}
            onClick={() => setFollow(true)}
            className="absolute right-4 bottom-3 shadow-lift"
          >
            {t('To the newest line')}
          </Button>
        )}
      </div>
      <div className="flex flex-wrap items-center gap-x-4 gap-y-1 text-sm text-muted">
        <FollowState snapshot={now} paused={paused !== undefined} written={written} choice={choice} />
        {now.revision !== undefined && <span>{t('revision {number}', { number: now.revision })}</span>}
        {waiting > 0 && (
          <span className="tabular">{plural(waiting, '{count} new line', '{count} new lines')}</span>
        )}
        <span className="tabular ml-auto">
          {filtered
            ? t('{shown} of {all} lines', {
                shown: formatNumber(lines.length),
                all: formatNumber(shown.lines.length),
              })
            : plural(shown.lines.length, '{count} line', '{count} lines')}
          {(shown.dropped > 0 || shown.lines.length >= MOST_LINES) && ` · ${t('older ones are left out')}`}
        </span>
      </div>
    </div>
  )
}

function Line({
  line,
  times,
  streams,
  wrap,
}: {
  line: NumberedLine
  times: boolean
  streams: boolean
  wrap: boolean
}) {
  return (
    <div
      className={cx(
        'flex gap-3 px-3 hover:bg-hover',
        wrap ? 'wrap-anywhere whitespace-pre-wrap' : 'w-max min-w-full whitespace-pre',
        line.stream === 'toolyard' && 'text-info',
      )}
    >
      {times && (
        <time dateTime={line.at} title={formatTime(line.at)} className="shrink-0 text-faint select-none">
          {formatClock(line.at)}
        </time>
      )}
      {streams && (
        <span
          className={cx(
            'w-16 shrink-0 select-none max-sm:hidden',
            line.stream === 'toolyard' ? 'text-info' : 'text-faint',
          )}
        >
          {line.stream === 'toolyard' ? 'toolyard' : line.stream}
        </span>
      )}
      <span className={wrap ? 'min-w-0 flex-1' : undefined}>
        <AnsiText line={line.text} />
      </span>
    </div>
  )
}

function FollowState({
  snapshot,
  paused,
  written,
  choice,
}: {
  snapshot: LogSnapshot
  paused: boolean
  written: boolean
  choice: LogSource
}) {
  const { state } = snapshot
  const cutOff = isCutOff(state, useOutdatedSince() !== undefined)
  if (paused) return <Status kind="off">{t('Paused')}</Status>
  if (cutOff)
    return (
      <Status kind="waiting" wraps>
        {t('Paused: there is no connection to Toolyard. It goes on when there is one again')}
      </Status>
    )
  switch (state.kind) {
    case 'loading':
      return <Status kind="working">{t('Connecting')}</Status>
    case 'live':
      if (written) return <Status kind="good">{t('Live')}</Status>
      return (
        <Status kind="off" wraps>
          {choice.instance === undefined && choice.revision === undefined
            ? t('No instance runs; the log goes on with the next one')
            : t('The instance has ended')}
        </Status>
      )
    case 'ended':
      return <Status kind="off">{t('The instance has ended')}</Status>
    case 'again':
      return (
        <Status kind="waiting" wraps>
          {state.error === undefined ? t('The log ended; looking for more') : problemText(state.error)}
        </Status>
      )
    default:
      // That none is kept stands where the lines would be.
      return isGone(state.error) ? null : (
        <Status kind="bad" wraps>
          {problemText(state.error)}
        </Status>
      )
  }
}

function problemText(error: unknown): string {
  if (isGone(error)) return t('No such log is kept')
  const { title, detail } = errorFacts(error)
  const text = plainText(detail === '' ? title : detail)
  return isProblem(error) && error.code === 'server_not_ready'
    ? t('{what}. It goes on when it is', { what: text })
    : text
}

function emptyText({ state }: LogSnapshot, { instance, revision }: LogSource, written: boolean): string {
  if (state.kind === 'live' && !written) return t('It wrote nothing.')
  if (state.kind === 'live') return t('Nothing was written yet. Lines appear here as they are written.')
  if (state.kind === 'ended') return t('It wrote nothing.')
  if (state.kind === 'again' && state.error === undefined) return t('Nothing was written yet.')
  if (state.kind !== 'loading' && isGone(state.error)) {
    if (revision !== undefined) return t('No log of revision {number} is kept.', { number: revision })
    if (instance === PREVIOUS) return t('No log of an earlier instance is kept.')
    return t('No such log is kept.')
  }
  if (state.kind === 'again' || isCutOff(state, false)) return t('Nothing could be read of it yet.')
  return t('There is no log to show.')
}

/** A choice as the list has it: an id, {@link PREVIOUS}, or `#` with a revision. */
function choiceText({ instance, revision }: LogSource): string {
  return revision === undefined ? (instance ?? '') : `#${revision}`
}

function sourceOf(value: string): LogSource {
  return value.startsWith('#')
    ? { instance: undefined, revision: Number(value.slice(1)) }
    : { instance: value || undefined, revision: undefined }
}

/** Whose log can be chosen: what runs, and what ran as far as anybody knows. */
function sources(
  choice: LogSource,
  instances: readonly Instance[],
  revisions: readonly number[],
  replaced: boolean,
): { value: string; label: string }[] {
  const options = [
    { value: '', label: t('Newest instance') },
    ...instances.map((one) => ({
      value: one.id,
      label: `${shortId(one.id)} · ${phaseText(one.phase)}`,
    })),
    ...revisions
      .filter((number) => !instances.some((one) => one.revision === number))
      .map((number) => ({ value: `#${number}`, label: t('Revision {number}', { number }) })),
    ...(replaced ? [{ value: PREVIOUS, label: t('Previous instance') }] : []),
  ]
  const value = choiceText(choice)
  if (!options.some((one) => one.value === value)) {
    options.splice(1, 0, {
      value,
      label:
        choice.revision !== undefined
          ? t('Revision {number}', { number: choice.revision })
          : choice.instance === PREVIOUS
            ? t('Previous instance')
            : t('{id} · ended', { id: oneLine(shortId(value), 8) }),
    })
  }
  return options
}

/** The beginning of an id is a time and the same for all of a minute; its end tells them apart. */
export function shortId(id: string): string {
  return id.slice(-8)
}

function download(file: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: 'text/plain;charset=utf-8' }))
  const link = document.createElement('a')
  link.href = url
  link.download = file
  link.click()
  // The browser has taken hold of the text by then.
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}
