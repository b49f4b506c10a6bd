// Apart from the settings' form, which the pages that clone a server need not load.
import type { RevisionSpec } from '@/api/generated/types'
import { may, useDenied, useSession } from '@/api/session'
import { t } from '@/lib/t'

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

/** Whether a revision sees paths, or is allowed what sandboxes refuse, beyond another one. */
export function isMore(
  spec: Pick<RevisionSpec, 'paths' | 'privileges'>,
  before: Pick<RevisionSpec, 'paths' | 'privileges'> = {},
): { grants: boolean; privileged: boolean } {
  const had = before.paths ?? []
  return {
    grants: (spec.paths ?? []).some(
      (grant) => !had.some((one) => one.path === grant.path && (one.writable === true || !grant.writable)),
    ),
    privileged: (spec.privileges ?? []).some((one) => before.privileges?.includes(one) !== true),
  }
}
