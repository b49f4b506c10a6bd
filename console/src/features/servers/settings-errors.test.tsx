// @vitest-environment happy-dom
import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { act, useState } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, expect, test } from 'vitest'
import type { Limits, ServerSettings } from '@/api/generated/types'
import { sessionQuery } from '@/api/session'
import { useForm } from '@/lib/form'
import { ErrorNote } from '@/ui/error-state'
import type { InputField } from './public/inputs'
import { newSettings, type SettingsValues, schemaOf, settingsFieldOf } from './public/settings'
import { AdvancedFields, InputFields } from './public/settings-form'

const INPUT: InputField = {
  key: 'LEVEL',
  origin: 'environment',
  description: '',
  required: false,
  secret: false,
  format: 'string',
  choices: [],
  initial: '',
  suggestion: '',
  placeholder: '',
  repeated: false,
  template: undefined,
}

/** For every setting that the API takes: where it may say that something is wrong, and the control where that stands. */
const POINTERS: Record<keyof ServerSettings, Record<string, string | undefined>> = {
  inputs: { 'inputs.LEVEL': 'LEVEL', 'inputs.OTHER': undefined, inputs: undefined },
  credentials: {
    'credentials.LEVEL': 'LEVEL',
    'credentials.TOKEN': 'Name',
    'credentials.registry': 'Credential that pulls the image',
    'credentials.OTHER': undefined,
  },
  environment: {
    environment: 'More environment variables',
    'environment.TOKEN': 'Name',
    'environment.LEVEL': 'LEVEL',
    'environment.OTHER': undefined,
  },
  unset_environment: { unset_environment: undefined },
  arguments: {
    arguments: 'More arguments',
    'arguments.3': 'More arguments',
    'arguments[3]': 'More arguments',
  },
  limits: {
    limits: 'Memory',
    'limits.memory_bytes': 'Memory',
    'limits.processes': 'Processes',
    'limits.cpu_millis': 'Processor',
    'limits.disk_bytes': 'Disk',
  } satisfies Record<'limits' | `limits.${keyof Limits}`, string>,
  paths: { paths: 'Paths of the host', 'paths[1].path': 'Paths of the host' },
  volumes: { volumes: 'Volumes', 'volumes[0].name': 'Volumes' },
  privileges: { privileges: 'Make new namespaces', 'privileges[0]': 'Make new namespaces' },
  egress: {
    egress: 'Whom it may reach',
    'egress.policy': 'Whom it may reach',
    'egress.hosts': 'Hosts',
    'egress.hosts[2]': 'Hosts',
  },
  strategy: { strategy: 'How a new one replaces the old' },
  instancing: {
    instancing: 'Who shares one',
    'instancing.mode': 'Who shares one',
    'instancing.max_copies': 'Copies at most',
    'instancing.idle_stop_ms': 'Stop an idle copy after',
    'instancing.warm': 'Copies started ahead',
  },
  replicas: { replicas: 'How many serve' },
  observe_seconds: { observe_seconds: 'To observe a new one' },
  restart_at: { restart_at: 'Restart it every day at' },
  update_window: { update_window: 'Changes only at' },
  probe_call: {
    probe_call: 'Tool that must answer',
    'probe_call.tool': 'Tool that must answer',
    'probe_call.arguments': 'Its arguments',
  },
  start_timeout_ms: { start_timeout_ms: 'To start' },
  call_timeout_ms: { call_timeout_ms: 'For one call' },
  rollout_timeout_ms: { rollout_timeout_ms: 'Time for a rollout' },
}

let root: Root | undefined
let refused = ''

beforeAll(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
})

afterEach(() => {
  act(() => root?.unmount())
  document.body.replaceChildren()
})

function Settings() {
  const [open, setOpen] = useState(false)
  const form = useForm<SettingsValues, SettingsValues>({
    initial: {
      ...newSettings([INPUT]),
      environment: [{ id: 'row', name: 'TOKEN', value: '', credential: 'mine' }],
      egress: 'hosts',
      instancing: 'per_user',
      probeTool: 'now',
    },
    schema: schemaOf<SettingsValues>(() => []),
    fieldOf: (field, values) => settingsFieldOf(values)(field),
    submit: () =>
      Promise.reject({ title: 'Refused', errors: [{ field: refused, message: 'is wrong somehow' }] }),
  })
  return (
    <form onSubmit={form.onSubmit} noValidate>
      <InputFields form={form} fields={[INPUT]} pathProblem={undefined} />
      <details open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>Advanced</summary>
        <AdvancedFields form={form} kind="oci" />
      </details>
      <ErrorNote error={form.submitError} />
      <button type="submit">Save</button>
    </form>
  )
}

function show(): HTMLDetailsElement {
  const client = new QueryClient({ defaultOptions: { queries: { staleTime: Number.POSITIVE_INFINITY } } })
  client.setQueryData(sessionQuery.queryKey, {
    kind: 'user',
    display: 'a@example.test',
    organization: 'default',
    role: 'owner',
    actions: ['server:grant_privilege'],
    first_run: false,
  })
  const place = document.body.appendChild(document.createElement('div'))
  root = createRoot(place)
  act(() =>
    root?.render(
      <QueryClientProvider client={client}>
        <Settings />
      </QueryClientProvider>,
    ),
  )
  const details = document.querySelector('details')
  if (details === null) throw new Error('there is nothing to open')
  return details
}

async function send(): Promise<void> {
  const button = document.querySelector<HTMLButtonElement>('button[type="submit"]')
  button?.focus()
  await act(async () => button?.click())
}

/** What stands over the control that has the focus. */
function focused(): string | undefined {
  const active = document.activeElement
  const label = document.querySelector(`label[for="${active?.id}"]`)
  const group = active?.closest('fieldset')?.querySelector('legend')
  const own = active?.matches('input[type="radio"], [data-invalid]') ? group : (label ?? group)
  return own?.textContent ?? undefined
}

for (const [pointer, label] of Object.values(POINTERS).flatMap((one) => Object.entries(one))) {
  const where = label === undefined ? 'above the buttons' : `at “${label}”`
  test(`what is wrong with \`${pointer}\` is said ${where}, and the focus goes there`, async () => {
    refused = pointer
    const details = show()
    await send()
    if (label === undefined) {
      expect(document.querySelector('[role="alert"]')?.textContent).toContain('Refused')
      expect(document.activeElement?.closest('[role="alert"]')).not.toBeNull()
      return
    }
    expect(document.querySelector('[role="alert"]')).toBeNull()
    expect(document.body.textContent).toContain('It is wrong somehow')
    expect(focused()).toBe(label)
    expect(details.open || label === 'LEVEL').toBe(true)
  })
}

test('what hides an error is opened each time, also after somebody closed it', async () => {
  refused = 'limits.disk_bytes'
  const details = show()
  expect(details.open).toBe(false)
  for (let round = 0; round < 3; round += 1) {
    await send()
    expect(details.open).toBe(true)
    expect(focused()).toBe('Disk')
    await act(async () => {
      details.open = false
    })
    expect(details.open).toBe(false)
  }
})

test('an error at a field that is not on the page is said above the buttons', async () => {
  refused = 'restart_at'
  show()
  for (const field of document.querySelectorAll('[name="restartAt"]')) field.removeAttribute('aria-invalid')
  const form = document.querySelector('form')
  if (form === null) throw new Error('there is no form')
  // As on a form that does not show this setting: nothing is marked.
  form.querySelector = () => null
  await send()
  expect(document.querySelector('[role="alert"]')?.textContent).toContain('restartAt: It is wrong somehow')
})
