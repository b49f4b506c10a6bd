// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { EraSchema, InstancingModeSchema, LogStreamSchema, MetricsWindowSchema, PhaseSchema, PrivilegeSchema, ReasonSchema, RemoteTransportSchema, RolloutStateSchema, StrategySchema, type Era, type InstancingMode, type LogStream, type MetricsWindow, type Phase, type Privilege, type Reason, type RemoteTransport, type RolloutState, type Strategy } from './enums'
import { CredentialIdSchema, EntryNameSchema, InstanceIdSchema, LabelsSchema, NameSchema, PackageSchema, RevisionIdSchema, SecretSchema, ServerIdSchema, TimestampSchema, TransportSchema, type CredentialId, type EntryName, type InstanceId, type Labels, type Name, type Package, type RevisionId, type Secret, type ServerId, type Timestamp, type Transport } from './shared'

/** A credential that a server is bound to. */
export interface BoundCredential {
  /** Its id. */
  id: CredentialId
  name?: Name | null
}
export const BoundCredentialSchema: v.GenericSchema<unknown, BoundCredential> = v.object({
  id: CredentialIdSchema,
  name: v.nullish(NameSchema),
})

/** Calls of one stretch of time. */
export interface CallBucket {
  /** When it begins. */
  at: Timestamp
  /** How many calls began in it. */
  count: number
  /** How many of them neither succeeded nor were cancelled by their client. */
  errors: number
  /** The duration that half of them did not exceed, in microseconds. */
  p50_us: number
  /** The duration that 95 in 100 of them did not exceed, in microseconds. */
  p95_us: number
  /** The duration that 99 in 100 of them did not exceed, in microseconds. */
  p99_us: number
}
export const CallBucketSchema: v.GenericSchema<unknown, CallBucket> = v.object({
  at: TimestampSchema,
  count: v.number(),
  errors: v.number(),
  p50_us: v.number(),
  p95_us: v.number(),
  p99_us: v.number(),
})

/** A revision that is tried on a part of the calls. */
export interface Canary {
  /** Whose calls it always takes. */
  clients?: string[]
  /** After how many seconds without a failure it serves by itself. */
  promote_after_seconds?: number | null
  promoted_at?: Timestamp | null
  started_at?: Timestamp | null
  /** How many of a hundred calls it takes. */
  weight: number
}
export const CanarySchema: v.GenericSchema<unknown, Canary> = v.object({
  clients: v.optional(v.array(v.string())),
  promote_after_seconds: v.nullish(v.number()),
  promoted_at: v.nullish(TimestampSchema),
  started_at: v.nullish(TimestampSchema),
  weight: v.number(),
})

/** Copy a server under a new name. */
export interface CloneServer {
  /** The copy's name. */
  name: Name
}

/** Whom a server may reach over the network. Enforced outside it, by the engine; one that cannot refuses. */
export type Egress = {
  policy: 'all'
} | {
  policy: 'none'
} | {
  /** `host`, `host:port` or `*.domain`; without a port, 80 and 443. */
  hosts: string[]
  policy: 'hosts'
}
export const EgressSchema: v.GenericSchema<unknown, Egress> = v.union([v.object({
  policy: v.literal('all'),
}), v.object({
  policy: v.literal('none'),
}), v.object({
  hosts: v.array(v.string()),
  policy: v.literal('hosts'),
})])

/** Whether all clients share an instance, or each user or session has a copy of their own. */
export interface Instancing {
  /** How long a copy without a call goes on, in milliseconds. */
  idle_stop_ms?: number
  /** The most copies that run at once for one instance. */
  max_copies?: number
  /** Who shares one. */
  mode?: InstancingMode
  /** How many copies are started ahead. */
  warm?: number
}
export const InstancingSchema: v.GenericSchema<unknown, Instancing> = v.object({
  idle_stop_ms: v.optional(v.number()),
  max_copies: v.optional(v.number()),
  mode: v.optional(InstancingModeSchema),
  warm: v.optional(v.number()),
})

/** Limits on one instance. */
export interface Limits {
  /** Share of processor time in thousandths of one core; zero for no limit. */
  cpu_millis?: number
  /**
   * What it keeps in its own directory and its temporary one together, in bytes; zero for no limit. Who sets limits
   * and says nothing of it gets 1 GiB; a revision that was made before there was this limit has none.
   */
  disk_bytes?: number
  /** Resident memory of all its processes together, in bytes. */
  memory_bytes: number
  /** How many processes and threads at once. */
  processes: number
}
export const LimitsSchema: v.GenericSchema<unknown, Limits> = v.object({
  cpu_millis: v.optional(v.number()),
  disk_bytes: v.optional(v.number()),
  memory_bytes: v.number(),
  processes: v.number(),
})

/** A host path a server may use. */
export interface PathGrant {
  /** The absolute path, the same inside and outside. */
  path: string
  /** Whether it may be written. */
  writable?: boolean
}
export const PathGrantSchema: v.GenericSchema<unknown, PathGrant> = v.object({
  path: v.string(),
  writable: v.optional(v.boolean()),
})

/** A tool call used as a readiness probe. */
export interface ProbeCall {
  /** Its arguments. */
  arguments?: Record<string, unknown>
  /** The tool's name as the server gives it. */
  tool: string
}
export const ProbeCallSchema: v.GenericSchema<unknown, ProbeCall> = v.object({
  arguments: v.optional(v.record(v.string(), v.unknown())),
  tool: v.string(),
})

/** A place of a server's own that outlives its instances and revisions; gone when the server is deleted. */
export interface Volume {
  /** Its name, one for each of the server's volumes. */
  name: Name
  /** Where the server finds it: an absolute path. */
  path: string
}
export const VolumeSchema: v.GenericSchema<unknown, Volume> = v.object({
  name: NameSchema,
  path: v.string(),
})

/** What a person can set on a server. An absent field leaves what was there. */
export interface ServerSettings {
  /** Arguments after the entry's own. */
  arguments?: string[] | null
  /** Milliseconds one call may take. */
  call_timeout_ms?: number | null
  /**
   * Credentials by input name or environment variable; for a container image `registry` is who pulls it, as
   * `user:password`.
   */
  credentials?: Record<string, Name>
  egress?: Egress | null
  /** Environment variables beyond the entry's inputs. For a secret, bind a credential instead. */
  environment?: Record<string, string>
  /**
   * Values of the entry's inputs by name: environment variables, arguments, URL and header variables.
   * A value for an input marked secret is stored as a credential and never shown again.
   */
  inputs?: Record<string, Secret>
  instancing?: Instancing | null
  limits?: Limits | null
  /** How long a new revision serves before the old one is stopped, so that traffic can go back at once; 5 when absent. */
  observe_seconds?: number | null
  /** Host paths the server may use. */
  paths?: PathGrant[] | null
  /**
   * What its sandbox allows it beyond what every server may. Giving one that it does not have needs
   * `server:grant_privilege`.
   */
  privileges?: Privilege[] | null
  probe_call?: ProbeCall | null
  /** How many instances serve at once; 1 when absent. Changing only this makes no new revision. */
  replicas?: number | null
  /** At what time of day (UTC) it is restarted, such as `03:30`; empty for never. */
  restart_at?: string | null
  /** Milliseconds a rollout may take in all; 10 minutes when absent. */
  rollout_timeout_ms?: number | null
  /** Milliseconds from start to the MCP answer. */
  start_timeout_ms?: number | null
  strategy?: Strategy | null
  /** Environment variables and inputs to remove again; `registry` for who pulls the image. */
  unset_environment?: string[]
  /**
   * When changes may be made (UTC), such as `02:00-05:00` or `sat,sun 22:00-04:00`; empty for at any time. An update
   * asked for outside waits.
   */
  update_window?: string | null
  /**
   * Places of the server's own that outlive its instances and revisions. With any, `strategy` is `recreate`, and the
   * server stays on its toolbox.
   */
  volumes?: Volume[] | null
}
export const ServerSettingsSchema: v.GenericSchema<unknown, ServerSettings> = v.object({
  arguments: v.nullish(v.array(v.string())),
  call_timeout_ms: v.nullish(v.number()),
  credentials: v.optional(v.record(v.string(), NameSchema)),
  egress: v.nullish(EgressSchema),
  environment: v.optional(v.record(v.string(), v.string())),
  inputs: v.optional(v.record(v.string(), SecretSchema)),
  instancing: v.nullish(InstancingSchema),
  limits: v.nullish(LimitsSchema),
  observe_seconds: v.nullish(v.number()),
  paths: v.nullish(v.array(PathGrantSchema)),
  privileges: v.nullish(v.array(PrivilegeSchema)),
  probe_call: v.nullish(ProbeCallSchema),
  replicas: v.nullish(v.number()),
  restart_at: v.nullish(v.string()),
  rollout_timeout_ms: v.nullish(v.number()),
  start_timeout_ms: v.nullish(v.number()),
  strategy: v.nullish(StrategySchema),
  unset_environment: v.optional(v.array(v.string())),
  update_window: v.nullish(v.string()),
  volumes: v.nullish(v.array(VolumeSchema)),
})

/** What to run, as a person says it: either a catalog entry, or a package or URL given directly. */
export interface CreateServer {
  /** Arguments after the entry's own. */
  arguments?: string[] | null
  /** Milliseconds one call may take. */
  call_timeout_ms?: number | null
  /**
   * Credentials by input name or environment variable; for a container image `registry` is who pulls it, as
   * `user:password`.
   */
  credentials?: Record<string, Name>
  egress?: Egress | null
  /** Environment variables beyond the entry's inputs. For a secret, bind a credential instead. */
  environment?: Record<string, string>
  /**
   * Values of the entry's inputs by name: environment variables, arguments, URL and header variables.
   * A value for an input marked secret is stored as a credential and never shown again.
   */
  inputs?: Record<string, Secret>
  instancing?: Instancing | null
  limits?: Limits | null
  /** How long a new revision serves before the old one is stopped, so that traffic can go back at once; 5 when absent. */
  observe_seconds?: number | null
  /** Host paths the server may use. */
  paths?: PathGrant[] | null
  /**
   * What its sandbox allows it beyond what every server may. Giving one that it does not have needs
   * `server:grant_privilege`.
   */
  privileges?: Privilege[] | null
  probe_call?: ProbeCall | null
  /** How many instances serve at once; 1 when absent. Changing only this makes no new revision. */
  replicas?: number | null
  /** At what time of day (UTC) it is restarted, such as `03:30`; empty for never. */
  restart_at?: string | null
  /** Milliseconds a rollout may take in all; 10 minutes when absent. */
  rollout_timeout_ms?: number | null
  /** Milliseconds from start to the MCP answer. */
  start_timeout_ms?: number | null
  strategy?: Strategy | null
  /** Environment variables and inputs to remove again; `registry` for who pulls the image. */
  unset_environment?: string[]
  /**
   * When changes may be made (UTC), such as `02:00-05:00` or `sat,sun 22:00-04:00`; empty for at any time. An update
   * asked for outside waits.
   */
  update_window?: string | null
  /**
   * Places of the server's own that outlive its instances and revisions. With any, `strategy` is `recreate`, and the
   * server stays on its toolbox.
   */
  volumes?: Volume[] | null
  entry?: EntryName | null
  name?: Name | null
  /** Which of the entry's packages or remotes, when it has several: `npm`, `pypi`, `oci` or `remote`. */
  package?: string | null
  /** `false` to create it stopped. */
  start?: boolean | null
  toolbox?: Name | null
  /** Where to run: any toolbox that has all of these labels. */
  toolbox_labels?: Labels
  transport?: RemoteTransport | null
  /** A remote MCP server's URL, instead of an entry. */
  url?: string | null
  /** Its version; the latest when absent. */
  version?: string | null
}

/** A catalog entry at a version. */
export interface EntryVersion {
  /** The entry. */
  name: EntryName
  /** Its version. */
  version: string
}
export const EntryVersionSchema: v.GenericSchema<unknown, EntryVersion> = v.object({
  name: EntryNameSchema,
  version: v.string(),
})

/** What was set on a server, with what it belongs to; `change` is that in the form of a change. */
export interface CurrentSettings {
  /** Arguments after the entry's own. */
  arguments: string[]
  /** Milliseconds one call may take. */
  call_timeout_ms: number
  /**
   * The settings as the body of a change of this server (`PATCH`): sent back as it is, it changes nothing. What is not
   * set is absent, and so is a credential without a name above. It holds no secret.
   */
  change?: ServerSettings
  /** Credentials by input name or environment variable; `registry` is who pulls the image. */
  credentials: Record<string, BoundCredential>
  /** Whom the server may reach over the network. */
  egress: Egress
  entry?: EntryVersion | null
  /** Environment variables beyond the inputs. */
  environment: Record<string, string>
  /** The server's `etag`; send it as `If-Match` with a change. */
  etag: string
  /** Values of inputs; those given as secrets are in `credentials`. */
  inputs: Record<string, string>
  /** Whether all clients share an instance. */
  instancing: Instancing
  /** `npm`, `pypi`, `oci` or `remote`. */
  kind: string
  /** Limits of each instance. */
  limits: Limits
  /** How long a new revision is observed while the old one runs on. */
  observe_seconds: number
  package?: Package | null
  /** Host paths that were granted beside those that are inputs. */
  paths: PathGrant[]
  /** What its sandbox allows it beyond what every server may. */
  privileges?: Privilege[]
  probe_call?: ProbeCall | null
  remote?: Transport | null
  /** How many instances serve at once. */
  replicas: number
  /** At what time of day (UTC) it is restarted. */
  restart_at?: string | null
  /** Number of the revision that is meant to run; these are its settings. */
  revision: number
  /** Milliseconds a rollout may take in all. */
  rollout_timeout_ms: number
  /** Milliseconds from start to the MCP answer. */
  start_timeout_ms: number
  /** How a new revision replaces the old. */
  strategy: Strategy
  /** When changes may be made (UTC); at any time when absent. */
  update_window?: string | null
  /** Places of the server's own. */
  volumes?: Volume[]
}
export const CurrentSettingsSchema: v.GenericSchema<unknown, CurrentSettings> = v.object({
  arguments: v.array(v.string()),
  call_timeout_ms: v.number(),
  change: v.optional(ServerSettingsSchema),
  credentials: v.record(v.string(), BoundCredentialSchema),
  egress: EgressSchema,
  entry: v.nullish(EntryVersionSchema),
  environment: v.record(v.string(), v.string()),
  etag: v.string(),
  inputs: v.record(v.string(), v.string()),
  instancing: InstancingSchema,
  kind: v.string(),
  limits: LimitsSchema,
  observe_seconds: v.number(),
  package: v.nullish(PackageSchema),
  paths: v.array(PathGrantSchema),
  privileges: v.optional(v.array(PrivilegeSchema)),
  probe_call: v.nullish(ProbeCallSchema),
  remote: v.nullish(TransportSchema),
  replicas: v.number(),
  restart_at: v.nullish(v.string()),
  revision: v.number(),
  rollout_timeout_ms: v.number(),
  start_timeout_ms: v.number(),
  strategy: StrategySchema,
  update_window: v.nullish(v.string()),
  volumes: v.optional(v.array(VolumeSchema)),
})

/** A failure with its code and a text for a person. */
export interface Failure {
  /** For a person; bounded, without secrets. */
  message: string
  /** The code. */
  reason: Reason
}
export const FailureSchema: v.GenericSchema<unknown, Failure> = v.object({
  message: v.string(),
  reason: ReasonSchema,
})

/** How a process ended. */
export interface Exit {
  /** When. */
  at: Timestamp
  /** The exit code, unless a signal ended it. */
  code?: number | null
  failure?: Failure | null
  /** The signal that ended it. */
  signal?: number | null
  /** The last lines it wrote to standard error, bounded. */
  stderr_tail?: string
}
export const ExitSchema: v.GenericSchema<unknown, Exit> = v.object({
  at: TimestampSchema,
  code: v.nullish(v.number()),
  failure: v.nullish(FailureSchema),
  signal: v.nullish(v.number()),
  stderr_tail: v.optional(v.string()),
})

/** Where a server in a container listens for Streamable HTTP, inside its own network. */
export interface HttpEndpoint {
  /** Headers sent with every request. */
  headers?: Record<string, unknown>
  /** The path, and what is asked with it. */
  path: string
  /** The port. */
  port: number
}
export const HttpEndpointSchema: v.GenericSchema<unknown, HttpEndpoint> = v.object({
  headers: v.optional(v.record(v.string(), v.unknown())),
  path: v.string(),
  port: v.number(),
})

/** What a server said of itself when probed. */
export interface McpInfo {
  /** Which protocol era it speaks. */
  era: Era
  /** The protocol version agreed on. */
  protocol_version: string
  /** Its own name, bounded; hostile text. */
  server_name: string
  /** Its own version, bounded; hostile text. */
  server_version: string
  /** The names of the tools it listed, bounded; hostile text. Empty when the agent does not tell them. */
  tool_names?: string[]
  /** How many tools it listed. */
  tools: number
}
export const McpInfoSchema: v.GenericSchema<unknown, McpInfo> = v.object({
  era: EraSchema,
  protocol_version: v.string(),
  server_name: v.string(),
  server_version: v.string(),
  tool_names: v.optional(v.array(v.string())),
  tools: v.number(),
})

/** What an instance uses. */
export interface Usage {
  /** When it was measured. */
  at: Timestamp
  /** Processor time used since start, in milliseconds. */
  cpu_ms: number
  /** Resident memory of all its processes, in bytes. */
  memory_bytes: number
  /** How many processes. */
  processes: number
}
export const UsageSchema: v.GenericSchema<unknown, Usage> = v.object({
  at: TimestampSchema,
  cpu_ms: v.number(),
  memory_bytes: v.number(),
  processes: v.number(),
})

/** One running copy. */
export interface Instance {
  /** The container it runs in, when it runs in one. */
  container_id?: string | null
  /** How many copies of it run, beside itself, for single users or sessions. */
  copies?: number
  exit?: Exit | null
  /** How many probes in a row it failed. */
  failures?: number
  /** Its id. */
  id: InstanceId
  last_success_at?: Timestamp | null
  mcp?: McpInfo | null
  /** Why, for a person. */
  message?: string
  next_attempt_at?: Timestamp | null
  /** The credentials of which it, or a copy of it, was started with an older secret than the current one; a restart of the server brings that. One whose agent does not tell what it was started with is not named. */
  outdated_secrets?: Name[]
  /** Where it is. */
  phase: Phase
  /** The server's process in the host's numbering. */
  pid?: number | null
  ready_since?: Timestamp | null
  /** Why, as a code. */
  reason: Reason
  /** How often it was started again after ending by itself, at least: what happens while nobody hears its agent may be missing. */
  restarts: number
  /** Its revision's number. */
  revision: number
  /** Since when. */
  since: Timestamp
  toolbox?: Name | null
  usage?: Usage | null
}
export const InstanceSchema: v.GenericSchema<unknown, Instance> = v.object({
  container_id: v.nullish(v.string()),
  copies: v.optional(v.number()),
  exit: v.nullish(ExitSchema),
  failures: v.optional(v.number()),
  id: InstanceIdSchema,
  last_success_at: v.nullish(TimestampSchema),
  mcp: v.nullish(McpInfoSchema),
  message: v.optional(v.string()),
  next_attempt_at: v.nullish(TimestampSchema),
  outdated_secrets: v.optional(v.array(NameSchema)),
  phase: PhaseSchema,
  pid: v.nullish(v.number()),
  ready_since: v.nullish(TimestampSchema),
  reason: ReasonSchema,
  restarts: v.number(),
  revision: v.number(),
  since: TimestampSchema,
  toolbox: v.nullish(NameSchema),
  usage: v.nullish(UsageSchema),
})

/** What an instance used at one moment. */
export interface ResourceSample {
  /** When it was measured. */
  at: Timestamp
  /**
   * Processors kept busy since the sample before: 1 is one whole processor. Unknown for the first sample and after a
   * restart of the process.
   */
  cpu?: number | null
  /** Resident memory of all its processes, in bytes. */
  memory_bytes: number
  /** How many processes. */
  processes: number
}
export const ResourceSampleSchema: v.GenericSchema<unknown, ResourceSample> = v.object({
  at: TimestampSchema,
  cpu: v.nullish(v.number()),
  memory_bytes: v.number(),
  processes: v.number(),
})

/**
 * What one instance used over time. Kept in the memory of the replica that the toolbox's agent speaks to: a restart of
 * Toolyard forgets it.
 */
export interface InstanceResources {
  /** The instance. */
  instance: InstanceId
  /** Samples, oldest first, at least 15 seconds apart. */
  samples: ResourceSample[]
  since?: Timestamp | null
  toolbox?: Name | null
}
export const InstanceResourcesSchema: v.GenericSchema<unknown, InstanceResources> = v.object({
  instance: InstanceIdSchema,
  samples: v.array(ResourceSampleSchema),
  since: v.nullish(TimestampSchema),
  toolbox: v.nullish(NameSchema),
})

/**
 * `GET /v1/instances/{id}/logs?tail&follow`, also of an instance that is gone, and `GET /v1/jobs/{id}/logs?tail`: one
 * JSON object a line.
 */
export interface LogLine {
  /** When the line was read. */
  at: Timestamp
  instance?: InstanceId | null
  /** Where it came from. */
  stream: LogStream
  /** The text, bounded; hostile, to be escaped where it is shown. */
  text: string
}
export const LogLineSchema: v.GenericSchema<unknown, LogLine> = v.object({
  at: TimestampSchema,
  instance: v.nullish(InstanceIdSchema),
  stream: LogStreamSchema,
  text: v.string(),
})

/** A remote MCP server. */
export interface Remote {
  /** Headers sent with every request. */
  headers?: Record<string, unknown>
  /** The protocol. */
  transport: RemoteTransport
  /** Where. */
  url: unknown
}
export const RemoteSchema: v.GenericSchema<unknown, Remote> = v.object({
  headers: v.optional(v.record(v.string(), v.unknown())),
  transport: RemoteTransportSchema,
  url: v.unknown(),
})

/** A package and how it is started. It is started directly, never through a shell. */
export interface SpecPackage {
  /** Arguments to it. */
  arguments?: unknown[]
  /** The executable in the package, when it is not the one named like the package. */
  command?: string | null
  /** Its environment; nothing else but the configured list is passed on. */
  environment?: Record<string, unknown>
  http?: HttpEndpoint | null
  /** The name in its registry, or the image without its tag. */
  identifier: string
  /** Who pulls the image, as `user:password` or a bare token; nobody in particular when absent. */
  registry?: unknown
  /** The exact version; for an image its tag or digest. Empty for the newest at resolve time. */
  version?: string
  /**
   * What is installed beside it from the index, as in `uvx --with`: names with extras and versions, such as `mcp<2`.
   * For packages of PyPI only.
   */
  with?: string[]
}
export const SpecPackageSchema: v.GenericSchema<unknown, SpecPackage> = v.object({
  arguments: v.optional(v.array(v.unknown())),
  command: v.nullish(v.string()),
  environment: v.optional(v.record(v.string(), v.unknown())),
  http: v.nullish(HttpEndpointSchema),
  identifier: v.string(),
  registry: v.optional(v.unknown()),
  version: v.optional(v.string()),
  with: v.optional(v.array(v.string())),
})

/** What runs. */
export type Runtime = {
  /** Arguments to it. */
  arguments?: unknown[]
  /** The executable in the package, when it is not the one named like the package. */
  command?: string | null
  /** Its environment; nothing else but the configured list is passed on. */
  environment?: Record<string, unknown>
  http?: HttpEndpoint | null
  /** The name in its registry, or the image without its tag. */
  identifier: string
  /** Who pulls the image, as `user:password` or a bare token; nobody in particular when absent. */
  registry?: unknown
  /** The exact version; for an image its tag or digest. Empty for the newest at resolve time. */
  version?: string
  /**
   * What is installed beside it from the index, as in `uvx --with`: names with extras and versions, such as `mcp<2`.
   * For packages of PyPI only.
   */
  with?: string[]
  kind: 'npm'
} | {
  /** Arguments to it. */
  arguments?: unknown[]
  /** The executable in the package, when it is not the one named like the package. */
  command?: string | null
  /** Its environment; nothing else but the configured list is passed on. */
  environment?: Record<string, unknown>
  http?: HttpEndpoint | null
  /** The name in its registry, or the image without its tag. */
  identifier: string
  /** Who pulls the image, as `user:password` or a bare token; nobody in particular when absent. */
  registry?: unknown
  /** The exact version; for an image its tag or digest. Empty for the newest at resolve time. */
  version?: string
  /**
   * What is installed beside it from the index, as in `uvx --with`: names with extras and versions, such as `mcp<2`.
   * For packages of PyPI only.
   */
  with?: string[]
  kind: 'pypi'
} | {
  /** Arguments to it. */
  arguments?: unknown[]
  /** The executable in the package, when it is not the one named like the package. */
  command?: string | null
  /** Its environment; nothing else but the configured list is passed on. */
  environment?: Record<string, unknown>
  http?: HttpEndpoint | null
  /** The name in its registry, or the image without its tag. */
  identifier: string
  /** Who pulls the image, as `user:password` or a bare token; nobody in particular when absent. */
  registry?: unknown
  /** The exact version; for an image its tag or digest. Empty for the newest at resolve time. */
  version?: string
  /**
   * What is installed beside it from the index, as in `uvx --with`: names with extras and versions, such as `mcp<2`.
   * For packages of PyPI only.
   */
  with?: string[]
  kind: 'oci'
} | {
  /** Headers sent with every request. */
  headers?: Record<string, unknown>
  /** The protocol. */
  transport: RemoteTransport
  /** Where. */
  url: unknown
  kind: 'remote'
}
export const RuntimeSchema: v.GenericSchema<unknown, Runtime> = v.union([v.object({
  arguments: v.optional(v.array(v.unknown())),
  command: v.nullish(v.string()),
  environment: v.optional(v.record(v.string(), v.unknown())),
  http: v.nullish(HttpEndpointSchema),
  identifier: v.string(),
  registry: v.optional(v.unknown()),
  version: v.optional(v.string()),
  with: v.optional(v.array(v.string())),
  kind: v.literal('npm'),
}), v.object({
  arguments: v.optional(v.array(v.unknown())),
  command: v.nullish(v.string()),
  environment: v.optional(v.record(v.string(), v.unknown())),
  http: v.nullish(HttpEndpointSchema),
  identifier: v.string(),
  registry: v.optional(v.unknown()),
  version: v.optional(v.string()),
  with: v.optional(v.array(v.string())),
  kind: v.literal('pypi'),
}), v.object({
  arguments: v.optional(v.array(v.unknown())),
  command: v.nullish(v.string()),
  environment: v.optional(v.record(v.string(), v.unknown())),
  http: v.nullish(HttpEndpointSchema),
  identifier: v.string(),
  registry: v.optional(v.unknown()),
  version: v.optional(v.string()),
  with: v.optional(v.array(v.string())),
  kind: v.literal('oci'),
}), v.object({
  headers: v.optional(v.record(v.string(), v.unknown())),
  transport: RemoteTransportSchema,
  url: v.unknown(),
  kind: v.literal('remote'),
})])

/** An immutable, resolved description of what to run. The lock is beside it, by digest. */
export interface RevisionSpec {
  /** Longest time one call may take, in milliseconds. */
  call_timeout_ms?: number
  /** Whom it may reach over the network. */
  egress?: Egress
  entry?: EntryVersion | null
  /** Whether everybody shares an instance. */
  instancing?: Instancing
  /** Limits on each instance. */
  limits?: Limits
  /** Host paths the server may see, beyond its package and its own directory. */
  paths?: PathGrant[]
  /** What its sandbox allows it beyond what every server may. */
  privileges?: Privilege[]
  probe_call?: ProbeCall | null
  /** What runs. */
  runtime: Runtime
  /** Time from start to the MCP answer, in milliseconds. */
  start_timeout_ms?: number
  /** How the change from the previous revision is made. */
  strategy?: Strategy
  /** Places of its own that outlive its instances and revisions. */
  volumes?: Volume[]
}
export const RevisionSpecSchema: v.GenericSchema<unknown, RevisionSpec> = v.object({
  call_timeout_ms: v.optional(v.number()),
  egress: v.optional(EgressSchema),
  entry: v.nullish(EntryVersionSchema),
  instancing: v.optional(InstancingSchema),
  limits: v.optional(LimitsSchema),
  paths: v.optional(v.array(PathGrantSchema)),
  privileges: v.optional(v.array(PrivilegeSchema)),
  probe_call: v.nullish(ProbeCallSchema),
  runtime: RuntimeSchema,
  start_timeout_ms: v.optional(v.number()),
  strategy: v.optional(StrategySchema),
  volumes: v.optional(v.array(VolumeSchema)),
})

/** A revision. */
export interface Revision {
  /** What changed, in words: `update`, `rollback to 3`. */
  change: string
  /** When. */
  created_at: Timestamp
  /** Who made it. */
  created_by: string
  /** Its id. */
  id: RevisionId
  /** Digest of its lock, once resolved. */
  lock_digest?: string | null
  /** 1 for the first of its server. */
  number: number
  /** Whether it ever served; absent when that is not known any more, because only the last rollouts are kept. */
  served?: boolean | null
  /** What it runs. */
  spec: RevisionSpec
}
export const RevisionSchema: v.GenericSchema<unknown, Revision> = v.object({
  change: v.string(),
  created_at: TimestampSchema,
  created_by: v.string(),
  id: RevisionIdSchema,
  lock_digest: v.nullish(v.string()),
  number: v.number(),
  served: v.nullish(v.boolean()),
  spec: RevisionSpecSchema,
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageRevision {
  /** The things on this page. */
  items: Revision[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageRevisionSchema: v.GenericSchema<unknown, PageRevision> = v.object({
  items: v.array(RevisionSchema),
  next_cursor: v.nullish(v.string()),
})

/** The change from one revision to the next. */
export type RolloutId = string
export const RolloutIdSchema: v.GenericSchema<unknown, RolloutId> = v.string()

/** A step of a rollout. */
export interface RolloutStep {
  /** When. */
  at: Timestamp
  /** What, for a person. */
  message: string
}
export const RolloutStepSchema: v.GenericSchema<unknown, RolloutStep> = v.object({
  at: TimestampSchema,
  message: v.string(),
})

/** A rollout. */
export interface Rollout {
  canary?: Canary | null
  /** When it must have ended. */
  deadline: Timestamp
  ended_at?: Timestamp | null
  /** The revision it came from. */
  from_revision?: number | null
  /** Its id. */
  id: RolloutId
  /** What happened, step by step. */
  log?: RolloutStep[]
  /** Why, for a person. */
  message?: string
  next_attempt_at?: Timestamp | null
  /** Why, as a code. */
  reason: Reason
  /** The server's name. */
  server: Name
  /** When it began. */
  started_at: Timestamp
  /** Where it is. */
  state: RolloutState
  switched_at?: Timestamp | null
  /** The revision it goes to. */
  to_revision: number
}
export const RolloutSchema: v.GenericSchema<unknown, Rollout> = v.object({
  canary: v.nullish(CanarySchema),
  deadline: TimestampSchema,
  ended_at: v.nullish(TimestampSchema),
  from_revision: v.nullish(v.number()),
  id: RolloutIdSchema,
  log: v.optional(v.array(RolloutStepSchema)),
  message: v.optional(v.string()),
  next_attempt_at: v.nullish(TimestampSchema),
  reason: ReasonSchema,
  server: NameSchema,
  started_at: TimestampSchema,
  state: RolloutStateSchema,
  switched_at: v.nullish(TimestampSchema),
  to_revision: v.number(),
})

/** A server. */
export interface Server {
  /** When it was created. */
  created_at: Timestamp
  /** Whether it should run. */
  enabled: boolean
  entry?: EntryVersion | null
  /** Changes with every change; send it as `If-Match`. */
  etag: string
  /** Its id. */
  id: ServerId
  instance_id?: InstanceId | null
  /** Every instance that has not ended. */
  instances: Instance[]
  /** What kind of thing runs: `npm`, `pypi`, `oci` or `remote`. */
  kind: string
  /** The MCP URL's path on this Toolyard. */
  mcp_path: string
  /** Why, for a person. */
  message?: string
  /** Its name. */
  name: Name
  next_attempt_at?: Timestamp | null
  /** How long a new revision serves before the old one is stopped. */
  observe_seconds: number
  /** A roll-up of what serves now. */
  phase: Phase
  /** Why, as a code. */
  reason: Reason
  /** How many instances should serve at once. */
  replicas: number
  /** At what time of day (UTC) it is restarted. */
  restart_at?: string | null
  /** Number of the revision that serves, or is meant to. */
  revision: number
  rollout?: Rollout | null
  /** Since when. */
  since: Timestamp
  toolbox?: Name | null
  /** The labels that its toolbox must have. */
  toolbox_labels?: Labels
  toolbox_removed_at?: Timestamp | null
  /** When changes to it may be made (UTC); at any time when absent. */
  update_window?: string | null
  /** When it was last changed. */
  updated_at: Timestamp
}
export const ServerSchema: v.GenericSchema<unknown, Server> = v.object({
  created_at: TimestampSchema,
  enabled: v.boolean(),
  entry: v.nullish(EntryVersionSchema),
  etag: v.string(),
  id: ServerIdSchema,
  instance_id: v.nullish(InstanceIdSchema),
  instances: v.array(InstanceSchema),
  kind: v.string(),
  mcp_path: v.string(),
  message: v.optional(v.string()),
  name: NameSchema,
  next_attempt_at: v.nullish(TimestampSchema),
  observe_seconds: v.number(),
  phase: PhaseSchema,
  reason: ReasonSchema,
  replicas: v.number(),
  restart_at: v.nullish(v.string()),
  revision: v.number(),
  rollout: v.nullish(RolloutSchema),
  since: TimestampSchema,
  toolbox: v.nullish(NameSchema),
  toolbox_labels: v.optional(LabelsSchema),
  toolbox_removed_at: v.nullish(TimestampSchema),
  update_window: v.nullish(v.string()),
  updated_at: TimestampSchema,
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageServer {
  /** The things on this page. */
  items: Server[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageServerSchema: v.GenericSchema<unknown, PageServer> = v.object({
  items: v.array(ServerSchema),
  next_cursor: v.nullish(v.string()),
})

/** Point back to an earlier revision. */
export interface RollbackServer {
  /** The revision's number; the one before the current when absent. */
  revision?: number | null
}

/** What a server did and used. */
export interface ServerMetrics {
  /** Seconds of one stretch. */
  bucket_seconds: number
  /** Calls by stretches, oldest first; stretches without a call are left out. */
  calls: CallBucket[]
  /** What its instances that have not ended use, for the last hour at most. */
  resources: InstanceResources[]
  /** When the first stretch begins. */
  since: Timestamp
  /** When it was read. */
  until: Timestamp
  /** How far back it goes. */
  window: MetricsWindow
}
export const ServerMetricsSchema: v.GenericSchema<unknown, ServerMetrics> = v.object({
  bucket_seconds: v.number(),
  calls: v.array(CallBucketSchema),
  resources: v.array(InstanceResourcesSchema),
  since: TimestampSchema,
  until: TimestampSchema,
  window: MetricsWindowSchema,
})

/** How a new revision is tried before it serves. */
export interface StartCanary {
  /** Whose calls it always takes: names of API keys, or actors as `user:<id>` or `api_key:<id>`. */
  clients?: string[]
  /** After how many seconds without a failure it serves by itself; only when somebody says so when absent. */
  promote_after_seconds?: number | null
  /** How many of a hundred calls it takes. */
  weight?: number
}

/** A change to a server; makes a new revision. */
export interface UpdateServer {
  /** Arguments after the entry's own. */
  arguments?: string[] | null
  /** Milliseconds one call may take. */
  call_timeout_ms?: number | null
  /**
   * Credentials by input name or environment variable; for a container image `registry` is who pulls it, as
   * `user:password`.
   */
  credentials?: Record<string, Name>
  egress?: Egress | null
  /** Environment variables beyond the entry's inputs. For a secret, bind a credential instead. */
  environment?: Record<string, string>
  /**
   * Values of the entry's inputs by name: environment variables, arguments, URL and header variables.
   * A value for an input marked secret is stored as a credential and never shown again.
   */
  inputs?: Record<string, Secret>
  instancing?: Instancing | null
  limits?: Limits | null
  /** How long a new revision serves before the old one is stopped, so that traffic can go back at once; 5 when absent. */
  observe_seconds?: number | null
  /** Host paths the server may use. */
  paths?: PathGrant[] | null
  /**
   * What its sandbox allows it beyond what every server may. Giving one that it does not have needs
   * `server:grant_privilege`.
   */
  privileges?: Privilege[] | null
  probe_call?: ProbeCall | null
  /** How many instances serve at once; 1 when absent. Changing only this makes no new revision. */
  replicas?: number | null
  /** At what time of day (UTC) it is restarted, such as `03:30`; empty for never. */
  restart_at?: string | null
  /** Milliseconds a rollout may take in all; 10 minutes when absent. */
  rollout_timeout_ms?: number | null
  /** Milliseconds from start to the MCP answer. */
  start_timeout_ms?: number | null
  strategy?: Strategy | null
  /** Environment variables and inputs to remove again; `registry` for who pulls the image. */
  unset_environment?: string[]
  /**
   * When changes may be made (UTC), such as `02:00-05:00` or `sat,sun 22:00-04:00`; empty for at any time. An update
   * asked for outside waits.
   */
  update_window?: string | null
  /**
   * Places of the server's own that outlive its instances and revisions. With any, `strategy` is `recreate`, and the
   * server stays on its toolbox.
   */
  volumes?: Volume[] | null
  /** `true` to let the new revision serve although it lists fewer tools than the old one. */
  accept_lost_tools?: boolean
  /** `true` to run on any suitable toolbox from now on. */
  any_toolbox?: boolean
  canary?: StartCanary | null
  /** `true` to begin now although it is outside the server's update window. */
  now?: boolean
  toolbox?: Name | null
  toolbox_labels?: Labels | null
  /** Another URL, for a remote server that was registered by its URL. */
  url?: string | null
  /** Another version of the entry, or `latest`. */
  version?: string | null
}

/**
 * List servers.
 * Needs: `server:read`.
 */
export const listServers: Operation<{ path: undefined; query: {
  /** Only those with this in their name or entry. */
  search?: string
  /** Only those in this phase. */
  phase?: Phase
  /** Only those that run on this toolbox, or must. */
  toolbox?: Name
  /** In this order; by name when absent. A cursor is of one order. */
  sort?: 'name' | '-name' | 'created_at' | '-created_at'
  /**
   * `true` to leave out what is long and of interest one server at a time: the logs of rollouts, the names of
   * tools.
   */
  brief?: boolean
  /** How many at most, 1 to 500; 100 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
}; body: undefined }, PageServer> = /* @__PURE__ */ operation(
  'list_servers', 'GET', '/api/v1/servers', 'json', PageServerSchema,
)

/**
 * Create a server from a catalog entry or a URL, and start it.
 * Needs: `server:deploy`.
 */
export const createServer: Operation<{ path: undefined; query: undefined; body: CreateServer }, Server> = /* @__PURE__ */ operation(
  'create_server', 'POST', '/api/v1/servers', 'json', ServerSchema,
)

/**
 * Get a server.
 * Needs: `server:read`.
 */
export const getServer: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Server> = /* @__PURE__ */ operation(
  'get_server', 'GET', '/api/v1/servers/{name}', 'json', ServerSchema,
)

/**
 * Change a server: a new revision and a rollout to it; nothing when nothing changes.
 * Needs: `server:deploy`.
 */
export const updateServer: Operation<{ path: {
  name: Name
}; query: undefined; body: UpdateServer }, Server> = /* @__PURE__ */ operation(
  'update_server', 'PATCH', '/api/v1/servers/{name}', 'json', ServerSchema,
)

/**
 * Delete a server: it is gone once the end of its instances was observed.
 * Needs: `server:delete`.
 */
export const deleteServer: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Server> = /* @__PURE__ */ operation(
  'delete_server', 'DELETE', '/api/v1/servers/{name}', 'json', ServerSchema,
)

/**
 * Copy a server under a new name; its credentials are shared.
 * Needs: `server:deploy`.
 */
export const cloneServer: Operation<{ path: {
  name: Name
}; query: undefined; body: CloneServer }, Server> = /* @__PURE__ */ operation(
  'clone_server', 'POST', '/api/v1/servers/{name}/clone', 'json', ServerSchema,
)

/**
 * Read a server's log: one JSON object a line, as the toolbox's agent has it.
 * Needs: `server:logs`.
 */
export const getLogs: Operation<{ path: {
  name: Name
}; query: {
  /** How many of the last lines, at most 10000; 200 when absent. */
  tail?: number
  /** Whether to go on with lines as they are written. */
  follow?: boolean
  /** Of which instance; the one that serves when absent, or the newest when none does. */
  instance?: InstanceId
  /** Of an instance of this revision. */
  revision?: number
  /** Whether that of the instance that ended last is meant: of a deployment that failed, or of what ran before. */
  previous?: boolean
}; body: undefined }, Response> = /* @__PURE__ */ operation(
  'get_logs', 'GET', '/api/v1/servers/{name}/logs', 'stream', undefined,
)

/**
 * See what a server did and used: calls with how long they took, memory and processor.
 * Needs: `server:read`.
 */
export const getServerMetrics: Operation<{ path: {
  name: Name
}; query: {
  /** How far back: `15m`, `1h`, `24h` or `7d`; `1h` when absent. */
  window?: MetricsWindow
}; body: undefined }, ServerMetrics> = /* @__PURE__ */ operation(
  'get_server_metrics', 'GET', '/api/v1/servers/{name}/metrics', 'json', ServerMetricsSchema,
)

/**
 * Replace what serves by a new instance of the same revision.
 * Needs: `server:operate`.
 */
export const restartServer: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Server> = /* @__PURE__ */ operation(
  'restart_server', 'POST', '/api/v1/servers/{name}/restart', 'json', ServerSchema,
)

/**
 * List a server's revisions, newest first.
 * Needs: `server:read`.
 */
export const listRevisions: Operation<{ path: {
  name: Name
}; query: {
  /** How many things at most, 1 to 500; 100 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
}; body: undefined }, PageRevision> = /* @__PURE__ */ operation(
  'list_revisions', 'GET', '/api/v1/servers/{name}/revisions', 'json', PageRevisionSchema,
)

/**
 * Point a server back to an earlier revision.
 * Needs: `server:deploy`.
 */
export const rollbackServer: Operation<{ path: {
  name: Name
}; query: undefined; body: RollbackServer | null }, Server> = /* @__PURE__ */ operation(
  'rollback_server', 'POST', '/api/v1/servers/{name}/rollback', 'json', ServerSchema,
)

/**
 * Get the rollout under way, or the last one.
 * Needs: `server:read`.
 */
export const getRollout: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Rollout> = /* @__PURE__ */ operation(
  'get_rollout', 'GET', '/api/v1/servers/{name}/rollout', 'json', RolloutSchema,
)

/**
 * Cancel the rollout under way: what served serves on, or again.
 * Needs: `server:operate`.
 */
export const cancelRollout: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Rollout> = /* @__PURE__ */ operation(
  'cancel_rollout', 'POST', '/api/v1/servers/{name}/rollout/cancel', 'json', RolloutSchema,
)

/**
 * Let the revision that is tried as a canary serve.
 * Needs: `server:deploy`.
 */
export const promoteRollout: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Rollout> = /* @__PURE__ */ operation(
  'promote_rollout', 'POST', '/api/v1/servers/{name}/rollout/promote', 'json', RolloutSchema,
)

/**
 * Get what was set on a server. Secrets are named, never shown. `change` is the body of a `PATCH` that changes nothing.
 * Needs: `server:read`.
 */
export const getServerSettings: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, CurrentSettings> = /* @__PURE__ */ operation(
  'get_server_settings', 'GET', '/api/v1/servers/{name}/settings', 'json', CurrentSettingsSchema,
)

/**
 * Start a server.
 * Needs: `server:operate`.
 */
export const startServer: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Server> = /* @__PURE__ */ operation(
  'start_server', 'POST', '/api/v1/servers/{name}/start', 'json', ServerSchema,
)

/**
 * Stop a server.
 * Needs: `server:operate`.
 */
export const stopServer: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Server> = /* @__PURE__ */ operation(
  'stop_server', 'POST', '/api/v1/servers/{name}/stop', 'json', ServerSchema,
)
