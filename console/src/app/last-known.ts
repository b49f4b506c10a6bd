/**
 * The last known state, for a start without a connection: what the pages of the last visit read, of one person, in
 * this browser's IndexedDB. It is taken away when that person signs out, when their session ends, and when anybody
 * signs in; so nobody sees what another person saw.
 */
import { type DehydratedState, dehydrate, hydrate, type QueryClient } from '@tanstack/react-query'
import { del, get, set } from 'idb-keyval'
import * as v from 'valibot'
import { restored } from '@/api/connection'
import { sessionQuery } from '@/api/session'
import { privateStorage } from '@/lib/private-storage'

const KEY = 'toolyard.last-known'
const VERSION = 1
/** Older than this is of no use. */
const LONGEST_MS = 7 * 24 * 3600 * 1000
const SAVE_EVERY_MS = 30_000
/** What is kept: lists and things. Not logs, not metrics, nothing of the playground. */
const KEPT = /^(get_session|get_overview|list_|get_server$|get_toolset$|get_toolbox$|get_entry$|get_version$)/
const NOT_KEPT = /^list_(calls|audit|console_reports|keys|members)/

const Saved = v.object({
  version: v.literal(VERSION),
  person: v.string(),
  at: v.number(),
  state: v.unknown(),
})

function person(client: QueryClient): string | undefined {
  const session = client.getQueryData(sessionQuery.queryKey)
  return session === undefined ? undefined : `${session.organization}/${session.display}`
}

/** Saves from now on, while somebody is signed in. Gives the function that ends it. */
export function keepLastKnown(client: QueryClient): () => void {
  const save = () => void saveNow(client).catch(() => undefined)
  void forgetAnother(client).catch(() => undefined)
  const hidden = () => document.visibilityState === 'hidden' && save()
  const timer = setInterval(save, SAVE_EVERY_MS)
  document.addEventListener('visibilitychange', hidden)
  return () => {
    clearInterval(timer)
    document.removeEventListener('visibilitychange', hidden)
  }
}

/** What another person left here goes as soon as somebody else is signed in. */
async function forgetAnother(client: QueryClient): Promise<void> {
  const saved = v.safeParse(Saved, await get(KEY))
  if (!saved.success || saved.output.person !== person(client)) await del(KEY)
}

async function saveNow(client: QueryClient): Promise<void> {
  const who = person(client)
  if (who === undefined) return
  const state = dehydrate(client, {
    shouldDehydrateQuery: (query) => {
      const name = String(query.queryKey[0])
      return query.state.status === 'success' && KEPT.test(name) && !NOT_KEPT.test(name)
    },
    shouldDehydrateMutation: () => false,
  })
  const newest = Math.max(0, ...state.queries.map((query) => query.state.dataUpdatedAt))
  if (newest === 0) return
  await set(KEY, { version: VERSION, person: who, at: newest, state })
}

/** Puts the last visit's state into an empty cache. Whether there was one. */
export async function restoreLastKnown(client: QueryClient): Promise<boolean> {
  const saved = v.safeParse(Saved, await get(KEY).catch(() => undefined))
  if (!saved.success || Date.now() - saved.output.at > LONGEST_MS) return false
  hydrate(client, saved.output.state as DehydratedState) // as: `saveNow` wrote it, in this version
  if (person(client) !== saved.output.person) {
    client.clear()
    return false
  }
  restored(saved.output.at)
  return true
}

/** Takes it away, and what else is private to a person: at sign-out, when a session ended, and before anybody signs in. */
export function forgetLastKnown(): void {
  restored(undefined)
  privateStorage.clear()
  void del(KEY).catch(() => undefined)
}
