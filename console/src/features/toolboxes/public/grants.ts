/** Which paths of their hosts toolboxes let servers see. Pure. */
import type { Toolbox } from '@/api/generated/types'

/** What is never granted, with everything in it (`SYSTEM` in crates/types/src/grantable.rs). */
const SYSTEM = /^\/(?:etc|proc|sys|dev|run|var\/run|boot)(?:\/|$)/

/**
 * The paths that a toolbox lists as grantable; `undefined` when it does not say. An agent of before says so only for
 * people, in the detail of `path_grants` (`Grants::enforcement` in crates/dtma/src/grants.rs); what this cannot read, the
 * toolbox decides.
 */
export function grantablePaths(toolbox: Pick<Toolbox, 'report'>): string[] | undefined {
  if (toolbox.report.grantable_paths != null) return toolbox.report.grantable_paths
  const grants = toolbox.report.enforcement['path_grants']
  if (grants?.enforced !== true) return undefined
  if (grants.detail === 'no path of this host is granted') return []
  const listed = /^only (`.+`) \(`grantable_paths`\)$/.exec(grants.detail)?.[1]
  return listed === undefined ? undefined : listed.split(', ').map((path) => path.replace(/^`|`$/g, ''))
}

/** A path without what changes nothing about it: `//`, `/./`, and a `/` at its end. */
function plain(path: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  return `${path.startsWith('/') ? '/' : ''}${parts.join('/')}`
}

/** Whether a path lies where it may be granted: in a listed one, without dot files where it ends with `/*`. */
export function isGrantable(asked: string, listed: readonly string[]): boolean {
  const path = plain(asked)
  if (!path.startsWith('/') || path === '/' || SYSTEM.test(path) || path.split('/').includes('..'))
    return false
  return listed.some((root) => {
    const within = root.endsWith('/*')
    const base = plain(within ? root.slice(0, -2) : root)
    if (path === base) return !within
    if (!path.startsWith(`${base}/`)) return false
    return !within || !path.slice(base.length).includes('/.')
  })
}

/** What the toolboxes that may take a server grant together; `undefined` when one of them does not say. */
export function grantableOn(
  toolboxes: readonly Pick<Toolbox, 'name' | 'state' | 'report'>[],
  chosen: string | undefined,
): string[] | undefined {
  const candidates = toolboxes.filter(
    (one) => one.state !== 'removed' && (chosen === undefined || one.name === chosen),
  )
  const each = candidates.map(grantablePaths)
  if (each.length === 0 || each.includes(undefined)) return undefined
  return [...new Set(each.flatMap((paths) => paths ?? []))]
}
