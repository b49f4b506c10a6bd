import { notFound } from '@tanstack/react-router'
import type { Action, Session } from '@/api/generated/types'
import { may } from '@/api/session'

/**
 * For a route's `beforeLoad`: the page is absent for people who may not do this, and neither its code nor its data
 * is asked for.
 */
export function onlyFor(session: Session, action: Action): void {
  if (!may(session, action)) throw notFound()
}
