import type { Strategy } from '@/api/generated/types'
import type { Form } from '@/lib/form'
import { t } from '@/lib/t'
import { Card } from '@/ui/card'
import { NumberInput, Textarea } from '@/ui/inputs'
import { Checkbox } from '@/ui/toggles'
import type { ManagedChange } from './change'

/** How the change that is being typed is made. */
export function ChangeFields<Values extends ManagedChange>({
  form,
  strategy,
  window,
}: {
  form: Form<Values>
  strategy: Strategy
  /** When changes may be made; empty for at any time. */
  window: string
}) {
  const { values } = form
  const set = (changes: Partial<ManagedChange>, ...paths: string[]) =>
    // as: the form has at least what says how a change is made.
    form.set(changes as Partial<Values>, paths)
  const text = (name: 'weight' | 'clients' | 'promoteAfter') => ({
    id: `change-${name}`,
    name,
    value: values[name],
    onValueChange: (value: string) => set({ [name]: value }, name),
    error: form.errorAt(name),
  })
  return (
    <Card title={t('This change')}>
      <div className="flex flex-col gap-4">
        {window !== '' && (
          <Checkbox
            label={t('Begin now, also outside of {window} UTC', { window })}
            value={values.now}
            onValueChange={(now) => set({ now }, 'now')}
          />
        )}
        <Checkbox
          label={t('It may list fewer tools')}
          hint={t('Otherwise it serves only when it has every tool of the one that serves now.')}
          value={values.acceptLost}
          onValueChange={(acceptLost) => set({ acceptLost }, 'acceptLost')}
        />
        <Checkbox
          label={t('Try it on a part of the calls first')}
          hint={t('The old one serves the others until you promote the new one, or cancel.')}
          value={values.canary}
          onValueChange={(canary) => set({ canary }, 'canary', 'weight', 'clients', 'promoteAfter')}
          error={form.errorAt('canary')}
          disabledReason={
            strategy === 'recreate' ? t('With “Stop the old one first” two never run at once.') : undefined
          }
        />
        {values.canary && strategy !== 'recreate' && (
          <div className="grid items-start gap-4 sm:grid-cols-2">
            <NumberInput {...text('weight')} label={t('Share of the calls')} unit="%" required />
            <NumberInput
              {...text('promoteAfter')}
              label={t('Promote it by itself after')}
              unit="s"
              hint={t('Without a failure. Empty: only when somebody says so.')}
              required={false}
            />
            <Textarea
              {...text('clients')}
              label={t('All calls of')}
              hint={t('Names of API keys, one a line.')}
              required={false}
              mono
            />
          </div>
        )}
      </div>
    </Card>
  )
}
