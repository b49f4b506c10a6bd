import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { pageTitle } from '@/app/title'
import { SignInPage } from '@/features/sign-in/public/sign-in-page'
import { t } from '@/lib/t'

const Search = v.object({
  /** Where to go on after sign-in. */
  return: v.optional(v.fallback(v.string(), '/')),
  /** Whether a session ended by itself. */
  ended: v.optional(v.fallback(v.boolean(), false)),
})

export const Route = createFileRoute('/sign-in')({
  validateSearch: Search,
  head: () => pageTitle(t('Sign in')),
  component: SignIn,
})

function SignIn() {
  const search = Route.useSearch()
  return <SignInPage returnPath={search.return} ended={search.ended ?? false} />
}
