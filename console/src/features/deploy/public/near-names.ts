import { listServers } from '@/api/generated/servers'
import { q } from '@/api/queries'
import { nameFrom } from '@/features/servers/public/inputs'

/** The name that a server made of this text gets when it is free. */
export function baseName(text: string): string {
  return nameFrom(text) || 'server'
}

/** The servers whose names may collide with names made of this text. */
export function nearNamesQuery(text: string) {
  return q(listServers, { query: { search: baseName(text), limit: 500 } })
}
