import { describe, expect, test } from 'vitest'
import { EventReader } from './sse'

const WIRE = ': hello\r\ndata: {"a":1}\r\n\r\nevent: x\ndata:first\ndata: second\n\nid: 3\n\ndata: last\n\n'

describe('reading server-sent events', () => {
  test('events come out whole however the text is cut', () => {
    for (let size = 1; size <= WIRE.length; size += 1) {
      const reader = new EventReader(1000)
      const events: string[] = []
      for (let at = 0; at < WIRE.length; at += size) events.push(...reader.push(WIRE.slice(at, at + size)))
      expect(events, `in pieces of ${size}`).toEqual(['{"a":1}', 'first\nsecond', 'last'])
    }
  })

  test('an event that does not end is given up at the limit', () => {
    const reader = new EventReader(100)
    expect(() => {
      for (let at = 0; at < 200; at += 1) reader.push('data: xxxxxxxx\n')
    }).toThrow('more than 100')
    expect(() => new EventReader(100).push('x'.repeat(101))).toThrow('more than 100')
  })
})
