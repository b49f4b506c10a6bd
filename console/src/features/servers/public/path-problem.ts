import { useQuery } from '@tanstack/react-query'
import type { RevisionSpec } from '@/api/generated/types'
import { may, useDenied, useSession } from '@/api/session'
import { grantableOn, isGrantable } from '@/features/toolboxes/public/grants'
import { LABELLED } from '@/features/toolboxes/public/place'
import { toolboxesQuery } from '@/features/toolboxes/public/queries'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { grantsOf, isMore, type PathProblem, type SettingsContext, type SettingsValues } from './settings'

/** Why the person here may not let a server see paths of a host; `undefined` when they may. */
export function useGrantDenied(): string | undefined {
  const session = useSession()
  return may(session, 'server:grant_path')
    ? undefined
    : t('Owners, admins and operators may let a server see a path of the host; your role is {role}', {
        role: session.role,
      })
}

/** Why the person here may not run what a revision says, beyond what was granted before: to clone, or to go back. */
export function useSpecDenied(): (spec: RevisionSpec, before?: RevisionSpec) => string | undefined {
  const paths = useGrantDenied()
  const privileges = useDenied('server:grant_privilege')
  return (spec, before) => {
    const { grants, privileged } = isMore(spec, before)
    if (paths !== undefined && grants) return t('It sees paths of the host. {why}', { why: paths })
    if (privileges !== undefined && privileged)
      return t('It is allowed more than its sandbox. {why}', { why: privileges })
    return undefined
  }
}

/**
 * Why paths of the host cannot be granted: by the person here, and on the toolboxes that may take the server. Takes the
 * place that is chosen.
 */
export function usePathProblem(before?: {
  values: SettingsValues
  context: SettingsContext
}): (place: string | null | undefined) => PathProblem {
  const session = useSession()
  const denied = useGrantDenied()
  const { data } = useQuery({ ...toolboxesQuery, enabled: may(session, 'toolbox:read') })
  const granted = before === undefined ? [] : grantsOf(before.values, before.context)
  return (place) => {
    const chosen = place == null || place === '' || place === LABELLED ? undefined : place
    const listed = data === undefined ? undefined : grantableOn(data.items, chosen)
    return (path, writable) => {
      // What it has already is no new grant.
      if (granted.some((one) => one.path === path && (one.writable || !writable))) return undefined
      if (denied !== undefined) return denied
      if (listed === undefined || isGrantable(path, listed)) return undefined
      return listed.length === 0
        ? t('No toolbox that may take it grants paths of its host')
        : t('No toolbox that may take it grants this; it can be in {paths}', {
            paths: oneLine(listed.join(', '), 300),
          })
    }
  }
}
