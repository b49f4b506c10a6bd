import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import type { InputField } from './inputs'
import {
  credentialRefusal,
  grantsOf,
  newSettings,
  type SettingsContext,
  schemaOf,
  settingsBody,
  settingsFieldOf,
  settingsIssues,
} from './settings'
import { isMore } from './spec-denied'

const field = (key: string, changes: Partial<InputField> = {}): InputField => ({
  key,
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
  ...changes,
})

const context = (...fields: InputField[]): SettingsContext => ({ fields, kind: 'npm' })

describe('new settings', () => {
  test('that nobody touched ask for nothing of the API', () => {
    const one = context(field('LEVEL', { initial: 'info' }))
    expect(settingsBody(newSettings(one.fields), one)).toEqual({
      inputs: {},
      credentials: {},
      environment: {},
    })
  })

  test('send what was given, secrets as inputs, and bound credentials by name', () => {
    const one = context(field('KEY', { secret: true }), field('OTHER', { secret: true }), field('LEVEL'))
    const values = {
      ...newSettings(one.fields),
      inputs: { KEY: 's3cret', OTHER: 'not sent', LEVEL: '' },
      bound: { OTHER: 'shared' },
      environment: [
        { id: '1', name: 'PLAIN', value: 'x', credential: undefined },
        { id: '2', name: 'TOKEN', value: '', credential: 'token' },
      ],
      arguments: '--a\n\nb c\n',
      memory: '512',
    }
    expect(settingsBody(values, one)).toEqual({
      inputs: { KEY: 's3cret' },
      credentials: { OTHER: 'shared', TOKEN: 'token' },
      environment: { PLAIN: 'x' },
      arguments: ['--a', 'b c'],
      limits: { memory_bytes: 536_870_912, processes: 256, cpu_millis: 0, disk_bytes: 1_073_741_824 },
    })
  })

  test('of a remote server have no environment, arguments, paths or limits', () => {
    const remote = { ...context(), kind: 'remote' }
    const values = { ...newSettings([]), arguments: '--a', memory: '1', callTimeout: '1.5' }
    expect(settingsIssues(values, remote)).toEqual([])
    expect(settingsBody(values, remote)).toEqual({ inputs: {}, credentials: {}, call_timeout_ms: 1500 })
  })
})

describe('changed settings', () => {
  test('send only what differs, and take variables away', () => {
    const one = context(field('LEVEL'))
    const before = {
      ...newSettings(one.fields),
      environment: [
        { id: '1', name: 'GONE', value: 'x', credential: undefined },
        { id: '2', name: 'SAME', value: 'y', credential: undefined },
      ],
    }
    const values = { ...before, environment: before.environment.slice(1), strategy: 'recreate' as const }
    expect(settingsBody(values, one, before)).toEqual({
      inputs: {},
      credentials: {},
      environment: {},
      unset_environment: ['GONE'],
      strategy: 'recreate',
    })
  })

  test('take inputs away that are empty now, and the credential that stood for one', () => {
    const one = context(field('LEVEL'), field('KEY', { secret: true }))
    const before = { ...newSettings(one.fields), inputs: { LEVEL: 'info', KEY: '' }, bound: { KEY: 'a-key' } }
    const values = { ...before, inputs: { LEVEL: '', KEY: '' }, bound: {} }
    expect(settingsBody(values, one, before)).toMatchObject({ unset_environment: ['LEVEL', 'KEY'] })
  })

  test('have volumes that go with one instance which makes room for the next', () => {
    const one = context()
    const before = newSettings([])
    const row = { id: '1', name: 'data', path: '/data' }
    const values = {
      ...before,
      strategy: 'recreate' as const,
      volumes: [row, { id: '2', name: '', path: '' }],
    }
    expect(settingsIssues(values, one)).toEqual([])
    const body = settingsBody(values, one, before)
    expect(body).toMatchObject({ strategy: 'recreate', volumes: [{ name: 'data', path: '/data' }] })
    expect(settingsBody({ ...values, volumes: [] }, one, values)).toMatchObject({ volumes: [] })
    const wrong = { ...values, strategy: 'surge' as const, replicas: '2', instancing: 'per_user' as const }
    expect(settingsIssues(wrong, one).map(({ path }) => path)).toEqual([
      ['replicas'],
      ['instancing'],
      ['strategy'],
    ])
    for (const path of ['data', '/', '/data/', '/tmp/x', '/a/../b', '/a:b', ''])
      expect(settingsIssues({ ...values, volumes: [{ ...row, path }] }, one)).toMatchObject([
        { path: ['volumes', '1'] },
      ])
    const again = { ...row, id: '3' }
    expect(settingsIssues({ ...values, volumes: [row, again] }, one)).toMatchObject([
      { path: ['volumes', '3'] },
    ])
  })

  test('have no limit on disk when that is zero', () => {
    const one = context()
    const before = newSettings([])
    const values = { ...before, disk: '0' }
    expect(settingsIssues(values, one)).toEqual([])
    expect(settingsBody(values, one, before)).toMatchObject({ limits: { disk_bytes: 0 } })
    expect(settingsIssues({ ...values, disk: '' }, one)).toMatchObject([{ path: ['disk'] }])
  })

  test('say whom it may reach, what must answer, and how many there are', () => {
    const one = context()
    const before = newSettings([])
    const values = {
      ...before,
      egress: 'hosts' as const,
      hosts: ' api.example.com \n\n*.example.org:8443',
      probeTool: 'echo',
      probeArguments: '{"message": "x"}',
      replicas: '2',
      instancing: 'per_user' as const,
      idleStop: '60',
    }
    expect(settingsIssues(values, one)).toEqual([])
    expect(settingsBody(values, one, before)).toMatchObject({
      egress: { policy: 'hosts', hosts: ['api.example.com', '*.example.org:8443'] },
      probe_call: { tool: 'echo', arguments: { message: 'x' } },
      replicas: 2,
      instancing: { mode: 'per_user', max_copies: 20, idle_stop_ms: 60_000, warm: 0 },
    })
    expect(settingsBody({ ...values, probeTool: '' }, one, values)).toMatchObject({
      probe_call: { tool: '' },
    })
  })
})

describe('what is wrong', () => {
  test('stands at its field, in the schema as in what the server says', () => {
    const one = context(field('--port', { format: 'number' }))
    const values = {
      ...newSettings(one.fields),
      inputs: { '--port': 'x' },
      memory: '1',
      egress: 'hosts' as const,
      hosts: 'https://example.com',
      probeTool: 'echo',
      probeArguments: '[]',
      environment: [{ id: 'row9', name: '9', value: '', credential: undefined }],
    }
    const parsed = v.safeParse(
      schemaOf((given: typeof values) => settingsIssues(given, one)),
      values,
    )
    expect(parsed.issues?.map((issue) => v.getDotPath(issue))).toEqual([
      'inputs.--port',
      'probeArguments',
      'memory',
      'hosts',
      'environment.row9',
    ])
    const fieldOf = settingsFieldOf(values)
    expect(fieldOf('limits.memory_bytes')).toBe('memory')
    expect(fieldOf('environment.9')).toBe('environment.row9')
    expect(fieldOf('credentials.--port')).toBe('inputs.--port')
    expect(fieldOf('inputs.--port')).toBe('inputs.--port')
  })
})

test('a path of the host that cannot be granted is said at its field, before anything is sent', () => {
  const directory = field('directory', { format: 'filepath', repeated: true })
  const one = {
    ...context(directory),
    pathProblem: (path: string) => (path === '/etc' ? 'not here' : undefined),
  }
  const values = {
    ...newSettings([directory]),
    inputs: { directory: '/srv\n/etc' },
    paths: [{ id: 'row', path: '/etc', writable: true }],
  }
  expect(settingsIssues(values, one)).toEqual([
    { path: ['inputs', 'directory'], message: 'not here' },
    { path: ['paths', 'row'], message: 'not here' },
  ])
  expect(grantsOf(values, one)).toEqual([
    { path: '/srv', writable: false },
    { path: '/etc', writable: false },
    { path: '/etc', writable: true },
  ])
})

test('a path in a volume is none of the host, so it is neither a problem nor a grant', () => {
  const directory = field('directory', { format: 'filepath', repeated: true })
  const one = { ...context(directory), pathProblem: () => 'not here' }
  const values = {
    ...newSettings([directory]),
    inputs: { directory: '/data\n/data/a' },
    volumes: [{ id: 'row', name: 'data', path: '/data' }],
    strategy: 'recreate' as const,
  }
  expect(settingsIssues(values, one)).toEqual([])
  expect(grantsOf(values, one)).toEqual([])
  for (const path of ['/data2', '/', '/data/../etc']) {
    const outside = { ...values, inputs: { directory: path } }
    expect(settingsIssues(outside, one)).toEqual([{ path: ['inputs', 'directory'], message: 'not here' }])
    expect(grantsOf(outside, one)).toEqual([{ path, writable: false }])
  }
})

test('a revision grants more only where it sees or may do what the other one could not', () => {
  const before = { paths: [{ path: '/srv', writable: false }], privileges: ['listen' as const] }
  expect(isMore(before, before)).toEqual({ grants: false, privileged: false })
  expect(isMore({ paths: [{ path: '/srv', writable: true }] }, before)).toEqual({
    grants: true,
    privileged: false,
  })
  expect(isMore(before)).toEqual({ grants: true, privileged: true })
})

test('a credential that is gone is said at every field where it is chosen', () => {
  const values = {
    ...newSettings([field('KEY', { secret: true })]),
    bound: { KEY: 'lost', OTHER: 'kept' },
    environment: [{ id: 'row', name: 'TOKEN', value: '', credential: 'lost' }],
    registry: 'lost',
  }
  const refusal = { code: 'credential_missing', detail: 'there is no credential `lost`' }
  const found = credentialRefusal(values, refusal)
  expect(found?.errors.map((one) => settingsFieldOf(values)(one.field))).toEqual([
    'inputs.KEY',
    'environment.row',
    'registry',
  ])
  expect(found?.errors[0]?.message).toContain('lost')
  expect(credentialRefusal(values, { ...refusal, code: 'conflict' })).toBeUndefined()
  expect(credentialRefusal(values, { ...refusal, detail: 'a secret is needed for: KEY' })).toBeUndefined()
})
