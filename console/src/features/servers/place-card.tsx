import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { call } from '@/api/client'
import { updateServer } from '@/api/generated/servers'
import type { Server } from '@/api/generated/types'
import { useDenied } from '@/api/session'
import { moveBody, type PlaceValues, placeOf, placeProblem } from '@/features/toolboxes/public/place'
import { PlaceFields } from '@/features/toolboxes/public/place-fields'
import { useForm } from '@/lib/form'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { ErrorNote } from '@/ui/error-state'
import { toast } from '@/ui/toast'
import { serverQuery, settingsQuery } from './public/queries'
import { schemaOf } from './public/settings'

/** Where a server runs, which can be changed: a new instance there takes over before the old one ends. */
export function PlaceCard({ server }: { server: Server }) {
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
      const answer = await call(updateServer, { path: { name }, body: moveBody(values) })
      client.setQueryData(serverQuery(name).queryKey, answer)
      form.reset(placeOf(answer))
      await client.invalidateQueries({ queryKey: settingsQuery(name).queryKey })
      toast.done({ title: t('Where {name} runs was changed', { name }) })
    },
  })
  const now = placeOf(server)
  // It was changed elsewhere, or given back by a rollout that failed, and nothing is typed.
  if ((now.toolbox !== base.toolbox || now.labels !== base.labels) && !form.dirty && !form.submitting) {
    setBase(now)
    form.reset(now)
  }
  return (
    <form noValidate onSubmit={form.onSubmit}>
      <Card title={t('Where it runs')}>
        <fieldset disabled={denied !== undefined} className="flex min-w-0 flex-col gap-4">
          <PlaceFields
            toolbox={form.field('toolbox')}
            labels={form.field('labels')}
            hint={t('A new instance there takes over once it answers; then the old one ends.')}
          />
          <ErrorNote error={form.submitError} />
          <div>
            <Button
              type="submit"
              variant="secondary"
              disabledReason={denied ?? (form.dirty ? undefined : t('Choose another place first'))}
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
