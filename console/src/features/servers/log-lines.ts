/**
 * A server's log as it is read: one JSON object a line, for as long as the instance writes. The newest lines are kept,
 * at most {@link MOST_LINES}; a connection that breaks is made again and continues after the last line.
 */
import * as v from 'valibot'
import { type ApiProblem, call, isProblem } from '@/api/client'
import { getLogs, type LogLine, LogLineSchema } from '@/api/generated/servers'
import { isGone } from '@/api/gone'
import { type LogSource, PREVIOUS } from './public/logged'

/** As many lines as are kept; also as many as the API gives of the past. */
export const MOST_LINES = 10_000
/** A line without an end is cut here, so that a hostile log cannot fill the memory. */
const LONGEST_LINE = 256 * 1024
const FIRST_PAUSE_MS = 1000
const LONGEST_PAUSE_MS = 15_000
const SHOW_EVERY_MS = 100

/** A line, with a number that stays with it. */
export interface NumberedLine extends LogLine {
  number: number
}

/** Where reading is. */
export type LogState =
  | { kind: 'loading' }
  | { kind: 'live' }
  | { kind: 'again'; error: unknown }
  | { kind: 'ended' }
  | { kind: 'failed'; error: unknown }

/** What is shown of a log. */
export interface LogSnapshot {
  state: LogState
  lines: readonly NumberedLine[]
  /** How many lines were let go of to stay below the bound. */
  dropped: number
  /** The revision that it begins with; `undefined` while nobody said. */
  revision?: number | undefined
}

/** Splits a stream of bytes into lines of a log; what is no line of a log is left out. */
export class LogParser {
  readonly #decoder = new TextDecoder()
  #rest = ''

  /** The lines that this piece completed. */
  push(piece: Uint8Array): LogLine[] {
    const parts = (this.#rest + this.#decoder.decode(piece, { stream: true })).split('\n')
    this.#rest = (parts.pop() ?? '').slice(0, LONGEST_LINE)
    return parts.map(parseLine).filter((line) => line !== undefined)
  }
}

function parseLine(text: string): LogLine | undefined {
  if (text.trim() === '') return undefined
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), LogLineSchema), text)
  return parsed.success ? parsed.output : undefined
}

/** Leaves out of what is read again what was there before: everything up to the last line that is known. */
export class Continuation {
  readonly #after: string | undefined
  readonly #known: Set<string>

  constructor(lines: readonly LogLine[]) {
    this.#after = lines.at(-1)?.at
    // Only of the last moment it is not sure whether a line was there.
    this.#known = new Set(lines.filter((line) => line.at === this.#after).map(identity))
  }

  isNew(line: LogLine): boolean {
    if (this.#after === undefined || line.at > this.#after) return true
    return line.at === this.#after && !this.#known.has(identity(line))
  }
}

function identity(line: LogLine): string {
  return `${line.at} ${line.stream} ${line.text}`
}

/** What to ask for. */
export function queryOf({ instance, revision }: LogSource): {
  instance?: string
  revision?: number
  previous?: boolean
} {
  if (instance !== undefined && instance !== PREVIOUS) return { instance }
  return {
    ...(revision === undefined ? {} : { revision }),
    ...(instance === PREVIOUS ? { previous: true } : {}),
  }
}

/** Reads the log of a server, or of one of its instances, while somebody looks at it. For `useSyncExternalStore`. */
export class LogFollower {
  readonly #name: string
  readonly #source: LogSource
  /** Whether a log was chosen: it ends, and no other follows. */
  readonly #chosen: boolean
  readonly #listeners = new Set<() => void>()
  #snapshot: LogSnapshot = { state: { kind: 'loading' }, lines: [], dropped: 0 }
  #fresh: NumberedLine[] = []
  #next = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  #stop: AbortController | undefined

  constructor(name: string, source: LogSource) {
    this.#name = name
    this.#source = source
    this.#chosen = source.instance !== undefined || source.revision !== undefined
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    if (this.#stop === undefined) {
      this.#stop = new AbortController()
      void this.#follow(this.#stop.signal)
    }
    return () => {
      this.#listeners.delete(listener)
      if (this.#listeners.size > 0) return
      this.#stop?.abort()
      this.#stop = undefined
      clearTimeout(this.#timer)
      this.#timer = undefined
    }
  }

  readonly snapshot = (): LogSnapshot => this.#snapshot

  async #follow(signal: AbortSignal): Promise<void> {
    let pause = FIRST_PAUSE_MS
    while (!signal.aborted) {
      let error: unknown
      try {
        await this.#read(signal, () => {
          pause = FIRST_PAUSE_MS
        })
      } catch (cause) {
        error = cause
      }
      if (signal.aborted) return
      if (isProblem(error) && isFinal(error, this.#chosen)) {
        this.#become({ kind: 'failed', error })
        return
      }
      if (error === undefined && this.#chosen) {
        // It is gone; what it wrote is whole.
        this.#become({ kind: 'ended' })
        return
      }
      // The server has no instance now, or the connection broke: either may have more to say later.
      this.#become({ kind: 'again', error })
      await pauseOrAbort(pause, signal)
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS)
    }
  }

  async #read(signal: AbortSignal, opened: () => void): Promise<void> {
    const response = await call(
      getLogs,
      {
        path: { name: this.#name },
        query: {
          tail: MOST_LINES,
          follow: true,
          ...queryOf(this.#source),
        },
      },
      { signal },
    )
    const reader = response.body?.getReader()
    if (reader === undefined) return
    const revision = Number(response.headers.get('toolyard-revision') ?? '')
    this.#snapshot = { ...this.#snapshot, revision: revision > 0 ? revision : undefined }
    const continuation = new Continuation([...this.#snapshot.lines.slice(-200), ...this.#fresh])
    const parser = new LogParser()
    this.#become({ kind: 'live' })
    for (;;) {
      const piece = await reader.read()
      if (piece.done) return
      const lines = parser.push(piece.value).filter((line) => continuation.isNew(line))
      if (lines.length > 0) {
        opened()
        this.#add(lines)
      }
    }
  }

  #add(lines: LogLine[]): void {
    for (const line of lines) {
      this.#fresh.push({ ...line, number: this.#next })
      this.#next += 1
    }
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#show(this.#snapshot.state)
    }, SHOW_EVERY_MS)
  }

  #become(state: LogState): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#show(state)
  }

  #show(state: LogState): void {
    const all = this.#fresh.length === 0 ? this.#snapshot.lines : [...this.#snapshot.lines, ...this.#fresh]
    this.#fresh = []
    const over = Math.max(0, all.length - MOST_LINES)
    this.#snapshot = {
      ...this.#snapshot,
      state,
      lines: over === 0 ? all : all.slice(over),
      dropped: this.#snapshot.dropped + over,
    }
    for (const listener of this.#listeners) listener()
  }
}

/** Toolyard says these of a toolbox: it is there itself. */
const OF_A_TOOLBOX: ReadonlySet<string> = new Set(['server_not_ready', 'upstream_failed'])

/** Whether nothing new can come because Toolyard, or the network to it, is away: what was read stays. */
export function isCutOff(state: LogState, lost: boolean): boolean {
  if (state.kind === 'again' && state.error !== undefined) {
    if (!isProblem(state.error)) return true
    return state.error.status === 0 || (state.error.status >= 502 && !OF_A_TOOLBOX.has(state.error.code))
  }
  return lost && state.kind !== 'ended' && state.kind !== 'failed'
}

/**
 * Whether asking again would bring the same: what is gone does not come back, nor what stayed on a toolbox that was
 * removed (409); a newer one may come.
 */
export function isFinal(error: ApiProblem, chosen: boolean): boolean {
  return [400, 403, 409].includes(error.status) || (chosen && isGone(error))
}

function pauseOrAbort(pause: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, pause)
    signal.addEventListener('abort', done)
  })
}

/** Lines as a text file: time, stream, text, as they were written. */
export function asText(lines: readonly LogLine[]): string {
  return lines.map((line) => `${line.at} ${line.stream} ${line.text}\n`).join('')
}
