import { may, useSession } from '@/api/session'
import { cx } from '@/lib/cx'
import { t } from '@/lib/t'
import { PlainLink } from '@/ui/link'
import { navigation } from './navigation'

/** The pages that the session may see, as links; as icons only where there is no room. */
export function Navigation({ narrow, onNavigate }: { narrow: boolean; onNavigate?: () => void }) {
  const session = useSession()
  return (
    <nav aria-label={t('Pages')} className="min-h-0 flex-1 overflow-y-auto px-2.5 py-1 max-lg:px-0">
      {navigation().map((group) => {
        const items = group.items.filter((item) => item.action === undefined || may(session, item.action))
        if (items.length === 0) return null
        return (
          <div key={items[0]?.to} className="mb-3">
            {group.title !== undefined && !narrow && (
              <div className="px-2 pt-1 pb-1 text-xs text-faint">{group.title}</div>
            )}
            <ul className="flex flex-col gap-px">
              {items.map((item) => (
                <li key={item.to}>
                  <PlainLink
                    to={item.to}
                    activeOptions={{ exact: item.to === '/' }}
                    onClick={onNavigate}
                    title={narrow ? item.label : undefined}
                    aria-label={narrow ? item.label : undefined}
                    className={cx(
                      'flex min-h-control items-center gap-2.5 rounded-md px-2 text-muted hover:bg-hover hover:text-text',
                      'aria-[current=page]:bg-pressed/70 aria-[current=page]:font-medium aria-[current=page]:text-text',
                      narrow && 'justify-center',
                    )}
                  >
                    <item.icon aria-hidden="true" className="size-4 shrink-0" />
                    {!narrow && item.label}
                  </PlainLink>
                </li>
              ))}
            </ul>
          </div>
        )
      })}
    </nav>
  )
}
