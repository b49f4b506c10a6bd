import { useQueryClient, useSuspenseQuery } from '@tanstack/react-query'
import { useState } from 'react'
import * as v from 'valibot'
import { callToSave } from '@/api/answer-lost'
import { listFlags, setFlag } from '@/api/generated/flags'
import type { Flag, FlagRule } from '@/api/generated/types'
import { invalidate, q } from '@/api/queries'
import { useSession } from '@/api/session'
import { useForm } from '@/lib/form'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { CancelButton, Dialog } from '@/ui/dialog'
import { EmptyState } from '@/ui/empty-state'
import { ErrorNote } from '@/ui/error-state'
import { NumberInput } from '@/ui/inputs'
import { Status } from '@/ui/status'
import { toast } from '@/ui/toast'
import { RadioGroup } from '@/ui/toggles'

/** What can be switched on and off while Toolyard runs. */
export function FlagsPage() {
  const { data } = useSuspenseQuery(q(listFlags, {}))
  const [edited, setEdited] = useState<Flag>()
  if (data.items.length === 0) {
    return (
      <EmptyState title={t('Nothing to switch')}>
        {t('This version has no feature behind a switch.')}
      </EmptyState>
    )
  }
  return (
    <>
      <p className="mb-3 text-muted">{t('The server decides; a change holds at once, for everybody.')}</p>
      <Card flush>
        <ul className="divide-y">
          {data.items.map((flag) => (
            <li key={flag.name} className="flex flex-wrap items-center justify-between gap-3 px-pad py-3">
              <div className="min-w-0 flex-1 basis-64">
                <h2 className="id font-medium">{flag.name}</h2>
                <p className="text-muted">{flag.description}</p>
                <p className="mt-1 flex flex-wrap gap-x-3 text-sm text-muted">
                  <Status kind={flag.enabled ? 'good' : 'off'}>
                    {flag.enabled ? t('On here') : t('Off here')}
                  </Status>
                  <span>{ruleText(flag)}</span>
                </p>
              </div>
              <Button
                size="small"
                aria-label={t('Change {name}', { name: flag.name })}
                onClick={() => setEdited(flag)}
              >
                {t('Change')}
              </Button>
            </li>
          ))}
        </ul>
      </Card>
      {edited !== undefined && <EditFlag flag={edited} onClose={() => setEdited(undefined)} />}
    </>
  )
}

function ruleText(flag: Flag): string {
  const rule = flag.rule
  const parts: string[] = []
  if (rule?.everyone != null) parts.push(rule.everyone ? t('on for everyone') : t('off for everyone'))
  if (rule?.percentage != null) {
    parts.push(t('on for {percentage} % of organizations', { percentage: rule.percentage }))
  }
  for (const [name, on] of Object.entries(rule?.organizations ?? {})) {
    parts.push(on ? t('on for {name}', { name }) : t('off for {name}', { name }))
  }
  if (parts.length === 0) return flag.default ? t('on unless it is set') : t('off unless it is set')
  return parts.join(', ')
}

type Choice = 'default' | 'on' | 'off' | 'share'

function choiceOf(rule: FlagRule | null | undefined): Choice {
  if (rule?.percentage != null) return 'share'
  if (rule?.everyone != null) return rule.everyone ? 'on' : 'off'
  return 'default'
}

type Here = 'like-the-others' | 'on' | 'off'

function EditFlag({ flag, onClose }: { flag: Flag; onClose: () => void }) {
  const client = useQueryClient()
  const { organization } = useSession()
  const own = flag.rule?.organizations?.[organization]
  const form = useForm({
    initial: {
      // as: one of its values each, not only these.
      choice: choiceOf(flag.rule) as Choice,
      percentage: String(flag.rule?.percentage ?? 10),
      here: (own === undefined ? 'like-the-others' : own ? 'on' : 'off') as Here,
    },
    schema: v.object({
      choice: v.picklist(['default', 'on', 'off', 'share']),
      percentage: v.pipe(
        v.string(),
        v.transform(Number),
        v.integer(t('A whole number')),
        v.minValue(0, t('0 to 100')),
        v.maxValue(100, t('0 to 100')),
      ),
      here: v.picklist(['like-the-others', 'on', 'off']),
    }),
    submit: async ({ choice, percentage, here }) => {
      const organizations = { ...flag.rule?.organizations }
      delete organizations[organization]
      if (here !== 'like-the-others') organizations[organization] = here === 'on'
      const body: FlagRule = { organizations }
      if (choice === 'on' || choice === 'off') body.everyone = choice === 'on'
      if (choice === 'share') body.percentage = percentage
      const set = await callToSave(setFlag, { path: { name: flag.name }, body })
      await invalidate(client, listFlags)
      toast.done({
        title: set.enabled
          ? t('{name} is on here', { name: flag.name })
          : t('{name} is off here', { name: flag.name }),
      })
      onClose()
    },
  })
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title={t('Feature {name}', { name: flag.name })}
      description={flag.description}
    >
      <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
        <RadioGroup
          label={t('In general')}
          {...form.field('choice')}
          options={[
            { value: 'default', label: flag.default ? t('As shipped: on') : t('As shipped: off') },
            { value: 'on', label: t('On for everyone') },
            { value: 'off', label: t('Off for everyone') },
            {
              value: 'share',
              label: t('On for a share of organizations'),
              hint: t('The same ones stay in it as it grows.'),
            },
          ]}
        />
        {form.values.choice === 'share' && (
          <NumberInput {...form.field('percentage')} label={t('Share in per cent')} min={0} max={100} />
        )}
        <RadioGroup
          label={t('For organization {name}', { name: organization })}
          {...form.field('here')}
          options={[
            { value: 'like-the-others', label: t('Like the others') },
            { value: 'on', label: t('On') },
            { value: 'off', label: t('Off') },
          ]}
        />
        <ErrorNote error={form.submitError} />
        <div className="flex flex-wrap justify-end gap-2">
          <CancelButton />
          <Button type="submit" variant="primary" busy={form.submitting}>
            {t('Save')}
          </Button>
        </div>
      </form>
    </Dialog>
  )
}
