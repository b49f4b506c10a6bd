import { useQuery } from '@tanstack/react-query'
import { useDeferredValue } from 'react'
import { listToolsets } from '@/api/generated/toolsets'
import { q } from '@/api/queries'
import { may, useSession } from '@/api/session'
import { nameProblem } from '@/lib/name'
import { t } from '@/lib/t'
import { TextInput } from '@/ui/inputs'
import { nearNamesQuery } from './public/near-names'

/** The name of a new server: checked as it is typed, also whether it is taken. Servers and toolsets share their names. */
export function NameField({
  field,
}: {
  field: {
    id: string
    name: string
    value: string
    onValueChange: (value: string) => void
    error: string | undefined
  }
}) {
  const session = useSession()
  const name = useDeferredValue(field.value)
  const valid = nameProblem(name) === undefined
  const servers = useQuery({ ...nearNamesQuery(name), enabled: valid && may(session, 'server:read') })
  const toolsets = useQuery({
    ...q(listToolsets, { query: { limit: 500 } }),
    enabled: may(session, 'toolset:read'),
  })
  const taken = servers.data?.items.some((one) => one.name === name)
    ? t('There is a server with this name')
    : toolsets.data?.items.some((one) => one.name === name)
      ? t('There is a toolset with this name')
      : undefined
  return (
    <TextInput
      {...field}
      error={field.error ?? (name === field.value ? taken : undefined)}
      label={t('Name')}
      hint={t('It is part of the address that clients connect to, and cannot be changed later.')}
      required
      autoComplete="off"
      mono
    />
  )
}
