import { notFound } from '@tanstack/react-router'
import type { Action, Session } from '@/api/generated/types'
import { may } from '@/api/session'

/** Why a page is not shown: the page that says so has no other way to know. */
export interface Withheld {
  role: string
}

/**
 * For a route's `beforeLoad`: the page is absent for people who may not do this, and neither its code nor its data
 * is asked for.
 */
export function onlyFor(session: Session, action: Action): void {
  const withheld: Withheld = { role: session.role }
  if (!may(session, action)) throw notFound({ data: withheld })
}

/** The role that a page is withheld from, of what {@link onlyFor} threw; `undefined` where there is no such page. */
export function withheldFrom(data: unknown): string | undefined {
  const role = typeof data === 'object' && data !== null && 'role' in data ? data.role : undefined
  return typeof role === 'string' ? role : undefined
}
