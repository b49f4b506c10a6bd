/** What the search of the console finds beside what the navigation has. Pure. */
import type { LinkProps } from '@tanstack/react-router'
import type { Action } from '@/api/generated/types'
import { t } from '@/lib/t'

/** A page that is a part of another, or an action with a page of its own. */
export interface FurtherPage {
  label: string
  /** Further words that find it. */
  words?: string
  to: NonNullable<LinkProps['to']>
  /** Absent for people who may not do this. */
  action?: Action
}

/** The pages that are not in the navigation: they are found by typing. */
export function furtherPages(): FurtherPage[] {
  return [
    { label: t('New toolset'), to: '/toolsets/new', action: 'toolset:manage' },
    {
      label: t('Register a server by its address'),
      words: t('deploy a server'),
      to: '/deploy',
      action: 'server:deploy',
    },
    { label: t('Publish a catalog entry'), to: '/marketplace/publish', action: 'catalog:submit' },
    { label: t('Review catalog entries'), to: '/marketplace/review', action: 'catalog:review' },
    { label: t('Access: members'), to: '/access/members', action: 'member:read' },
    { label: t('Access: API keys'), to: '/access/keys', action: 'key:read' },
    // The pages about access are for those who may see keys.
    { label: t('Access: why somebody may do something'), to: '/access/why', action: 'key:read' },
    { label: t('Settings: account'), to: '/settings/account' },
    { label: t('Settings: appearance'), to: '/settings/appearance' },
    { label: t('Settings: catalog sources'), to: '/settings/sources', action: 'catalog:manage' },
    { label: t('Settings: features'), to: '/settings/flags', action: 'flag:manage' },
    { label: t('Settings: environment'), to: '/settings/environment' },
  ]
}

/** What the API found for what was typed: first what holds it in its name, then what was found by something else. */
export function ranked(names: readonly string[], typed: string): string[] {
  const first = fitting(names, typed)
  return [...first, ...names.filter((name) => !first.includes(name))]
}

/** The names that hold what was typed: first those that begin with it. */
export function fitting(names: readonly string[], typed: string): string[] {
  const wanted = typed.trim().toLowerCase()
  const place = (name: string) => (name.toLowerCase().startsWith(wanted) ? 0 : 1)
  return names
    .filter((name) => name.toLowerCase().includes(wanted))
    .toSorted((one, other) => place(one) - place(other) || one.localeCompare(other))
}
