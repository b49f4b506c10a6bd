import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import type { InputField } from './inputs'
import {
  newSettings,
  type SettingsContext,
  schemaOf,
  settingsBody,
  settingsFieldOf,
  settingsIssues,
} from './settings'

const field = (key: string, changes: Partial<InputField> = {}): InputField => ({
  key,
  origin: 'environment',
  description: '',
  required: false,
  secret: false,
  format: 'string',
  choices: [],
  initial: '',
  placeholder: '',
  repeated: false,
  template: undefined,
  ...changes,
})

const context = (...fields: InputField[]): SettingsContext => ({ fields, remote: false, existing: false })

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
      limits: { memory_bytes: 536_870_912, processes: 256, cpu_millis: 0 },
    })
  })

  test('of a remote server have no environment, arguments, paths or limits', () => {
    const remote = { ...context(), remote: true }
    const values = { ...newSettings([]), arguments: '--a', memory: '1', callTimeout: '1.5' }
    expect(settingsIssues(values, remote)).toEqual([])
    expect(settingsBody(values, remote)).toEqual({ inputs: {}, credentials: {}, call_timeout_ms: 1500 })
  })
})

describe('changed settings', () => {
  test('send only what differs, and take variables away', () => {
    const one = { ...context(field('LEVEL')), existing: true }
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

  test('may leave a required secret empty: it stays what it is', () => {
    const secret = field('KEY', { secret: true, required: true })
    expect(settingsIssues(newSettings([secret]), { ...context(secret), existing: true })).toEqual([])
    expect(settingsIssues(newSettings([secret]), context(secret)).map((issue) => issue.path)).toEqual([
      ['inputs', 'KEY'],
    ])
  })
})

describe('what is wrong', () => {
  test('stands at its field, in the schema as in what the server says', () => {
    const one = context(field('--port', { format: 'number' }))
    const values = {
      ...newSettings(one.fields),
      inputs: { '--port': 'x' },
      memory: '1',
      environment: [{ id: 'row9', name: '9', value: '', credential: undefined }],
    }
    const parsed = v.safeParse(
      schemaOf((given: typeof values) => settingsIssues(given, one)),
      values,
    )
    expect(parsed.issues?.map((issue) => v.getDotPath(issue))).toEqual([
      'inputs.--port',
      'memory',
      'environment.row9',
    ])
    const fieldOf = settingsFieldOf(values)
    expect(fieldOf('limits.memory_bytes')).toBe('memory')
    expect(fieldOf('environment.9')).toBe('environment.row9')
    expect(fieldOf('credentials.--port')).toBe('inputs.--port')
    expect(fieldOf('inputs.--port')).toBe('inputs.--port')
  })
})
