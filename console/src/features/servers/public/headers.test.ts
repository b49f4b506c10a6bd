import { expect, test } from 'vitest'
import type { CurrentSettings } from '@/api/generated/types'
import { settingsOf } from '../settings-of'
import { type HeaderRow, headerFieldOf, headerIssues, headersBody, headersOf } from './headers'

const remote = {
  kind: 'remote',
  entry: null,
  inputs: {},
  // The server remembers the name of one whose value was taken away.
  remote: {
    type: 'streamable-http',
    url: 'https://mcp.example.com/mcp',
    headers: [{ name: 'X-Api-Token' }, { name: 'X-Old' }],
  },
  credentials: { 'X-Api-Token': { id: 'c1', name: 'remote-x-api-token' } },
} as unknown as CurrentSettings // as: only what is looked at

const row = (name: string, value: string, credential?: string): HeaderRow => ({
  id: `set-${name}`,
  name,
  value,
  credential,
})

test('shows the headers that are sent, of a server without an entry alone', () => {
  expect(headersOf(remote)).toEqual([row('X-Api-Token', '', 'remote-x-api-token')])
  expect(headersOf({ ...remote, entry: { name: 'io.example/x', version: '1.0.0' } })).toEqual([])
  expect(headersOf({ ...remote, kind: 'npm' })).toEqual([])
})

test('a header is no variable of a process', () => {
  const whole = {
    ...remote,
    environment: {},
    arguments: [],
    paths: [],
    limits: {},
    egress: { policy: 'all' },
    instancing: {},
  } as unknown as CurrentSettings // as: only what is looked at
  expect(settingsOf(whole, []).environment).toEqual([])
})

test('one that is added is sent, and the others stay as they are', () => {
  const before = headersOf(remote)
  expect(headersBody(before, before)).toEqual({ inputs: {}, credentials: {}, unset_environment: [] })
  expect(headersBody([row('X-Api-Token', 'secret')], [])).toEqual({
    inputs: { 'X-Api-Token': 'secret' },
    credentials: {},
    unset_environment: [],
  })
  expect(headersBody([...before, row('Authorization', '', 'mine')], before)).toEqual({
    inputs: {},
    credentials: { Authorization: 'mine' },
    unset_environment: [],
  })
})

test('one that is taken out, or gets another name, is not sent any more; another value replaces the credential', () => {
  const before = headersOf(remote)
  expect(headersBody([], before).unset_environment).toEqual(['X-Api-Token'])
  expect(headersBody([row('X-Other', '', 'remote-x-api-token')], before)).toEqual({
    inputs: {},
    credentials: { 'X-Other': 'remote-x-api-token' },
    unset_environment: ['X-Api-Token'],
  })
  expect(headersBody([row('X-Api-Token', 'new')], before).inputs).toEqual({ 'X-Api-Token': 'new' })
})

test('says what is wrong with a header at its row', () => {
  const found = (...rows: HeaderRow[]) => headerIssues(rows).map(({ path, message }) => [path[1], message])
  expect(found(row('', ''))).toEqual([])
  expect(found(row('', 'x'))).toEqual([['set-', 'Give the header a name']])
  expect(found(row('a b', 'x'))).toEqual([['set-a b', 'It is not a header’s name']])
  expect(found(row('A', ''), row('a', 'x'))).toEqual([
    ['set-A', 'Give it a value'],
    ['set-a', 'a is given twice'],
  ])
  expect(found(row('A', '', ''))).toEqual([['set-A', 'Choose a credential']])
})

test('what the server says of a header stands at its row', () => {
  const rows = [row('X-Api-Token', 'x')]
  expect(headerFieldOf('inputs.x-api-token', rows)).toBe('headers.set-X-Api-Token')
  expect(headerFieldOf('credentials.X-Api-Token', rows)).toBe('headers.set-X-Api-Token')
  expect(headerFieldOf('inputs.other', rows)).toBeUndefined()
  expect(headerFieldOf('url', rows)).toBeUndefined()
})
