import { useQuery } from '@tanstack/react-query'
import { may, useSession } from '@/api/session'
import { grantableOn, isGrantable } from '@/features/toolboxes/public/grants'
import { LABELLED } from '@/features/toolboxes/public/place'
import { toolboxesQuery } from '@/features/toolboxes/public/queries'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { grantsOf, type PathProblem, type SettingsContext, type SettingsValues } from './settings'
import { useGrantDenied } from './spec-denied'

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
