// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { CallOutcomeSchema, PhaseSchema, ReasonSchema, ToolboxStateSchema, type CallOutcome, type Phase, type Reason, type ToolboxState } from './enums'
import { AuditRecordSchema, HealthSchema, NameSchema, TimestampSchema, type AuditRecord, type Health, type Name, type Timestamp } from './shared'

/** Calls of one minute. */
export interface CallMinute {
  /** When it begins. */
  at: Timestamp
  /** How many calls began in it. */
  count: number
  /** How many of them neither succeeded nor were cancelled by their client. */
  errors: number
}
export const CallMinuteSchema: v.GenericSchema<unknown, CallMinute> = v.object({
  at: TimestampSchema,
  count: v.number(),
  errors: v.number(),
})

/** How many calls ended in one way. */
export interface OutcomeCount {
  /** How many. */
  count: number
  /** How they ended. */
  outcome: CallOutcome
}
export const OutcomeCountSchema: v.GenericSchema<unknown, OutcomeCount> = v.object({
  count: v.number(),
  outcome: CallOutcomeSchema,
})

/** Calls of the last 60 minutes, the one that is not over included. */
export interface CallsOverview {
  /** One for each of the 60 minutes, oldest first. */
  minutes: CallMinute[]
  /** How they ended; only ways that occurred. */
  outcomes: OutcomeCount[]
  /** How many this replica lost since it started, because the disk did not take them either. */
  records_lost?: number
  /**
   * How many records of the organization's calls wait on this replica's disk, because the database does not take
   * them: they are missing above.
   */
  records_waiting?: number
  /** When the first minute begins. */
  since: Timestamp
  /** How many calls there were. */
  total: number
}
export const CallsOverviewSchema: v.GenericSchema<unknown, CallsOverview> = v.object({
  minutes: v.array(CallMinuteSchema),
  outcomes: v.array(OutcomeCountSchema),
  records_lost: v.optional(v.number()),
  records_waiting: v.optional(v.number()),
  since: TimestampSchema,
  total: v.number(),
})

/** What somebody new has done already, to say what could be next. */
export interface NextStep {
  /** A call was recorded, as far back as records are kept. */
  has_calls: boolean
  /** Somebody made an API key that is good now; the first start's own does not count. */
  has_keys: boolean
  /** There is a server. */
  has_servers: boolean
  /** There is a toolset. */
  has_toolsets: boolean
}
export const NextStepSchema: v.GenericSchema<unknown, NextStep> = v.object({
  has_calls: v.boolean(),
  has_keys: v.boolean(),
  has_servers: v.boolean(),
  has_toolsets: v.boolean(),
})

/** How many servers are in a phase. */
export interface PhaseCount {
  /** How many. */
  count: number
  /** The phase. */
  phase: Phase
}
export const PhaseCountSchema: v.GenericSchema<unknown, PhaseCount> = v.object({
  count: v.number(),
  phase: PhaseSchema,
})

/** A server that does not do what it should. */
export interface ServerTrouble {
  /** Why, for a person. */
  message: string
  /** Its name. */
  name: Name
  next_attempt_at?: Timestamp | null
  /** Where it is. */
  phase: Phase
  /** Why, as a code. */
  reason: Reason
  /** Since when. */
  since: Timestamp
}
export const ServerTroubleSchema: v.GenericSchema<unknown, ServerTrouble> = v.object({
  message: v.string(),
  name: NameSchema,
  next_attempt_at: v.nullish(TimestampSchema),
  phase: PhaseSchema,
  reason: ReasonSchema,
  since: TimestampSchema,
})

/** Servers at a glance. */
export interface ServersOverview {
  /** How many of them should run. */
  enabled: number
  /** How many are in trouble. */
  in_trouble: number
  /** How many are in each phase; every phase is there. */
  phases: PhaseCount[]
  /** How many there are. */
  total: number
  /** Those in trouble, at most 20, the one that changed last first. */
  trouble: ServerTrouble[]
}
export const ServersOverviewSchema: v.GenericSchema<unknown, ServersOverview> = v.object({
  enabled: v.number(),
  in_trouble: v.number(),
  phases: v.array(PhaseCountSchema),
  total: v.number(),
  trouble: v.array(ServerTroubleSchema),
})

/** How many toolboxes are in a state. */
export interface ToolboxStateCount {
  /** How many. */
  count: number
  /** The state. */
  state: ToolboxState
}
export const ToolboxStateCountSchema: v.GenericSchema<unknown, ToolboxStateCount> = v.object({
  count: v.number(),
  state: ToolboxStateSchema,
})

/**
 * Everything that the first page shows, read at one moment. A part that the caller may not read is `null`; a narrowed
 * key sees only its own servers and toolsets.
 */
export interface Overview {
  /** The last 10 lines of the audit log, newest first. */
  activity?: AuditRecord[] | null
  /** When it was read. */
  at: Timestamp
  calls?: CallsOverview | null
  /** How many credentials there are. */
  credentials?: number | null
  instances?: Health | null
  /** What somebody new has done already. */
  next_step: NextStep
  servers?: ServersOverview | null
  /** Toolboxes by state. */
  toolboxes?: ToolboxStateCount[] | null
  /** How many toolsets there are. */
  toolsets?: number | null
}
export const OverviewSchema: v.GenericSchema<unknown, Overview> = v.object({
  activity: v.nullish(v.array(AuditRecordSchema)),
  at: TimestampSchema,
  calls: v.nullish(CallsOverviewSchema),
  credentials: v.nullish(v.number()),
  instances: v.nullish(HealthSchema),
  next_step: NextStepSchema,
  servers: v.nullish(ServersOverviewSchema),
  toolboxes: v.nullish(v.array(ToolboxStateCountSchema)),
  toolsets: v.nullish(v.number()),
})

/**
 * See everything at a glance: what runs, what is broken and why, what happened, what could be next.
 * Needs: `signed_in`.
 */
export const getOverview: Operation<{ path: undefined; query: undefined; body: undefined }, Overview> = /* @__PURE__ */ operation(
  'get_overview', 'GET', '/api/v1/overview', 'json', OverviewSchema,
)
