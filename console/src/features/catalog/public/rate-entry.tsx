import { useMutation, useQueryClient } from '@tanstack/react-query'
import { Star } from 'lucide-react'
import { useState } from 'react'
import { callToChange } from '@/api/answer-lost'
import { getEntry, listEntries, rateEntry } from '@/api/generated/catalog'
import type { Entry } from '@/api/generated/types'
import { invalidate } from '@/api/queries'
import { useDenied } from '@/api/session'
import { cx } from '@/lib/cx'
import { plural, t } from '@/lib/t'
import { Card } from '@/ui/card'
import { toast } from '@/ui/toast'

const STARS = [1, 2, 3, 4, 5] as const

/** One to five stars. Rating again replaces the rating. */
export function RateEntry({ entry }: { entry: Entry }) {
  const queryClient = useQueryClient()
  const denied = useDenied('catalog:rate')
  const given = entry.own_rating ?? 0
  const [over, setOver] = useState(0)
  const rate = useMutation({
    mutationFn: (rating: number) =>
      callToChange(
        rateEntry,
        { path: { name: entry.name }, body: { rating } },
        t('It is not known whether your rating was taken'),
      ),
    onSuccess: async (_, rating) => {
      toast.done({ title: plural(rating, 'You rated it {count} star', 'You rated it {count} stars') })
      await Promise.all([invalidate(queryClient, getEntry), invalidate(queryClient, listEntries)])
    },
    onError: (error) => toast.problem(t('Your rating was not taken'), error),
  })
  const lit = over > 0 ? over : rate.isPending ? rate.variables : given
  return (
    <Card title={t('Your rating')}>
      {/* biome-ignore lint/a11y/useSemanticElements: each star acts at once; a fieldset is for what is sent. */}
      <div role="group" aria-label={t('Your rating')} className="flex" onMouseLeave={() => setOver(0)}>
        {STARS.map((value) => (
          <button
            key={value}
            type="button"
            aria-label={plural(value, 'Rate it {count} star', 'Rate it {count} stars')}
            aria-pressed={given === value}
            aria-disabled={denied !== undefined || rate.isPending || undefined}
            onMouseEnter={() => setOver(value)}
            onClick={() => {
              if (denied === undefined && !rate.isPending) rate.mutate(value)
            }}
            className="flex size-control items-center justify-center rounded-md"
          >
            <Star
              aria-hidden="true"
              className={cx('size-5', value <= lit ? 'fill-current text-warn' : 'text-line-strong')}
            />
          </button>
        ))}
      </div>
      <p className="mt-1 text-sm text-muted">
        {denied ?? t('For the people of this organization. Rating again replaces your rating.')}
      </p>
    </Card>
  )
}
