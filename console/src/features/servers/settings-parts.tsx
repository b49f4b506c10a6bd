import { useQuery } from '@tanstack/react-query'
import { KeyRound, type LucideIcon } from 'lucide-react'
import type { ReactNode } from 'react'
import { listCredentials } from '@/api/generated/credentials'
import { q } from '@/api/queries'
import { may, useSession } from '@/api/session'
import { focusAfter } from '@/lib/focus-after'
import type { Form } from '@/lib/form'
import type { SettingsValues } from './public/settings'

/** A form that has at least a server's settings. */
export type SettingsForm<Values extends SettingsValues> = Form<Values>

/** The names of the credentials that may be bound. */
export function useCredentialNames(): string[] {
  const session = useSession()
  const { data } = useQuery({
    ...q(listCredentials, { query: { limit: 500 } }),
    enabled: may(session, 'credential:read'),
  })
  return data?.items.map((one) => one.name) ?? []
}

/** Beside a field's label: another way to give its value. */
export function AsideButton({
  onClick,
  focus,
  icon: Icon = KeyRound,
  children,
}: {
  onClick: () => void
  /** The id of the control that it changes: it is used next, and this button may be gone. */
  focus: string
  icon?: LucideIcon
  children: ReactNode
}) {
  return (
    <button
      type="button"
      onClick={() => focusAfter(focus, onClick)}
      className="inline-flex min-h-6 items-center gap-1 rounded text-sm text-accent underline-offset-2 hover:underline"
    >
      <Icon aria-hidden="true" className="size-3.5" />
      {children}
    </button>
  )
}

/** Some settings that belong together, under a title. */
export function Group({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div className="border-t pt-5 first:border-t-0 first:pt-0">
      <fieldset className="min-w-0">
        <legend className="mb-3 font-semibold">{title}</legend>
        {children}
      </fieldset>
    </div>
  )
}
