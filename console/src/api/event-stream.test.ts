import { expect, test } from 'vitest'
import { EventParser } from './event-stream'

test('events are complete however the stream is cut', () => {
  const text = ': keep-alive\n\nid: 7\nevent: server.changed\ndata: {"a":1}\n\ndata: one\ndata: two\n\n'
  for (let cut = 0; cut <= text.length; cut += 1) {
    const parser = new EventParser()
    const events = [...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))]
    expect(events).toEqual([
      { id: '7', name: 'server.changed', data: '{"a":1}' },
      { id: '7', name: 'message', data: 'one\ntwo' },
    ])
  }
})
