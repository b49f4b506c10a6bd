import { useQueryClient } from '@tanstack/react-query'
import * as v from 'valibot'
import { call } from '@/api/client'
import { listKeys, rotateKey } from '@/api/generated/keys'
import type { ApiKey, CreatedApiKey, RotateApiKey } from '@/api/generated/types'
import { useOnce } from '@/api/once'
import { invalidate } from '@/api/queries'
import { usePasswordAgain } from '@/features/account/public/password-again'
import { useForm } from '@/lib/form'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { CancelButton } from '@/ui/dialog'
import { ErrorNote } from '@/ui/error-state'
import { Select } from '@/ui/select'
import { KeyDialog } from './key-dialog'
import type { KeyState } from './key-state'

const HOUR = 3600

/** Gives a key another secret, shown this once. */
export function RotateKeyDialog({
  apiKey,
  state,
  onClose,
}: {
  apiKey: ApiKey
  state: KeyState
  onClose: () => void
}) {
  return (
    <KeyDialog
      title={(made) =>
        made === undefined
          ? t('Another secret for {name}', { name: apiKey.name })
          : t('{name} has another secret', { name: made.name })
      }
      onClose={onClose}
    >
      {(onMade) => <RotateKey apiKey={apiKey} state={state} onMade={onMade} />}
    </KeyDialog>
  )
}

function RotateKey({
  apiKey,
  state,
  onMade,
}: {
  apiKey: ApiKey
  state: KeyState
  onMade: (key: CreatedApiKey) => void
}) {
  const client = useQueryClient()
  const again = usePasswordAgain()
  const once = useOnce()
  const form = useForm({
    initial: { overlap: '0', days: state === 'expired' ? '90' : '' },
    schema: v.object({ overlap: v.string(), days: v.string() }),
    submit: async ({ overlap, days }) => {
      const body: RotateApiKey = { overlap_seconds: Number(overlap) }
      if (days !== '') body.expires_in_days = Number(days)
      const path = { id: apiKey.id }
      const rotate = () => once(body, (idempotencyKey) => call(rotateKey, { path, body }, { idempotencyKey }))
      onMade(await again.run(rotate))
      await invalidate(client, listKeys)
    },
    fieldOf: (field) => ({ overlap_seconds: 'overlap', expires_in_days: 'days' })[field] ?? field,
  })
  return (
    <>
      <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-5">
        <p className="text-muted">
          {t('The key keeps its name and what it may do, and the keys made with it go on to work.')}
        </p>
        <div className="grid gap-4 sm:grid-cols-2">
          <Select
            {...form.field('overlap')}
            label={t('The secret until now ends')}
            hint={t(
              'At once when somebody else may have it. Until it ends it calls tools and reads, and does nothing else.',
            )}
            options={[
              { value: '0', label: t('At once') },
              { value: String(HOUR), label: t('In an hour') },
              { value: String(24 * HOUR), label: t('In a day') },
              { value: String(7 * 24 * HOUR), label: t('In 7 days') },
            ]}
          />
          <Select
            {...form.field('days')}
            label={t('The key expires')}
            options={[
              ...(state === 'expired' ? [] : [{ value: '', label: t('As before') }]),
              { value: '30', label: t('In 30 days') },
              { value: '90', label: t('In 90 days') },
              { value: '365', label: t('In a year') },
            ]}
          />
        </div>
        <ErrorNote error={form.submitError} />
        <div className="flex flex-wrap justify-end gap-2">
          <CancelButton />
          <Button type="submit" variant="primary" busy={form.submitting}>
            {t('Make another secret')}
          </Button>
        </div>
      </form>
      {again.question}
    </>
  )
}
