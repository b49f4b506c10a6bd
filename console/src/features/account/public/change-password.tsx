import { useQueryClient } from '@tanstack/react-query'
import type { ReactNode } from 'react'
import * as v from 'valibot'
import { call, isProblem } from '@/api/client'
import { changePassword, createSession } from '@/api/generated/identity'
import { sessionQuery, useSession } from '@/api/session'
import { startLive, stopLive } from '@/app/live'
import { type FieldProps, useForm } from '@/lib/form'
import { passwordSchema, setPasswordUnsure, unsureText } from '@/lib/password'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { ErrorNote } from '@/ui/error-state'
import { PasswordInput, TextInput } from '@/ui/inputs'

const EMPTY = { current_password: '', new_password: '', again: '', revoke_keys: false }

/**
 * Whether a change may have happened although it failed: there was no answer, or the session was over when the browser
 * sent it again by itself, as browsers do where a connection was cut.
 */
function mayBeDone(error: unknown): boolean {
  return isProblem(error) && (error.status === 0 || error.status >= 500 || error.code === 'unauthenticated')
}

/** Nobody knows whether the password was changed. */
class AnswerLost extends Error {
  override name = ''
  readonly title = t('It is not known whether your password was changed')
  readonly detail = unsureText()

  constructor(options: ErrorOptions) {
    super('', options)
  }
}

/** Changes one's own password, and the e-mail address where the caller asks for it. */
export function ChangePassword({
  askEmail = false,
  submitLabel,
  keys,
  onDone,
}: {
  askEmail?: boolean
  submitLabel: string
  /** Asks whether the API keys of the member end too. */
  keys?: (field: FieldProps<boolean>) => ReactNode
  onDone: () => Promise<unknown> | undefined
}) {
  const client = useQueryClient()
  const session = useSession()
  const form = useForm({
    initial: { email: session.display, ...EMPTY },
    schema: v.pipe(
      v.object({
        email: v.pipe(
          v.string(),
          v.trim(),
          v.regex(/^[^\s@]+@[^\s@]+$/, t('An e-mail address such as name@example.org')),
        ),
        current_password: v.pipe(v.string(), v.minLength(1, t('Enter the password until now'))),
        new_password: passwordSchema,
        again: v.string(),
        revoke_keys: v.boolean(),
      }),
      v.forward(
        v.partialCheck(
          [['new_password'], ['again']],
          (values) => values.new_password === values.again,
          t('It is not the same as above'),
        ),
        ['again'],
      ),
    ),
    submit: async ({ email, current_password, new_password, revoke_keys }) => {
      const changed = askEmail && email !== session.display ? { email } : {}
      // Every session ends with the old password, this one too; the live stream would notice and lead to sign-in.
      stopLive()
      const signIn = async () => {
        const body = {
          email: askEmail ? email : session.display,
          password: new_password,
          organization: session.organization,
        }
        client.setQueryData(sessionQuery.queryKey, await call(createSession, { body }))
        setPasswordUnsure(false)
      }
      try {
        let lost: unknown
        await call(changePassword, {
          body: { current_password, new_password, revoke_keys, ...changed },
        }).catch((error: unknown) => {
          if (!mayBeDone(error)) throw error
          lost = error
          setPasswordUnsure(true)
        })
        // Where the answer was lost, that one can sign in with the new one is the answer.
        await signIn().catch((error: unknown) => {
          throw lost === undefined ? error : new AnswerLost({ cause: lost })
        })
      } finally {
        startLive()
      }
      form.reset({ email, ...EMPTY })
      await onDone()
    },
  })
  return (
    <form onSubmit={form.onSubmit} noValidate className="flex max-w-md flex-col gap-4">
      {askEmail ? (
        <TextInput
          {...form.field('email')}
          label={t('Email')}
          hint={t('You sign in with it.')}
          type="email"
          autoComplete="username"
          required
        />
      ) : (
        // Password managers want to know whose password it is.
        <input type="email" autoComplete="username" value={session.display} readOnly hidden />
      )}
      <PasswordInput
        {...form.field('current_password')}
        label={t('Password until now')}
        autoComplete="current-password"
        required
      />
      <PasswordInput
        {...form.field('new_password')}
        label={t('New password')}
        hint={t('At least 12 characters. A few unrelated words are easy to remember and hard to guess.')}
        autoComplete="new-password"
        required
      />
      <PasswordInput
        {...form.field('again')}
        label={t('New password again')}
        autoComplete="new-password"
        required
      />
      {keys?.(form.field('revoke_keys'))}
      <ErrorNote error={form.submitError} />
      <div>
        <Button type="submit" variant="primary" busy={form.submitting}>
          {submitLabel}
        </Button>
      </div>
    </form>
  )
}
