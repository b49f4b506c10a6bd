import { ROLE } from '@/api/generated/enums'
import type { Action, Role } from '@/api/generated/types'
import { t } from '@/lib/t'

/** A role for people; one that this build does not know by its code. */
export function roleText(role: Role): string {
  const texts: Record<Role, string> = {
    owner: t('Owner'),
    admin: t('Admin'),
    operator: t('Operator'),
    developer: t('Developer'),
    viewer: t('Viewer'),
  }
  return texts[role] ?? role
}

/** What a role may do, in one sentence: as the policies of the server describe themselves. */
export function roleHint(role: Role): string {
  const texts: Record<Role, string> = {
    owner: t('Everything, and the only one who changes owners and the organization.'),
    admin: t('Everything but the organization itself and its owners.'),
    operator: t(
      'Runs servers and toolboxes, makes toolsets and credentials, calls tools, reads the audit log.',
    ),
    developer: t('Deploys and operates servers, makes toolsets and credentials, calls tools, reads logs.'),
    viewer: t('Sees the catalog, servers, toolsets and toolboxes. Changes nothing and calls no tools.'),
  }
  return texts[role] ?? ''
}

/** The order of power, the most powerful first; a role that this build does not know is last. */
export function compareRoles(one: Role, other: Role): number {
  const place = (role: Role) => (ROLE.includes(role) ? ROLE.indexOf(role) : ROLE.length)
  return place(one) - place(other)
}

/** The roles that somebody of this role can give: nobody gives more than they have. */
export function rolesBelow(role: Role): Role[] {
  return ROLE.filter((one) => compareRoles(one, role) >= 0)
}

/** What an action allows, for people. */
export function actionHint(action: Action): string {
  const texts: Record<Action, string> = {
    'catalog:read': t('See catalog entries'),
    'catalog:rate': t('Rate a catalog entry'),
    'catalog:submit': t('Submit an own entry for review'),
    'catalog:review': t('Approve, reject, verify and withdraw entries'),
    'catalog:manage': t('Add, change and sync catalog sources'),
    'server:read': t('See servers, revisions, rollouts and instances'),
    'server:deploy': t('Create, update, roll back and clone servers'),
    'server:grant_path': t('Let a server see paths of its toolbox’s host'),
    'server:grant_privilege': t('Let a server do what sandboxes refuse'),
    'server:operate': t('Start, stop and restart servers, cancel rollouts'),
    'server:delete': t('Delete servers'),
    'server:logs': t('Read logs of servers'),
    'tool:call': t('List and call tools, prompts and resources'),
    'toolset:read': t('See toolsets'),
    'toolset:manage': t('Create, change and delete toolsets'),
    'toolbox:read': t('See toolboxes'),
    'toolbox:manage': t('Enroll, drain and remove toolboxes'),
    'credential:read': t('See which credentials exist, never their values'),
    'credential:use': t('Bind a credential to a server, which then gets its secret'),
    'credential:manage': t('Create, replace and delete credentials'),
    'key:read': t('See API keys, never the keys themselves'),
    'key:manage': t('Create and revoke API keys'),
    'member:read': t('See members and their roles'),
    'member:manage': t('Add, change and remove members'),
    'flag:read': t('See feature flags'),
    'flag:manage': t('Change feature flags'),
    'audit:read': t('Read the audit log'),
    'event:read': t('Follow live events'),
    'policy:explain': t('Ask why something is allowed or refused'),
    'organization:manage': t('Change the organization itself'),
  }
  return texts[action] ?? ''
}
