import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { passwordSchema } from '@/lib/password'
import { madePassword } from './password'

describe('a password that is made up', () => {
  test('is one that the server takes', () => {
    expect(v.is(passwordSchema, madePassword())).toBe(true)
  })

  test('is another one each time', () => {
    expect(new Set(Array.from({ length: 50 }, madePassword)).size).toBe(50)
  })

  test('has no characters that look alike', () => {
    expect(Array.from({ length: 50 }, madePassword).join('')).not.toMatch(/[0O1lIiS5B8]/)
  })
})

test('a password is counted in characters, not in code units', () => {
  expect(v.is(passwordSchema, '🔑'.repeat(11))).toBe(false)
  expect(v.is(passwordSchema, '🔑'.repeat(12))).toBe(true)
  expect(v.is(passwordSchema, 'a'.repeat(129))).toBe(false)
})
