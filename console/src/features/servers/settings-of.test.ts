import { expect, test } from 'vitest'
import type { CurrentSettings } from '@/api/generated/types'
import { declaredInputs } from './public/inputs'
import { settingsBody } from './public/settings'
import { offerOf, settingsOf } from './settings-of'

const settings: CurrentSettings = {
  revision: 3,
  etag: 'abc',
  entry: { name: 'io.example/time', version: '1.0.0' },
  kind: 'npm',
  package: {
    registryType: 'npm',
    identifier: '@example/time',
    environmentVariables: [
      { name: 'TZ', isRequired: true },
      { name: 'TOKEN', isRequired: true, isSecret: true },
    ],
    packageArguments: [{ type: 'named', name: '--format' }],
  },
  inputs: { TZ: 'UTC', '--format': 'long' },
  environment: { LOG_LEVEL: 'debug', EMPTY: '' },
  credentials: {
    TOKEN: { id: 'c1', name: 'my-token' },
    OTHER: { id: 'c2' },
  },
  arguments: ['--verbose', '--name', 'a b'],
  limits: { memory_bytes: 512 * 1024 * 1024, processes: 64, cpu_millis: 0 },
  paths: [{ path: '/srv/data' }],
  volumes: [],
  egress: { policy: 'hosts', hosts: ['a.example', 'b.example:1'] },
  strategy: 'recreate',
  instancing: { mode: 'per_user', max_copies: 4, idle_stop_ms: 90_000, warm: 1 },
  start_timeout_ms: 90_000,
  call_timeout_ms: 500,
  probe_call: { tool: 'now', arguments: { zone: 'UTC' } },
  rollout_timeout_ms: 120_000,
  replicas: 2,
  observe_seconds: 30,
  restart_at: '03:30',
  update_window: 'sat,sun 02:00-05:00',
}
const fields = declaredInputs(offerOf(settings))
const context = { fields, kind: 'npm' }

test('shows everything that was set', () => {
  const values = settingsOf(settings, fields)
  expect(values.inputs).toEqual({ TZ: 'UTC', TOKEN: '', '--format': 'long' })
  expect(values.bound).toEqual({ TOKEN: 'my-token' })
  expect(values.environment.map(({ name, value, credential }) => [name, value, credential])).toEqual([
    ['LOG_LEVEL', 'debug', undefined],
    ['EMPTY', '', undefined],
    ['OTHER', '', 'c2'],
  ])
  expect(values).toMatchObject({
    arguments: '--verbose\n--name\na b',
    memory: '512',
    processes: '64',
    cpu: '',
    strategy: 'recreate',
    egress: 'hosts',
    hosts: 'a.example\nb.example:1',
    instancing: 'per_user',
    maxCopies: '4',
    idleStop: '90',
    warm: '1',
    replicas: '2',
    observe: '30',
    restartAt: '03:30',
    updateWindow: 'sat,sun 02:00-05:00',
    startTimeout: '90',
    callTimeout: '0.5',
    rolloutTimeout: '120',
    probeTool: 'now',
  })
  expect(values.paths).toMatchObject([{ path: '/srv/data', writable: false }])
})

test('asks for no change when nothing was changed', () => {
  const values = settingsOf(settings, fields)
  expect(settingsBody(values, context, values)).toEqual({ inputs: {}, credentials: {}, environment: {} })
})

test('asks for what was changed alone', () => {
  const before = settingsOf(settings, fields)
  const after = {
    ...before,
    inputs: { ...before.inputs, TZ: 'Europe/Oslo' },
    memory: '256',
    replicas: '3',
    newNamespaces: true,
  }
  expect(settingsBody(after, context, before)).toEqual({
    inputs: { TZ: 'Europe/Oslo' },
    credentials: {},
    environment: {},
    replicas: 3,
    privileges: ['new_namespaces'],
    limits: {
      memory_bytes: 256 * 1024 * 1024,
      processes: 64,
      cpu_millis: 0,
      disk_bytes: 1024 * 1024 * 1024,
    },
  })
})
