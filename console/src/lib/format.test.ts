import { expect, test } from 'vitest'
import { formatBytes, formatClock, formatDuration, formatRelative, formatTime, readableTimes } from './format'

test('durations grow from milliseconds to days', () => {
  const seconds = 1000
  const minutes = 60 * seconds
  const hours = 60 * minutes
  expect(formatDuration(0.25)).toBe('0.25 ms')
  expect(formatDuration(830)).toBe('830 ms')
  expect(formatDuration(2400)).toBe('2.4 s')
  expect(formatDuration(59 * seconds)).toBe('59 s')
  expect(formatDuration(3 * minutes + 20 * seconds)).toBe('3 min 20 s')
  expect(formatDuration(2 * hours)).toBe('2 h')
  expect(formatDuration(124 * hours)).toBe('5 d 4 h')
})

test('sizes are in powers of 1024', () => {
  expect(formatBytes(0)).toBe('0 B')
  expect(formatBytes(1536)).toBe('1.5 KiB')
  expect(formatBytes(300 * 1024 * 1024)).toBe('300 MiB')
})

test('a moment ago is now, and then it counts', () => {
  const now = Date.parse('2026-01-01T12:00:00Z')
  expect(formatRelative('2026-01-01T11:59:55Z', now)).toBe('just now')
  expect(formatRelative('2026-01-01T11:56:00Z', now)).toBe('4 min. ago')
  expect(formatRelative('2026-01-01T14:00:00Z', now)).toBe('in 2 hr.')
  // A key that was made for 90 days a moment ago.
  expect(formatRelative(new Date(now + 90 * 86_400_000 - 5000), now)).toBe('in 3 mo.')
  expect(formatRelative('not a time', now)).toBe('not a time')
})

test('a message has its times as people read them', () => {
  const at = '2026-11-29T13:25:46.771Z'
  expect(readableTimes(`it is observed until ${at}, revision 2`)).toBe(
    `it is observed until ${formatTime(at)}, revision 2`,
  )
})

test('the clock has 24 hours in tables, titles and logs alike', () => {
  const evening = new Date(2026, 10, 29, 21, 5, 7)
  const midnight = new Date(2026, 10, 29, 0, 5, 7)
  expect(formatTime(evening)).toContain('21:05:07')
  expect(formatClock(evening)).toContain('21:05:07')
  for (const text of [formatTime(midnight), formatClock(midnight)]) {
    expect(text).toContain('00:05:07')
    expect(text).not.toMatch(/[ap]\.?m/i)
  }
})
