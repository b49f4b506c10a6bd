import { useQueryClient } from '@tanstack/react-query'
import * as v from 'valibot'
import { call, isProblem } from '@/api/client'
import { createSession } from '@/api/generated/identity'
import type { Session } from '@/api/generated/types'
import { sessionQuery, useSession } from '@/api/session'
import { useForm } from '@/lib/form'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { Dialog } from '@/ui/dialog'
import { ErrorNote } from '@/ui/error-state'
import { PasswordInput } from '@/ui/inputs'
import { LiveRegion } from '@/ui/live-region'
import { tellSignedIn, useSignedInElsewhere } from './signed-in-elsewhere'

/** The same person signs in again over the page that they were on; nothing typed there is lost. */
export function SignInAgain({
  onAnswer,
  onSomebodyElse,
}: {
  onAnswer: (signedIn: boolean) => void
  /** Leaves the page, for the page of sign-in. */
  onSomebodyElse: () => void
}) {
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onAnswer(false)}
      title={t('Your session ended')}
      description={t('Sign in to go on where you are. What you typed is still there.')}
      size="small"
    >
      <Question onSignedIn={() => onAnswer(true)} onSomebodyElse={onSomebodyElse} />
    </Dialog>
  )
}

function Question({ onSignedIn, onSomebodyElse }: { onSignedIn: () => void; onSomebodyElse: () => void }) {
  const client = useQueryClient()
  const { display, organization } = useSession()
  const goOn = (session: Session) => {
    client.setQueryData(sessionQuery.queryKey, session)
    onSignedIn()
    // What was asked for meanwhile was refused.
    void client.invalidateQueries()
  }
  useSignedInElsewhere((session) => {
    // What waits here was meant by this person, in this organization.
    if (session.display === display && session.organization === organization) goOn(session)
  })
  const form = useForm({
    initial: { password: '' },
    schema: v.object({ password: v.pipe(v.string(), v.minLength(1, t('Enter your password'))) }),
    submit: async ({ password }) => {
      // What waits for the answer was meant for this organization; the address may be a member of others.
      const body = { email: display, password, organization }
      const session = await call(createSession, { body }).catch((error: unknown) => {
        // At its field, where the person types it again.
        if (isProblem(error) && error.code === 'invalid_credentials')
          throw { errors: [{ field: 'password', message: t('The password is wrong') }] }
        throw error
      })
      goOn(session)
      tellSignedIn()
    },
  })
  return (
    <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
      <input type="email" autoComplete="username" value={display} readOnly hidden />
      <PasswordInput
        {...form.field('password')}
        label={t('Password of {email}', { email: display })}
        autoComplete="current-password"
        required
      />
      {/* The focus may be in the field already, and nobody who listens would hear of it. */}
      <LiveRegion urgent>{form.errorAt('password') ?? ''}</LiveRegion>
      <ErrorNote error={form.submitError} />
      <div className="flex flex-wrap justify-end gap-2">
        <Button onClick={onSomebodyElse}>{t('Leave, and sign in as somebody else')}</Button>
        <Button type="submit" variant="primary" busy={form.submitting}>
          {t('Sign in')}
        </Button>
      </div>
    </form>
  )
}
