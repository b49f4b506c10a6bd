// @vitest-environment happy-dom
import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { act, type ReactNode } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, expect, test } from 'vitest'
import { listCredentials } from '@/api/generated/credentials'
import { q } from '@/api/queries'
import { sessionQuery } from '@/api/session'
import { useForm } from '@/lib/form'
import { HeaderFields } from './public/header-fields'
import type { HeaderRow } from './public/headers'
import { newSettings, type SettingsValues, schemaOf } from './public/settings'
import { Variables, Volumes } from './settings-lists'

let root: Root | undefined

beforeAll(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
})

afterEach(() => {
  act(() => root?.unmount())
  document.body.replaceChildren()
})

function show(children: ReactNode): void {
  const client = new QueryClient({ defaultOptions: { queries: { staleTime: Number.POSITIVE_INFINITY } } })
  client.setQueryData(sessionQuery.queryKey, {
    kind: 'user',
    display: 'a@example.test',
    organization: 'default',
    role: 'owner',
    actions: ['credential:read'],
    first_run: false,
  })
  const credentials = q(listCredentials, { query: { limit: 500 } })
  client.setQueryData(credentials.queryKey, { items: [{ name: 'mine' }] } as never) // as: only the name is looked at
  const place = document.body.appendChild(document.createElement('div'))
  root = createRoot(place)
  act(() => root?.render(<QueryClientProvider client={client}>{children}</QueryClientProvider>))
}

function press(text: string): void {
  const button = [...document.querySelectorAll('button')].find((one) => one.textContent === text)
  if (button === undefined) throw new Error(`there is no button ${text}`)
  button.focus()
  act(() => button.click())
}

function focused(): string {
  const { activeElement } = document
  return document.querySelector(`label[for="${activeElement?.id}"]`)?.textContent ?? ''
}

function Settings() {
  const form = useForm<SettingsValues, SettingsValues>({
    initial: newSettings([]),
    schema: schemaOf<SettingsValues>(() => []),
    submit: () => undefined,
  })
  return (
    <>
      <Variables form={form} />
      <Volumes form={form} />
    </>
  )
}

function Headers() {
  const form = useForm<{ headers: HeaderRow[] }, { headers: HeaderRow[] }>({
    initial: { headers: [] },
    schema: schemaOf<{ headers: HeaderRow[] }>(() => []),
    submit: () => undefined,
  })
  return <HeaderFields form={form} />
}

test('a row that is added has the focus, so that its name can be typed at once', () => {
  show(<Settings />)
  for (const [add, prefix] of [
    ['Add a variable', 'variable-'],
    ['Add a volume', 'volume-name-'],
  ] as const) {
    press(add)
    expect(focused()).toBe('Name')
    expect(document.activeElement?.id.startsWith(prefix)).toBe(true)
  }
})

test('so has a header, also one that a credential gives', () => {
  show(<Headers />)
  const seen = new Set<string | undefined>()
  for (const add of ['Add a header', 'Add a header from a credential', 'Add a header']) {
    press(add)
    expect(focused()).toBe('Name')
    seen.add(document.activeElement?.id)
  }
  expect(seen.size).toBe(3)
})
