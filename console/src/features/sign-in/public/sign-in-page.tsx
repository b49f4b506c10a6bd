import { useQueryClient } from '@tanstack/react-query'
import { useRouter } from '@tanstack/react-router'
import * as v from 'valibot'
import { call } from '@/api/client'
import { createSession } from '@/api/generated/identity'
import type { Session } from '@/api/generated/types'
import { sessionQuery } from '@/api/session'
import { useForm } from '@/lib/form'
import { setPasswordUnsure, unsureText } from '@/lib/password'
import { safeReturnPath } from '@/lib/safe-url'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { ErrorNote } from '@/ui/error-state'
import { PasswordInput, TextInput } from '@/ui/inputs'
import { tellOthers, useSignedInElsewhere } from './signed-in-elsewhere'

/** Sign-in with e-mail address and password. */
export function SignInPage({ returnPath, ended }: { returnPath: string | undefined; ended: boolean }) {
  const router = useRouter()
  const queryClient = useQueryClient()
  const goOn = (session: Session) => {
    setPasswordUnsure(false)
    queryClient.clear()
    queryClient.setQueryData(sessionQuery.queryKey, session)
    router.history.push(safeReturnPath(returnPath))
  }
  // Whoever came here without a session that ended may want to be somebody else.
  useSignedInElsewhere((session) => session !== undefined && goOn(session), ended)
  const form = useForm({
    initial: { email: '', password: '' },
    schema: v.object({
      email: v.pipe(v.string(), v.trim(), v.minLength(1, t('Enter your e-mail address'))),
      password: v.pipe(v.string(), v.minLength(1, t('Enter your password'))),
    }),
    submit: async (body) => {
      const session = await call(createSession, { body })
      goOn(session)
      tellOthers('signed in')
    },
  })
  return (
    <main className="flex min-h-dvh flex-col items-center px-4 pt-[16vh] pb-8">
      <div className="w-full max-w-[22rem]">
        <svg viewBox="0 0 32 32" aria-hidden="true" className="mb-5 size-9">
          <rect width="32" height="32" rx="7" fill="var(--accent-fill)" />
          <path d="M7 10.5h18M16 10.5V25" stroke="var(--on-accent)" strokeWidth="3.2" strokeLinecap="round" />
          <path
            d="M9.5 18.5v4M22.5 18.5v4"
            stroke="var(--on-accent)"
            strokeWidth="3.2"
            strokeLinecap="round"
            opacity="0.65"
          />
        </svg>
        <h1 tabIndex={-1} className="text-xl font-semibold tracking-[-0.01em]">
          {t('Sign in to Toolyard')}
        </h1>
        <p className="mt-1 mb-6 text-muted">
          {ended
            ? `${t('Your session ended. Sign in to go on where you were.')} ${unsureText()}`
            : t(
                'The first account is admin@localhost; the first start shows its password in its terminal, or names the file it is in. Either may have been configured instead.',
              )}
        </p>
        <form onSubmit={form.onSubmit} noValidate className="flex flex-col gap-4">
          <TextInput
            {...form.field('email')}
            label={t('Email')}
            type="email"
            autoComplete="username"
            required
            autoFocus
          />
          <PasswordInput
            {...form.field('password')}
            label={t('Password')}
            autoComplete="current-password"
            required
          />
          <ErrorNote error={form.submitError} />
          <Button type="submit" variant="primary" busy={form.submitting} className="mt-1 w-full">
            {t('Sign in')}
          </Button>
        </form>
      </div>
    </main>
  )
}
