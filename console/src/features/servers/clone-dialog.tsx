import { useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query'
import * as v from 'valibot'
import { call } from '@/api/client'
import { cloneServer, listServers } from '@/api/generated/servers'
import { useOnce } from '@/api/once'
import { invalidate } from '@/api/queries'
import { useForm } from '@/lib/form'
import { LONGEST_NAME, nameSchema } from '@/lib/name'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { CancelButton, Dialog } from '@/ui/dialog'
import { ErrorNote } from '@/ui/error-state'
import { TextInput } from '@/ui/inputs'
import { revisionsQuery, serverQuery } from './public/queries'
import { useSpecDenied } from './public/spec-denied'

/** Asks for the name of a copy, and makes it. */
export function CloneDialog({
  name,
  onOpenChange,
  onCloned,
}: {
  name: string
  onOpenChange: (open: boolean) => void
  onCloned: (copy: string) => void
}) {
  const client = useQueryClient()
  const { data: server } = useQuery(serverQuery(name))
  const { data: revisions } = useInfiniteQuery(revisionsQuery(name))
  const meant = revisions?.pages.flatMap((page) => page.items).find((one) => one.number === server?.revision)
  const specDenied = useSpecDenied()
  const once = useOnce()
  const form = useForm({
    initial: { name: suggestion(name) },
    schema: v.object({ name: nameSchema }),
    submit: async ({ name: copy }) => {
      const body = { name: copy }
      await once(body, (idempotencyKey) => call(cloneServer, { path: { name }, body }, { idempotencyKey }))
      void invalidate(client, listServers)
      onCloned(copy)
    },
  })
  return (
    <Dialog
      open
      onOpenChange={onOpenChange}
      size="small"
      title={t('Clone {name}', { name })}
      description={t('The copy runs the same revision with the same settings and shares the credentials.')}
    >
      <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
        <TextInput
          label={t('Name of the copy')}
          mono
          autoComplete="off"
          maxLength={LONGEST_NAME + 10}
          {...form.field('name')}
        />
        <ErrorNote error={form.submitError} />
        <div className="flex flex-wrap justify-end gap-2">
          <CancelButton />
          <Button
            type="submit"
            variant="primary"
            busy={form.submitting}
            disabledReason={meant === undefined ? undefined : specDenied(meant.spec)}
          >
            {t('Clone')}
          </Button>
        </div>
      </form>
    </Dialog>
  )
}

/** `time` is `time-copy`, and `time-copy` is `time-copy-2`. */
export function suggestion(name: string): string {
  const numbered = /^(.+-copy)(?:-(\d+))?$/.exec(name)
  const ending = numbered === null ? '-copy' : `-${Number(numbered[2] ?? 1) + 1}`
  const base = numbered?.[1] ?? name
  return `${base.slice(0, LONGEST_NAME - ending.length).replace(/-+$/, '')}${ending}`
}
