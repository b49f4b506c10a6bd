import type { ReactNode } from 'react'
import { t } from '@/lib/t'
import { Notice } from './notice'

/** Above a form: what it is about was deleted elsewhere while something was typed that is not saved. */
export function DeletedNotice({ leave }: { /** A link to where else to go. */ leave: ReactNode }) {
  return (
    <Notice tone="warn" title={t('It was deleted elsewhere')} actions={leave}>
      {t('What you typed stays here until you leave, and cannot be saved any more.')}
    </Notice>
  )
}
