import type { LinkProps } from '@tanstack/react-router'
import {
  Boxes,
  FlaskConical,
  Gauge,
  Layers,
  LockKeyhole,
  type LucideIcon,
  Plug,
  ScrollText,
  Server,
  Settings,
  ShieldCheck,
  Store,
} from 'lucide-react'
import type { Action } from '@/api/generated/types'
import { t } from '@/lib/t'

/** A page in the navigation, in the command palette and behind `g` and its key. */
export interface NavigationItem {
  label: string
  to: NonNullable<LinkProps['to']>
  icon: LucideIcon
  /** Pressed after `g`. */
  key: string
  /** Absent for people who may not do this. */
  action?: Action
}

/** A group of pages; the first has no title. */
export interface NavigationGroup {
  title: string | undefined
  items: NavigationItem[]
}

/** All pages that exist, in the order of the sidebar. A page is added here when it is built, not before. */
export function navigation(): NavigationGroup[] {
  return [
    {
      title: undefined,
      items: [
        { label: t('Overview'), to: '/', icon: Gauge, key: 'o' },
        { label: t('Servers'), to: '/servers', icon: Server, key: 's', action: 'server:read' },
        { label: t('Marketplace'), to: '/marketplace', icon: Store, key: 'm', action: 'catalog:read' },
      ],
    },
    {
      title: t('Use'),
      items: [
        { label: t('Playground'), to: '/playground', icon: FlaskConical, key: 'p', action: 'tool:call' },
        { label: t('Toolsets'), to: '/toolsets', icon: Layers, key: 't', action: 'toolset:read' },
        { label: t('Connect'), to: '/connect', icon: Plug, key: 'n', action: 'tool:call' },
      ],
    },
    {
      title: t('Infrastructure'),
      items: [
        { label: t('Toolboxes'), to: '/toolboxes', icon: Boxes, key: 'b', action: 'toolbox:read' },
        {
          label: t('Credentials'),
          to: '/credentials',
          icon: LockKeyhole,
          key: 'c',
          action: 'credential:read',
        },
      ],
    },
    {
      title: t('Administration'),
      items: [
        { label: t('Access'), to: '/access', icon: ShieldCheck, key: 'a', action: 'key:read' },
        { label: t('Audit'), to: '/audit', icon: ScrollText, key: 'l', action: 'audit:read' },
      ],
    },
    {
      title: undefined,
      items: [{ label: t('Settings'), to: '/settings', icon: Settings, key: 'e' }],
    },
  ]
}
