import { useId, useState } from 'react'
import type { CallsOverview } from '@/api/generated/types'
import { may, useSession } from '@/api/session'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { later } from '@/ui/later'
import { Link } from '@/ui/link'
import { SkeletonLines } from '@/ui/skeleton'

// Not needed to look around: it is no part of the first load.
const ErrorServers = later<{ calls: CallsOverview; onFailed: () => void }>(
  () => import('./error-servers').then((module) => module.ErrorServers),
  ({ onFailed }) => onFailed(),
  <SkeletonLines count={2} />,
)

/** Whose the errors of the last hour are. Servers that fail are another matter: calls of a ready one fail, too. */
export function CallErrors({ calls }: { calls: CallsOverview }) {
  const session = useSession()
  const [open, setOpen] = useState(false)
  const id = useId()
  return (
    <div className="mt-1 flex flex-col gap-2 text-sm">
      <p className="text-muted">
        {t('Calls that neither succeeded nor were cancelled, of any server.')}{' '}
        {!may(session, 'audit:read') && t('The metrics of each server tell its own.')}
      </p>
      {may(session, 'audit:read') ? (
        <div>
          <Button
            size="small"
            aria-expanded={open}
            aria-controls={open ? id : undefined}
            onClick={() => setOpen(!open)}
          >
            {open ? t('Hide the servers') : t('Which servers?')}
          </Button>
          {open && (
            <div id={id} className="mt-2">
              <ErrorServers calls={calls} onFailed={() => setOpen(false)} />
            </div>
          )}
        </div>
      ) : (
        may(session, 'server:read') && <Link to="/servers">{t('See the servers')}</Link>
      )}
    </div>
  )
}
