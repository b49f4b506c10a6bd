// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { TimestampSchema, type Timestamp } from './shared'

/** Something that happened, as sent on `GET /api/v1/events`. */
export interface Event {
  /** When. */
  at: Timestamp
  /** More, without secrets. */
  data: unknown
  /** What, such as `server.changed`. */
  kind: string
  /** Rises; send the last one seen as `Last-Event-ID` to continue after it. */
  sequence: number
  /** About which thing, such as `server/everything`. */
  subject: string
}
export const EventSchema: v.GenericSchema<unknown, Event> = v.object({
  at: TimestampSchema,
  data: v.unknown(),
  kind: v.string(),
  sequence: v.number(),
  subject: v.string(),
})

/**
 * Follow what happens, from now on or after the last event seen. A narrowed key hears only of its own servers and
 * toolsets.
 * Needs: `event:read`.
 */
export const followEvents: Operation<{ path: undefined; query: {
  /** Continue after this event, as the header `Last-Event-ID` does. */
  after?: number
}; body: undefined }, Response> = /* @__PURE__ */ operation(
  'follow_events', 'GET', '/api/v1/events', 'stream', undefined,
)
