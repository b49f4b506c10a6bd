import { expect, test } from 'vitest'
import type { Server } from '@/api/generated/types'
import { beyondReason, reasonAdvice, servesNowhere } from './phase'

test('a server that refuses who asks is about its headers, wherever it runs', () => {
  for (const status of [401, 403])
    expect(
      reasonAdvice('handshake_failed', {
        remote: true,
        message: `the remote server answered HTTP status ${status}`,
      }),
    ).toMatch(/headers.*credential/)
  expect(
    reasonAdvice('handshake_failed', { remote: true, message: 'the remote server answered HTTP status 404' }),
  ).toMatch(/address/)
})

test('nobody is sent to the log or the arguments of a server that runs elsewhere', () => {
  for (const reason of ['handshake_failed', 'probe_failed', 'deadline_exceeded'] as const) {
    expect(reasonAdvice(reason, { remote: true })).not.toMatch(/log|argument/i)
    expect(reasonAdvice(reason)).toMatch(/log/i)
  }
})

test('a server whose instance is gone runs nowhere until another begins, unless a rollout sees to it', () => {
  const gone = { enabled: true, kind: 'npm', phase: 'pending', instances: [], rollout: { state: 'done' } }
  const seen = (more: object) => servesNowhere({ ...gone, ...more } as unknown as Server) // as: only what is looked at
  expect(seen({})).toBe(true)
  expect(seen({ rollout: { state: 'progressing' } })).toBe(false)
  expect(seen({ instances: [{}] })).toBe(false)
  expect(seen({ enabled: false, phase: 'stopped' })).toBe(false)
  expect(seen({ kind: 'remote' })).toBe(false)
})

test('a message that only repeats its reason says nothing more, and one that goes on says the rest', () => {
  expect(beyondReason('out_of_memory', 'it used more memory than its limit')).toBe('')
  expect(beyondReason('out_of_memory', 'It used more memory than its limit; 3 times in a minute')).toBe(
    '3 times in a minute',
  )
  expect(beyondReason('exited', 'its process ended with status 1')).toBe('its process ended with status 1')
  expect(beyondReason('exited', 'cannot find module x')).toBe('cannot find module x')
})
