import { expect, test } from 'vitest'
import { safeReturnPath, safeUrl } from './safe-url'

test('only addresses of the web and of mail are links', () => {
  expect(safeUrl('https://example.com/a')).toBe('https://example.com/a')
  expect(safeUrl('mailto:somebody@example.com')).toBe('mailto:somebody@example.com')
  for (const bad of [
    'javascript:alert(1)',
    ' java\tscript:alert(1)',
    'data:text/html,x',
    'vbscript:x',
    '/relative',
    'https://bank.example@evil.example/',
    '',
  ]) {
    expect(safeUrl(bad), bad).toBeUndefined()
  }
})

test('sign-in returns only to a path of this console', () => {
  expect(safeReturnPath('/servers?search=a#b')).toBe('/servers?search=a#b')
  for (const bad of [
    '//evil.example',
    '/\\evil.example',
    'https://evil.example',
    'servers',
    '/\t/evil.example',
    '/sign-in',
    undefined,
  ]) {
    expect(safeReturnPath(bad), String(bad)).toBe('/')
  }
})
