import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import * as v from 'valibot'
import { call, isProblem } from '@/api/client'
import { createSession } from '@/api/generated/identity'
import { sessionQuery, useSession } from '@/api/session'
import { useForm } from '@/lib/form'
import { setPasswordUnsure, unsureText } from '@/lib/password'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { sendingText } from '@/ui/close-window'
import { Dialog } from '@/ui/dialog'
import { ErrorNote } from '@/ui/error-state'
import { PasswordInput } from '@/ui/inputs'
import { LiveRegion } from '@/ui/live-region'
import { tellOthers, useSignedInElsewhere } from './signed-in-elsewhere'

/** The same person signs in again over the page that they were on; nothing typed there is lost. */
export function SignInAgain({
  onAnswer,
  onLeave,
}: {
  onAnswer: (signedIn: boolean) => void
  /** Leaves the page, for the page of sign-in: whoever is signed in by now goes on from there. */
  onLeave: () => void
}) {
  const { account } = useSession()
  const [other, setOther] = useState<string>()
  useSignedInElsewhere((session) => setOther(session?.account === account ? undefined : session?.display))
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onAnswer(false)}
      title={other === undefined ? t('Your session ended') : t('Somebody else signed in')}
      description={
        other === undefined
          ? `${t('Sign in to go on where you are. What you typed is still there.')} ${unsureText()}`
          : t('{other} signed in in another tab of this browser. What you typed is not sent as {other}.', {
              other,
            })
      }
      size="small"
      disposable
    >
      <Question other={other} onSignedIn={() => onAnswer(true)} onLeave={onLeave} />
    </Dialog>
  )
}

function Question({
  other,
  onSignedIn,
  onLeave,
}: {
  /** Who is signed in instead. */
  other: string | undefined
  onSignedIn: () => void
  onLeave: () => void
}) {
  const client = useQueryClient()
  const { display, organization } = useSession()
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
      setPasswordUnsure(false)
      client.setQueryData(sessionQuery.queryKey, session)
      onSignedIn()
      tellOthers('signed in')
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
        <Button disabledReason={form.submitting ? sendingText() : undefined} onClick={onLeave}>
          {other === undefined ? t('Leave, and sign in as somebody else') : t('Go on as {other}', { other })}
        </Button>
        <Button type="submit" variant="primary" busy={form.submitting}>
          {other === undefined ? t('Sign in') : t('Sign in as {display}', { display })}
        </Button>
      </div>
    </form>
  )
}
