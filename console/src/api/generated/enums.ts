// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { isString } from '../open-enum'

/** Something a principal may ask to do. Every API route and every MCP request maps to one. */
export type Action = (typeof ACTION)[number]
export const ACTION = ['catalog:read', 'catalog:rate', 'catalog:submit', 'catalog:review', 'catalog:manage', 'server:read', 'server:deploy', 'server:grant_path', 'server:operate', 'server:delete', 'server:grant_privilege', 'server:logs', 'tool:call', 'toolset:read', 'toolset:manage', 'toolbox:read', 'toolbox:manage', 'credential:read', 'credential:use', 'credential:manage', 'key:read', 'key:manage', 'member:read', 'member:manage', 'flag:read', 'flag:manage', 'audit:read', 'event:read', 'policy:explain', 'organization:manage'] as const
export const ActionSchema: v.GenericSchema<unknown, Action> = v.custom<Action>(isString)

/** Whether calls to a toolbox are let through. */
export type BreakerState = (typeof BREAKER_STATE)[number]
export const BREAKER_STATE = ['closed', 'open', 'half_open'] as const
export const BreakerStateSchema: v.GenericSchema<unknown, BreakerState> = v.custom<BreakerState>(isString)

/** How a call ended. */
export type CallOutcome = (typeof CALL_OUTCOME)[number]
export const CALL_OUTCOME = ['ok', 'tool_error', 'server_error', 'refused', 'server_not_ready', 'upstream_failed', 'timeout', 'cancelled'] as const
export const CallOutcomeSchema: v.GenericSchema<unknown, CallOutcome> = v.custom<CallOutcome>(isString)

/** A stable problem code. */
export type Code = (typeof CODE)[number]
export const CODE = ['bad_request', 'invalid_json', 'validation_failed', 'unauthenticated', 'invalid_credentials', 'token_invalid', 'token_used', 'token_expired', 'token_foreign', 'certificate_required', 'certificate_revoked', 'toolbox_removed', 'forbidden', 'reauthentication_required', 'csrf_rejected', 'feature_disabled', 'not_found', 'method_not_allowed', 'not_acceptable', 'already_exists', 'conflict', 'account_changed', 'idempotency_mismatch', 'precondition_failed', 'request_timeout', 'precondition_required', 'payload_too_large', 'unsupported_media_type', 'rate_limited', 'unsupported_by_engine', 'credential_missing', 'entry_invalid', 'server_not_ready', 'no_capacity', 'answer_dropped', 'upstream_failed', 'upstream_timeout', 'snapshot_stale', 'shutting_down', 'store_unavailable', 'version_unsupported', 'internal'] as const
export const CodeSchema: v.GenericSchema<unknown, Code> = v.custom<Code>(isString)

/** The two eras of MCP: before and after sessions were removed (`docs/ARCHITECTURE.md`). */
export type Era = (typeof ERA)[number]
export const ERA = ['legacy', 'modern'] as const
export const EraSchema: v.GenericSchema<unknown, Era> = v.custom<Era>(isString)

/** Who shares an instance. */
export type InstancingMode = (typeof INSTANCING_MODE)[number]
export const INSTANCING_MODE = ['shared', 'per_user', 'per_session'] as const
export const InstancingModeSchema: v.GenericSchema<unknown, InstancingMode> = v.custom<InstancingMode>(isString)

/** Where a log line came from. */
export type LogStream = (typeof LOG_STREAM)[number]
export const LOG_STREAM = ['stderr', 'stdout', 'toolyard'] as const
export const LogStreamSchema: v.GenericSchema<unknown, LogStream> = v.custom<LogStream>(isString)

/** How far back metrics go. */
export type MetricsWindow = (typeof METRICS_WINDOW)[number]
export const METRICS_WINDOW = ['15m', '1h', '24h', '7d'] as const
export const MetricsWindowSchema: v.GenericSchema<unknown, MetricsWindow> = v.custom<MetricsWindow>(isString)

/**
 * Where an instance is: `pending -> preparing -> starting -> ready <-> degraded -> stopping -> stopped`,
 * `failed` from any of them. Also the phase of a server, a roll-up of what serves now.
 */
export type Phase = (typeof PHASE)[number]
export const PHASE = ['pending', 'preparing', 'starting', 'ready', 'degraded', 'stopping', 'stopped', 'failed', 'unknown'] as const
export const PhaseSchema: v.GenericSchema<unknown, Phase> = v.custom<Phase>(isString)

/** What a sandbox refuses unless somebody with `server:grant_privilege` allowed it to this server. */
export type Privilege = (typeof PRIVILEGE)[number]
export const PRIVILEGE = ['new_namespaces', 'listen'] as const
export const PrivilegeSchema: v.GenericSchema<unknown, Privilege> = v.custom<Privilege>(isString)

/**
 * Why something is in its state. One table for instances, rollouts, servers and toolboxes.
 *
 * On a wire a word that this version does not know reads as `internal`: a newer peer may know more of them, and
 * the message beside it says what is meant.
 */
export type Reason = (typeof REASON)[number]
export const REASON = ['requested', 'awaiting_toolbox', 'resolving', 'installing', 'awaiting_probe', 'answered', 'image_not_found', 'package_not_found', 'install_failed', 'checksum_mismatch', 'config_invalid', 'credential_missing', 'credential_expired', 'start_timeout', 'handshake_failed', 'crash_loop', 'exited', 'out_of_memory', 'out_of_disk', 'probe_failed', 'toolbox_unreachable', 'toolbox_removed', 'engine_unavailable', 'unsupported_by_engine', 'no_capacity', 'remote_unreachable', 'quarantined', 'deadline_exceeded', 'superseded', 'tools_lost', 'observing', 'canary', 'outside_window', 'drained', 'scaled_down', 'internal'] as const
export const ReasonSchema: v.GenericSchema<unknown, Reason> = v.custom<Reason>(isString)

/** How a remote server is spoken to. */
export type RemoteTransport = (typeof REMOTE_TRANSPORT)[number]
export const REMOTE_TRANSPORT = ['streamable-http', 'sse'] as const
export const RemoteTransportSchema: v.GenericSchema<unknown, RemoteTransport> = v.custom<RemoteTransport>(isString)

/** What a report is about. */
export type ReportKind = (typeof REPORT_KIND)[number]
export const REPORT_KIND = ['web_vital', 'interaction', 'error'] as const
export const ReportKindSchema: v.GenericSchema<unknown, ReportKind> = v.custom<ReportKind>(isString)

/** A built-in role, from most to least power. */
export type Role = (typeof ROLE)[number]
export const ROLE = ['owner', 'admin', 'operator', 'developer', 'viewer'] as const
export const RoleSchema: v.GenericSchema<unknown, Role> = v.custom<Role>(isString)

/** Where a rollout is. */
export type RolloutState = (typeof ROLLOUT_STATE)[number]
export const ROLLOUT_STATE = ['progressing', 'done', 'rolled_back', 'cancelled', 'failed'] as const
export const RolloutStateSchema: v.GenericSchema<unknown, RolloutState> = v.custom<RolloutState>(isString)

/** How a revision replaces the previous one. */
export type Strategy = (typeof STRATEGY)[number]
export const STRATEGY = ['surge', 'recreate'] as const
export const StrategySchema: v.GenericSchema<unknown, Strategy> = v.custom<Strategy>(isString)

/** Where a toolbox is. */
export type ToolboxState = (typeof TOOLBOX_STATE)[number]
export const TOOLBOX_STATE = ['enrolling', 'online', 'unreachable', 'draining', 'removed'] as const
export const ToolboxStateSchema: v.GenericSchema<unknown, ToolboxState> = v.custom<ToolboxState>(isString)
