import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { callToSave } from '@/api/answer-lost'
import { updateServer } from '@/api/generated/servers'
import type { Server } from '@/api/generated/types'
import { isGone } from '@/api/gone'
import { useDenied } from '@/api/session'
import { moveBody, type PlaceValues, placeOf, placeProblem } from '@/features/toolboxes/public/place'
import { PlaceFields } from '@/features/toolboxes/public/place-fields'
import { useForm } from '@/lib/form'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { ErrorNote } from '@/ui/error-state'
import { Notice } from '@/ui/notice'
import { toast } from '@/ui/toast'
import { PLACE } from './place-anchor'
import { serverQuery, settingsQuery } from './public/queries'
import { schemaOf } from './public/settings'
import { placeText } from './row'

/** Where a server runs, which can be changed. */
export function PlaceCard({
  server,
  hasVolumes,
  recreate,
  isDeleted,
}: {
  server: Server
  hasVolumes: boolean
  /** Whether the old instance is stopped before the new one starts. */
  recreate: boolean
  /** Elsewhere, while something was typed here. */
  isDeleted: boolean
}) {
  const client = useQueryClient()
  const denied = useDenied('server:deploy')
  const [base, setBase] = useState(() => placeOf(server))
  const form = useForm<PlaceValues, PlaceValues>({
    initial: base,
    schema: schemaOf<PlaceValues>((values) => {
      const problem = placeProblem(values)
      return problem === undefined ? [] : [{ path: ['labels'], message: problem }]
    }),
    fieldOf: (field) => (field.startsWith('toolbox_labels') ? 'labels' : field),
    submit: async (values) => {
      const { name } = server
      const answer = await callToSave(updateServer, { path: { name }, body: moveBody(values) }).catch(
        (error: unknown) => {
          // What it is now is read at once, not only when the page hears of it.
          if (isGone(error))
            for (const { queryKey } of [serverQuery(name), settingsQuery(name)])
              void client.invalidateQueries({ queryKey })
          throw error
        },
      )
      client.setQueryData(serverQuery(name).queryKey, answer)
      form.reset(placeOf(answer))
      await client.invalidateQueries({ queryKey: settingsQuery(name).queryKey })
      toast.done({ title: t('Where {name} runs was changed', { name }) })
    },
  })
  const removed = server.toolbox_removed_at != null
  const now = placeOf(server)
  // It was changed elsewhere, or given back by a rollout that failed, and nothing is typed.
  if ((now.toolbox !== base.toolbox || now.labels !== base.labels) && !form.dirty && !form.submitting) {
    setBase(now)
    form.reset(now)
  }
  return (
    <form id={PLACE} noValidate onSubmit={form.onSubmit} className="scroll-mt-4">
      <Card title={t('Where it runs')}>
        <fieldset disabled={denied !== undefined} className="flex min-w-0 flex-col gap-4">
          {removed && !isDeleted && (
            <Notice tone="warn" title={t('The toolbox where it must run was removed')}>
              {hasVolumes
                ? t(
                    'It runs nowhere until it is moved. Its volumes are on the host of that toolbox: it begins with empty ones, on the toolbox that you name.',
                  )
                : t('It runs nowhere until it is moved.')}
            </Notice>
          )}
          <PlaceFields
            toolbox={form.field('toolbox')}
            labels={form.field('labels')}
            hint={
              !server.enabled
                ? t('It runs there once it is started.')
                : removed
                  ? t('An instance is started there.')
                  : recreate
                    ? t('The old instance is stopped first; then a new one is started there.')
                    : t('A new instance there takes over once it answers; then the old one ends.')
            }
            byName={removed && hasVolumes}
            removed={removed ? placeText(server) : undefined}
          />
          <ErrorNote error={isDeleted && isGone(form.submitError) ? undefined : form.submitError} />
          <div>
            <Button
              type="submit"
              variant="secondary"
              disabledReason={
                denied ??
                (isDeleted
                  ? t('It was deleted elsewhere')
                  : form.dirty
                    ? undefined
                    : t('Choose another place first'))
              }
              busy={form.submitting}
            >
              {t('Move it')}
            </Button>
          </div>
        </fieldset>
      </Card>
    </form>
  )
}
