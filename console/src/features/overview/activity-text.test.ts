import { expect, test } from 'vitest'
import type { AuditRecord } from '@/api/generated/types'
import { activityText } from './activity-text'

function sentence(line: Partial<AuditRecord>): string {
  const record: AuditRecord = {
    id: '1',
    at: '2026-11-22T12:00:00Z',
    actor: 'user:1',
    actor_display: 'a@example.test',
    action: 'server.stop',
    target: 'server/time',
    outcome: 'done',
    detail: {},
    ...line,
  }
  const { who, deed, noun, name } = activityText(record)
  return [who, deed, noun, name].filter((part) => part !== undefined).join(' ')
}

test('what people did reads as a sentence', () => {
  expect(sentence({})).toBe('a@example.test stopped server time')
  expect(sentence({ action: 'session.create', target: 'session/1' })).toBe('a@example.test signed in')
  expect(
    sentence({
      action: 'api_key.create',
      target: 'api_key/0198c2b4-0000-7000-8000-000000000000',
      detail: { name: 'ci' },
    }),
  ).toBe('a@example.test created api key ci')
})

test('so does what Toolyard did by itself', () => {
  const lost = { actor: 'system:lost', actor_display: 'lost', target: 'toolbox/edge2' }
  expect(sentence({ ...lost, action: 'toolbox.return' })).toBe('Toolyard heard again from toolbox edge2')
})

test('what was placed elsewhere is named, or counted when it is many', () => {
  const lost = {
    actor: 'system:lost',
    actor_display: 'lost',
    target: 'toolbox/edge2',
    action: 'toolbox.replace',
  }
  expect(sentence({ ...lost, detail: { servers: ['files', 'time'], count: 2 } })).toBe(
    'Toolyard placed files, time elsewhere, away from toolbox edge2',
  )
  const many = { servers: ['a', 'b', 'c', 'd'], count: 120 }
  expect(sentence({ ...lost, detail: many })).toBe(
    'Toolyard placed 120 servers elsewhere, away from toolbox edge2',
  )
  expect(sentence({ ...lost, outcome: 'refused', detail: { servers: ['time'], count: 1 } })).toBe(
    'Toolyard did not place time elsewhere, away from toolbox edge2',
  )
  // A line of before does not say that anything was.
  expect(sentence(lost)).toBe('Toolyard evicted toolbox edge2')
  expect(sentence({ ...lost, outcome: 'refused' })).toBe('Toolyard did not evict toolbox edge2')
})

test('an action that is not known stands where the verb stands', () => {
  expect(sentence({ action: 'toolbox.paint', target: 'toolbox/edge2' })).toBe(
    'a@example.test did toolbox.paint to toolbox edge2',
  )
  expect(sentence({ action: 'credential:use', target: 'credential/x', outcome: 'refused' })).toBe(
    'a@example.test asked for credential:use on credential x',
  )
  expect(sentence({ action: 'organization:manage', target: 'organization', outcome: 'refused' })).toBe(
    'a@example.test asked for organization:manage',
  )
})
