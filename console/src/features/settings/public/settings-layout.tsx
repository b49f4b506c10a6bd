import type { LinkProps } from '@tanstack/react-router'
import type { ReactNode } from 'react'
import { may, useSession } from '@/api/session'
import { t } from '@/lib/t'
import { PlainLink } from '@/ui/link'
import { PageHeader } from '@/ui/page-header'
import { tabClass, tabListClass } from '@/ui/tab-class'

/** The head of all settings. */
export function SettingsLayout({ children }: { children: ReactNode }) {
  const session = useSession()
  return (
    <>
      <PageHeader title={t('Settings')} />
      <nav aria-label={t('Parts of the settings')} className={`mb-4 ${tabListClass}`}>
        <Tab to="/settings/account">{t('Account')}</Tab>
        <Tab to="/settings/appearance">{t('Appearance')}</Tab>
        {may(session, 'catalog:manage') && <Tab to="/settings/sources">{t('Catalog sources')}</Tab>}
        {may(session, 'flag:manage') && <Tab to="/settings/flags">{t('Features')}</Tab>}
        <Tab to="/settings/environment">{t('Environment')}</Tab>
      </nav>
      {children}
    </>
  )
}

function Tab({ to, children }: { to: NonNullable<LinkProps['to']>; children: ReactNode }) {
  return (
    <PlainLink to={to} resetScroll={false} className={tabClass}>
      {children}
    </PlainLink>
  )
}
