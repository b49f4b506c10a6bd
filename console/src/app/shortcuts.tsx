import { may, useSession } from '@/api/session'
import { modifierName } from '@/lib/hotkey'
import { t } from '@/lib/t'
import { Dialog } from '@/ui/dialog'
import { Kbd } from '@/ui/kbd'
import { navigation } from './navigation'

/** The list of keyboard shortcuts. */
export function Shortcuts({ onOpenChange }: { onOpenChange: (open: boolean) => void }) {
  const session = useSession()
  const pages = navigation().flatMap((group) =>
    group.items.filter((item) => item.action === undefined || may(session, item.action)),
  )
  const lines: Array<[string, string[]]> = [
    [t('Search and commands'), [modifierName(), 'K']],
    [t('Search in the page'), ['/']],
    [t('This list'), ['?']],
    [t('Row above or below'), ['↑', '↓']],
    ...pages.map((item): [string, string[]] => [t('Go to {page}', { page: item.label }), ['g', item.key]]),
  ]
  return (
    <Dialog open onOpenChange={onOpenChange} title={t('Keyboard shortcuts')} size="small">
      <dl className="flex flex-col">
        {lines.map(([what, keys]) => (
          <div key={what} className="flex items-center justify-between gap-4 border-b py-2 last:border-b-0">
            <dt>{what}</dt>
            <dd className="flex gap-1">
              {keys.map((key) => (
                <Kbd key={key}>{key}</Kbd>
              ))}
            </dd>
          </div>
        ))}
      </dl>
    </Dialog>
  )
}
