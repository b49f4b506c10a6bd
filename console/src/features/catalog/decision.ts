import type { Entry } from '@/api/generated/types'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'

/**
 * What somebody else decided about an entry while it was looked at; `undefined` while it waits for a review. `gone` says
 * that there is no such entry any more.
 */
export function decisionMeanwhile(
  entry: Pick<Entry, 'review' | 'review_reason'> | undefined,
  gone = false,
): string | undefined {
  if (gone) return t('It was withdrawn meanwhile.')
  if (entry === undefined || entry.review === 'submitted') return undefined
  if (entry.review === 'approved') return t('Somebody else approved it meanwhile.')
  if (entry.review === 'rejected')
    return t('Somebody else rejected it meanwhile: {reason}', {
      reason: oneLine(entry.review_reason ?? t('no reason was given'), 500),
    })
  return t('Somebody else decided meanwhile: it is {review} now.', { review: oneLine(entry.review, 20) })
}
