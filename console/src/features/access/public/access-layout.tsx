import type { ReactNode } from 'react'
import { may, useSession } from '@/api/session'
import { t } from '@/lib/t'
import { PlainLink } from '@/ui/link'
import { PageHeader } from '@/ui/page-header'
import { tabClass, tabListClass } from '@/ui/tab-class'

/** The head of the pages about who may do what. */
export function AccessLayout({ children }: { children: ReactNode }) {
  const session = useSession()
  return (
    <>
      <PageHeader title={t('Access')}>{t('Who may do what, and the keys that programs use.')}</PageHeader>
      <nav aria-label={t('Parts of access')} className={`mb-4 ${tabListClass}`}>
        {may(session, 'member:read') && <Tab to="/access/members">{t('Members')}</Tab>}
        {may(session, 'key:read') && <Tab to="/access/keys">{t('API keys')}</Tab>}
        {may(session, 'policy:explain') && <Tab to="/access/why">{t('Why')}</Tab>}
      </nav>
      {children}
    </>
  )
}

function Tab({
  to,
  children,
}: {
  to: '/access/members' | '/access/keys' | '/access/why'
  children: ReactNode
}) {
  return (
    <PlainLink to={to} activeOptions={{ includeSearch: false }} resetScroll={false} className={tabClass}>
      {children}
    </PlainLink>
  )
}
