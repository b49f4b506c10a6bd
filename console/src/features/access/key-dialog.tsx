import { type ReactNode, useState } from 'react'
import type { CreatedApiKey } from '@/api/generated/types'
import { formatDate } from '@/lib/format'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { Dialog } from '@/ui/dialog'
import { Notice } from '@/ui/notice'
import { OnceCode, useShownOnce } from '@/ui/shown-once'

/** Makes a secret of a key and shows it, this once: closing before it was copied asks first. */
export function KeyDialog({
  title,
  onClose,
  children,
}: {
  title: (made: CreatedApiKey | undefined) => string
  onClose: () => void
  /** What makes it. */
  children: (onMade: (key: CreatedApiKey) => void) => ReactNode
}) {
  const [made, setMade] = useState<CreatedApiKey>()
  const once = useShownOnce({
    shown: made !== undefined,
    lost: t('The key was not copied, and cannot be shown again. Close once more to go on without it.'),
    onClose,
  })
  return (
    <Dialog open onOpenChange={(open) => !open && once.close()} title={title(made)}>
      {made === undefined ? (
        children(setMade)
      ) : (
        <div className="flex flex-col gap-4">
          <OnceCode code={made.key} label={t('The key')} onCopied={once.settle} />
          <Notice tone="warn" title={t('The key is shown only now')}>
            {t('Keep it where secrets are kept. Programs send it as')}{' '}
            <code className="id">Authorization: Bearer ty_…</code>
          </Notice>
          <p className="text-muted">
            {made.expires_at == null
              ? t('It does not expire.')
              : t('It works until {date}.', { date: formatDate(made.expires_at) })}
          </p>
          {once.warning}
          <div className="flex flex-wrap justify-end gap-2">
            <Button variant="primary" onClick={once.close}>
              {t('Done')}
            </Button>
          </div>
        </div>
      )}
    </Dialog>
  )
}
