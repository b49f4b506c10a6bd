/**
 * Live updates: one stream of `/api/v1/events` for all of this browser's tabs, so that open tabs do not use up the
 * browser's connections to one host. The tab that holds the lock reads the stream and tells the others; when it
 * goes, the next one continues after the last event that it heard of. Without locks (plain HTTP on a name that is
 * not localhost) each tab has its own stream.
 *
 * An event says which thing changed, not how: that one thing is read again, and its row in lists is replaced.
 */
import type { InfiniteData, QueryClient } from '@tanstack/react-query'
import * as v from 'valibot'
import { call, isProblem, problemOf, send, sessionHeaders } from './client'
import { restored, streamLost } from './connection'
import { EventParser } from './event-stream'
import { type Event, EventSchema } from './generated/events'
import { getServer, listServers, type Server } from './generated/servers'
import { isGone } from './gone'
import { readGoneAgain } from './gone-again'
import { type Page, queryKey } from './queries'

/** Whether changes arrive: `connecting` before the first time, `live`, or `lost` since when. */
type LiveState = { kind: 'connecting' } | { kind: 'live' } | { kind: 'lost'; since: number }

const FIRST_PAUSE_MS = 500
const LONGEST_PAUSE_MS = 5_000
/** The server sends a comment more often than this; silence means that the connection is dead. */
const LONGEST_SILENCE_MS = 60_000
/** Changes that come close together are applied together. */
const GATHER_MS = 120
/** More things than this at once: the lists are read again instead of each thing. */
const MOST_SINGLE_READS = 12

/** What a noun's events make stale, by the beginning of their kind: operations by id. */
const STALE: Readonly<Record<string, readonly string[]>> = {
  // A credential says who uses it, and who goes on with an older secret.
  server: ['get_overview', 'list_credentials', 'get_credential'],
  rollout: ['get_overview'],
  toolbox: ['list_toolboxes', 'get_toolbox', 'get_overview'],
  toolset: ['list_toolsets', 'get_toolset', 'list_toolset_tools', 'get_overview'],
  catalog: ['list_entries', 'get_entry', 'list_entry_versions', 'list_categories', 'list_sources'],
  catalog_source: ['list_sources'],
  credential: ['list_credentials', 'get_credential', 'get_overview'],
  api_key: ['list_keys', 'get_key', 'get_overview'],
  member: ['list_members', 'get_member', 'get_session'],
  flag: ['list_flags'],
}

/** What is read again with a server when it changed. */
const OF_A_SERVER = [
  'get_rollout',
  'list_revisions',
  'list_server_tools',
  'get_server_metrics',
  'get_server_settings',
] as const

/** The live connection of this page. Start it after sign-in, stop it before sign-out. */
export class LiveEvents {
  readonly #queryClient: QueryClient
  #state: LiveState = { kind: 'connecting' }
  #stop: AbortController | undefined
  #endGone: (() => void) | undefined
  #channel: BroadcastChannel | undefined
  #last: number | undefined
  #servers = new Set<string>()
  #stale = new Set<string>()
  #gathering: ReturnType<typeof setTimeout> | undefined

  constructor(queryClient: QueryClient) {
    this.#queryClient = queryClient
  }

  /** Begins; does nothing when it already did. */
  start(): void {
    if (this.#stop !== undefined) return
    const stop = new AbortController()
    this.#stop = stop
    this.#endGone = readGoneAgain(this.#queryClient)
    this.#channel = new BroadcastChannel('toolyard.events')
    this.#channel.onmessage = (message) => this.#fromLeader(message.data)
    this.#channel.postMessage({ kind: 'who' })
    const lead = () => this.#follow(stop.signal)
    // Without locks every tab leads itself.
    const led = navigator.locks
      ? navigator.locks.request('toolyard.events', { signal: stop.signal }, lead)
      : lead()
    // The only way for this to fail is that it was stopped while it waited.
    led.catch(() => undefined)
  }

  /** Ends the connection and forgets where it was. */
  stop(): void {
    this.#stop?.abort()
    this.#stop = undefined
    this.#endGone?.()
    this.#endGone = undefined
    this.#channel?.close()
    this.#channel = undefined
    clearTimeout(this.#gathering)
    this.#gathering = undefined
    this.#last = undefined
    this.#servers.clear()
    this.#stale.clear()
    this.#become({ kind: 'connecting' })
  }

  async #follow(signal: AbortSignal): Promise<void> {
    let pause = FIRST_PAUSE_MS
    while (!signal.aborted) {
      try {
        await this.#read(signal, () => {
          pause = FIRST_PAUSE_MS
        })
      } catch (error) {
        if (signal.aborted) return
        if (isProblem(error, 401) || isProblem(error, 409)) {
          // The next read of anything leads to sign-in; the session's own query is asked at once.
          await this.#queryClient.invalidateQueries({ queryKey: ['get_session'] })
        }
      }
      if (signal.aborted) return
      if (this.#state.kind !== 'lost') this.#announce({ kind: 'lost', since: Date.now() })
      await pauseOrOnline(pause * (0.75 + Math.random() / 2), signal)
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS)
    }
  }

  async #read(signal: AbortSignal, opened: () => void): Promise<void> {
    const silence = new AbortController()
    const either = AbortSignal.any([signal, silence.signal])
    let timer = setTimeout(() => silence.abort(), LONGEST_SILENCE_MS)
    // A browser that knows it is offline need not wait for the silence.
    const offline = () => silence.abort()
    window.addEventListener('offline', offline)
    try {
      const after = this.#last === undefined ? '' : `?after=${this.#last}`
      const response = await send(`/api/v1/events${after}`, {
        headers: sessionHeaders({ accept: 'text/event-stream' }),
        signal: either,
        // What the page itself needs comes first; and a stream that never ends is nothing that a page waits for.
        priority: 'low',
      })
      if (!response.ok || response.body === null) throw await problemOf(response)
      opened()
      this.#announce({ kind: 'live' })
      // What happened while nobody listened: since the page was read, since the stream was lost (the server may have
      // forgotten events), or since the last visit.
      this.#readAllAgain()
      const parser = new EventParser()
      const decoder = new TextDecoder()
      const reader = response.body.getReader()
      for (;;) {
        const piece = await reader.read()
        if (piece.done) return
        clearTimeout(timer)
        timer = setTimeout(() => silence.abort(), LONGEST_SILENCE_MS)
        for (const event of parser.push(decoder.decode(piece.value, { stream: true })))
          this.#received(event.data)
      }
    } finally {
      window.removeEventListener('offline', offline)
      clearTimeout(timer)
      silence.abort()
    }
  }

  #received(text: string): void {
    const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), EventSchema), text)
    if (!parsed.success) return
    this.#channel?.postMessage({ kind: 'event', event: parsed.output })
    this.#apply(parsed.output)
  }

  #fromLeader(message: unknown): void {
    // as: other tabs of this console wrote it; what it says of events is validated again.
    const said = message as { kind?: string; event?: unknown; state?: LiveState }
    if (said.kind === 'event') {
      const parsed = v.safeParse(EventSchema, said.event)
      if (parsed.success) this.#apply(parsed.output)
    } else if (said.kind === 'state' && said.state !== undefined) {
      const again = this.#state.kind === 'lost' && said.state.kind === 'live'
      this.#become(said.state)
      if (again) this.#readAllAgain()
    } else if (said.kind === 'who' && this.#state.kind !== 'connecting') {
      this.#channel?.postMessage({ kind: 'state', state: this.#state })
    }
  }

  #announce(state: LiveState): void {
    this.#channel?.postMessage({ kind: 'state', state })
    this.#become(state)
  }

  #become(state: LiveState): void {
    if (state.kind === this.#state.kind) return
    this.#state = state
    streamLost(state.kind === 'lost' ? state.since : undefined)
    // Everything is read again when the stream is there, so nothing is from the last visit any more.
    if (state.kind === 'live') restored(undefined)
  }

  #readAllAgain(): void {
    void this.#queryClient.invalidateQueries({ predicate: (query) => query.queryKey[0] !== 'get_session' })
  }

  #apply(event: Event): void {
    if (this.#last !== undefined && event.sequence <= this.#last) return
    this.#last = event.sequence
    const noun = event.kind.split('.', 1)[0] ?? ''
    const [thing, name] = event.subject.split('/', 2)
    if (thing === 'server' && name !== undefined && name !== '') this.#servers.add(name)
    for (const id of STALE[noun] ?? []) this.#stale.add(id)
    // How to connect to something says only whether it is there: a server's usual changes are nothing to it.
    if (noun === 'toolset' || event.kind === 'server.deleted') this.#stale.add('get_connect')
    // What must run there has failed with it.
    if (event.kind === 'toolbox.removed') {
      this.#stale.add(listServers.id)
      this.#stale.add(getServer.id)
    }
    // Whatever somebody did is in the audit log too; it is read again only where it is shown.
    this.#stale.add('list_audit')
    this.#gathering ??= setTimeout(() => {
      this.#gathering = undefined
      void this.#settle()
    }, GATHER_MS)
  }

  async #settle(): Promise<void> {
    const servers = [...this.#servers]
    const stale = this.#stale
    this.#servers = new Set()
    this.#stale = new Set()
    if (servers.length > MOST_SINGLE_READS) {
      stale.add(listServers.id)
      stale.add(getServer.id)
      for (const id of OF_A_SERVER) stale.add(id)
    } else await Promise.all(servers.map((name) => this.#readServer(name)))
    await this.#queryClient.invalidateQueries({ predicate: ({ queryKey: [id] }) => stale.has(String(id)) })
  }

  async #readServer(name: string): Promise<void> {
    const client = this.#queryClient
    const shown = client.getQueryCache().findAll({ type: 'active' })
    const wanted = shown.some(({ queryKey: [id] }) => id === listServers.id || id === getServer.id)
    const ofIt = {
      // The input is the last part of a key: a list by pages has a word between.
      predicate: ({ queryKey }: { queryKey: readonly unknown[] }) =>
        OF_A_SERVER.some((one) => one === queryKey[0]) && nameIn(queryKey.at(-1)) === name,
    }
    void client.invalidateQueries(ofIt)
    if (!wanted) {
      void client.invalidateQueries({ queryKey: [listServers.id] })
      void client.invalidateQueries({ queryKey: queryKey(getServer, { path: { name } }) })
      return
    }
    try {
      const server = await call(getServer, { path: { name } })
      client.setQueryData(queryKey(getServer, { path: { name } }), server)
      this.#replaceInLists(name, server)
    } catch (error) {
      if (isGone(error)) this.#replaceInLists(name, undefined)
      // This read is no query: what is shown is read again by those that are, which try again, and lead to sign-in
      // when the session ended.
      else void client.invalidateQueries({ queryKey: [listServers.id] })
      void client.invalidateQueries({ queryKey: queryKey(getServer, { path: { name } }) })
    }
  }

  /** Replaces a row where it is; a list that does not have it yet is read again. */
  #replaceInLists(name: string, server: Server | undefined): void {
    for (const query of this.#queryClient.getQueryCache().findAll({ queryKey: [listServers.id] })) {
      const data: unknown = query.state.data
      let found = false
      const replace = (page: Page<Server>): Page<Server> => {
        const at = page.items.findIndex((one) => one.name === name)
        if (at < 0) return page
        found = true
        const items =
          server === undefined
            ? page.items.toSpliced(at, 1)
            : page.items.with(at, merged(page.items[at], server))
        return { ...page, items }
      }
      if (isPages(data)) {
        const pages = data.pages.map(replace)
        if (found) this.#queryClient.setQueryData(query.queryKey, { ...data, pages })
      } else if (isPage(data)) {
        const page = replace(data)
        if (found) this.#queryClient.setQueryData(query.queryKey, page)
      }
      // A filter may begin or cease to fit, and a new server has its place in the order.
      if (!found || isFiltered(query.queryKey))
        void this.#queryClient.invalidateQueries({ queryKey: query.queryKey, exact: true })
    }
  }
}

/** A list's item may have fewer fields than the thing itself: only those are replaced. */
function merged(item: Server | undefined, server: Server): Server {
  if (item === undefined) return server
  const fields = Object.entries(server).filter(
    ([field]) => field in item || field === 'message' || field === 'next_attempt_at',
  )
  return { ...item, message: '', next_attempt_at: null, ...Object.fromEntries(fields) }
}

function nameIn(input: unknown): unknown {
  // as: only looks whether the two properties are there.
  return (input as { path?: { name?: unknown } } | undefined)?.path?.name
}

function isFiltered(key: readonly unknown[]): boolean {
  // as: only looks whether the property is there.
  const query = (key.at(-1) as { query?: Record<string, unknown> } | undefined)?.query ?? {}
  return Object.entries(query).some(
    ([name, value]) => name !== 'limit' && name !== 'brief' && value !== undefined,
  )
}

function isPage(data: unknown): data is Page<Server> {
  return typeof data === 'object' && data !== null && 'items' in data
}

function isPages(data: unknown): data is InfiniteData<Page<Server>> {
  return typeof data === 'object' && data !== null && 'pages' in data
}

/** Waits, or until the browser is online again. */
function pauseOrOnline(pause: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      window.removeEventListener('online', done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, pause)
    window.addEventListener('online', done)
    signal.addEventListener('abort', done)
  })
}
