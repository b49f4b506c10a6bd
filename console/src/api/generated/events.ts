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
 * Follow what happens, from now on or after the last event seen. Everybody hears of what they may read: a server's events
 * need `server:read`, a credential's `credential:read`, and so on; those about keys and members are also for who reads the
 * audit log, and one's own for oneself. A key narrowed to servers and toolsets hears only of these.
 * Needs: `event:read`.
 */
export const followEvents: Operation<{ path: undefined; query: {
  /** Continue after this event, as the header `Last-Event-ID` does. */
  after?: number
}; body: undefined }, Response> = /* @__PURE__ */ operation(
  'follow_events', 'GET', '/api/v1/events', 'stream', undefined,
)
