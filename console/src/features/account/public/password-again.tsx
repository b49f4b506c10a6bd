import { useQueryClient } from '@tanstack/react-query'
import { type ReactNode, useState } from 'react'
import * as v from 'valibot'
import { call, isProblem } from '@/api/client'
import { reauthenticate } from '@/api/generated/identity'
import { sessionQuery, useSession } from '@/api/session'
import { useForm } from '@/lib/form'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { CancelButton, Dialog } from '@/ui/dialog'
import { ErrorNote } from '@/ui/error-state'
import { PasswordInput } from '@/ui/inputs'
import { LiveRegion } from '@/ui/live-region'

/** What {@link usePasswordAgain} gives. */
export interface PasswordAgain {
  /** Does something; where it needs the password again, asks for it and then does it once more. */
  run: <Done>(work: () => Promise<Done>) => Promise<Done>
  /** The question. Put it beside the form, inside of the same window. */
  question: ReactNode
}

/** The question was closed: nothing failed, and nothing happened. */
class NotGiven extends Error {
  override name = ''
  readonly title = t('Nothing was done')
  readonly detail = t('it needs your password once more')
}

/** What makes new power, such as a key or a member, needs the password to have been given a short while ago. */
export function usePasswordAgain(): PasswordAgain {
  const [asked, setAsked] = useState<{ answer: (given: boolean) => void }>()
  const ask = () => new Promise<boolean>((resolve) => setAsked({ answer: resolve }))
  const close = (given: boolean) => {
    asked?.answer(given)
    setAsked(undefined)
  }
  return {
    run: async (work) => {
      try {
        return await work()
      } catch (error) {
        if (!isProblem(error) || error.code !== 'reauthentication_required') throw error
        if (!(await ask())) throw new NotGiven()
        return await work()
      }
    },
    question: (
      <Dialog
        open={asked !== undefined}
        onOpenChange={(open) => !open && close(false)}
        title={t('Your password again')}
        description={t('You signed in a while ago. What gives somebody access needs the password once more.')}
        size="small"
        disposable
      >
        <Question onGiven={() => close(true)} />
      </Dialog>
    ),
  }
}

function Question({ onGiven }: { onGiven: () => void }) {
  const client = useQueryClient()
  const session = useSession()
  const form = useForm({
    initial: { password: '' },
    schema: v.object({ password: v.pipe(v.string(), v.minLength(1, t('Enter your password'))) }),
    submit: async (body) => {
      client.setQueryData(sessionQuery.queryKey, await call(reauthenticate, { body }))
      onGiven()
    },
  })
  return (
    <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
      <input type="email" autoComplete="username" value={session.display} readOnly hidden />
      <PasswordInput
        {...form.field('password')}
        label={t('Your password')}
        autoComplete="current-password"
        required
      />
      {/* The focus may be in the field already, and nobody who listens would hear of it. */}
      <LiveRegion urgent>{form.errorAt('password') ?? ''}</LiveRegion>
      <ErrorNote error={form.submitError} />
      <div className="flex flex-wrap justify-end gap-2">
        <CancelButton />
        <Button type="submit" variant="primary" busy={form.submitting}>
          {t('Go on')}
        </Button>
      </div>
    </form>
  )
}
