import { type ReactNode, useState } from 'react'
import type { CreatedApiKey } from '@/api/generated/types'
import { formatDate } from '@/lib/format'
import { t } from '@/lib/t'
import { Dialog } from '@/ui/dialog'
import { Notice } from '@/ui/notice'
import { CloseButton, OnceCode, useShownOnce } from '@/ui/shown-once'

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
  const settle = useShownOnce({
    shown: made !== undefined,
    lost: t('The key was not copied, and cannot be shown again.'),
  })
  return (
    <Dialog open onOpenChange={(open) => !open && onClose()} title={title(made)}>
      {made === undefined ? (
        children(setMade)
      ) : (
        <div className="flex flex-col gap-4">
          <OnceCode code={made.key} label={t('The key')} onCopied={settle} />
          <Notice tone="warn" title={t('The key is shown only now')}>
            {t('Keep it where secrets are kept. Programs send it as')}{' '}
            <code className="id">Authorization: Bearer ty_…</code>
          </Notice>
          <p className="text-muted">
            {made.expires_at == null
              ? t('It does not expire.')
              : t('It works until {date}.', { date: formatDate(made.expires_at) })}
          </p>
          <div className="flex flex-wrap justify-end gap-2">
            <CloseButton>{t('Done')}</CloseButton>
          </div>
        </div>
      )}
    </Dialog>
  )
}
