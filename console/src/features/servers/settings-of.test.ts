import { expect, test } from 'vitest'
import type { RevisionSpec } from '@/api/generated/types'
import type { InputField, Offer } from './public/inputs'
import { settingsBody } from './public/settings'
import { settingsOf } from './settings-of'

const field = (key: string, secret = false): InputField => ({
  key,
  origin: 'environment',
  description: '',
  required: true,
  secret,
  format: 'string',
  choices: [],
  initial: '',
  placeholder: '',
  repeated: false,
  template: undefined,
})

const fields = [field('TZ'), field('TOKEN', true)]

const offer: Offer = {
  kind: 'npm',
  package: { environmentVariables: [{ name: 'TZ' }, { name: 'TOKEN' }, { name: 'FIXED', value: '1' }] },
  runs: true,
  why: '',
}

const spec = {
  runtime: {
    kind: 'npm',
    identifier: '@example/time',
    environment: {
      TZ: [{ text: 'UTC' }],
      TOKEN: [{ credential: 'c1' }],
      FIXED: [{ text: '1' }],
      LOG_LEVEL: [{ text: 'debug' }],
      EMPTY: [],
    },
  },
  limits: { memory_bytes: 512 * 1024 * 1024, processes: 64, cpu_millis: 0 },
  paths: [{ path: '/srv/data' }],
  strategy: 'recreate',
  start_timeout_ms: 90_000,
  call_timeout_ms: 500,
} as unknown as RevisionSpec // as: the document of the API leaves a package's values open

const context = { fields, remote: false, existing: true }

test('shows what the revision says', () => {
  const values = settingsOf(spec, fields, offer, (id) => (id === 'c1' ? 'my-token' : undefined))
  expect(values.inputs).toEqual({ TZ: 'UTC', TOKEN: '' })
  expect(values.bound).toEqual({ TOKEN: 'my-token' })
  expect(values.environment.map(({ name, value }) => [name, value])).toEqual([
    ['LOG_LEVEL', 'debug'],
    ['EMPTY', ''],
  ])
  expect(values).toMatchObject({ memory: '512', processes: '64', cpu: '', strategy: 'recreate' })
  expect(values).toMatchObject({ startTimeout: '90', callTimeout: '0.5' })
  expect(values.paths).toMatchObject([{ path: '/srv/data', writable: false }])
})

test('asks for no change when nothing was changed', () => {
  const values = settingsOf(spec, fields, offer, () => 'my-token')
  expect(settingsBody(values, context, values)).toEqual({ inputs: {}, credentials: {}, environment: {} })
})

test('asks for what was changed alone', () => {
  const before = settingsOf(spec, fields, offer, () => 'my-token')
  const after = { ...before, inputs: { ...before.inputs, TZ: 'Europe/Oslo' }, memory: '256' }
  expect(settingsBody(after, context, before)).toMatchObject({
    inputs: { TZ: 'Europe/Oslo' },
    limits: { memory_bytes: 256 * 1024 * 1024, processes: 64, cpu_millis: 0 },
  })
})
