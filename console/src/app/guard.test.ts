import { isNotFound } from '@tanstack/react-router'
import { expect, test } from 'vitest'
import type { Session } from '@/api/generated/types'
import { onlyFor, withheldFrom } from './guard'

const viewer: Session = {
  kind: 'user',
  display: 'v@example.test',
  organization: 'default',
  role: 'viewer',
  actions: ['server:read'],
  first_run: false,
}

test('a page that a role may not see is absent, and it is known from whom', () => {
  expect(() => onlyFor(viewer, 'server:read')).not.toThrow()
  let thrown: unknown
  try {
    onlyFor(viewer, 'audit:read')
  } catch (error) {
    thrown = error
  }
  expect(isNotFound(thrown)).toBe(true)
  expect(withheldFrom((thrown as { data: unknown }).data)).toBe('viewer') // as: it was thrown just now
})

test('an address that is none is withheld from nobody', () => {
  for (const data of [undefined, null, 'role', {}, { role: 1 }]) expect(withheldFrom(data)).toBeUndefined()
})
