// Generated from openapi/public.json by `npm run generate`: do not edit.
export type {
  PageAuditRecord,
} from './audit'
export type {
  Call,
  CallRecord,
  OrganizationId,
  PageCall,
} from './calls'
export type {
  Argument,
  Category,
  CreateSource,
  Entry,
  EntrySummary,
  EntryVersionSummary,
  Icon,
  Input,
  KeyValueInput,
  Package,
  PageCategory,
  PageEntrySummary,
  PageEntryVersionSummary,
  PageSource,
  PublishEntry,
  Published,
  RateEntry,
  Repository,
  ReviewEntry,
  ServerJson,
  Source,
  SourceId,
  Transport,
  UpdateEntry,
  Validation,
} from './catalog'
export type {
  Connect,
  ConnectClient,
  ConnectFile,
  ConnectLink,
} from './connect'
export type {
  ConsoleReport,
  ConsoleReportsTaken,
  NewConsoleReport,
  PageConsoleReport,
  ReportId,
  SendConsoleReports,
} from './console'
export type {
  Credential,
  CredentialId,
  PageCredential,
  PutCredential,
} from './credentials'
export type {
  Action,
  BreakerState,
  CallOutcome,
  Code,
  Era,
  LogStream,
  MetricsWindow,
  Phase,
  Reason,
  RemoteTransport,
  ReportKind,
  Role,
  RolloutState,
  Strategy,
  ToolboxState,
} from './enums'
export type {
  Event,
} from './events'
export type {
  Flag,
  FlagRule,
  PageFlag,
} from './flags'
export type {
  ChangePassword,
  Session,
  SessionMcpKey,
  SignIn,
  Why,
} from './identity'
export type {
  ApiKey,
  CreateApiKey,
  CreatedApiKey,
  KeyScope,
  PageApiKey,
} from './keys'
export type {
  CreateMember,
  Member,
  PageMember,
  UpdateMember,
} from './members'
export type {
  CallMinute,
  CallsOverview,
  NextStep,
  OutcomeCount,
  Overview,
  PhaseCount,
  ServerTrouble,
  ServersOverview,
  ToolboxStateCount,
} from './overview'
export type {
  CallBucket,
  CloneServer,
  CreateServer,
  Egress,
  EntryVersion,
  Exit,
  Instance,
  InstanceId,
  InstanceResources,
  Limits,
  LogLine,
  McpInfo,
  PageRevision,
  PageServer,
  PathGrant,
  ProbeCall,
  Remote,
  ResourceSample,
  Revision,
  RevisionId,
  RevisionSpec,
  RollbackServer,
  Rollout,
  RolloutId,
  RolloutStep,
  Runtime,
  Server,
  ServerMetrics,
  ServerSettings,
  SpecPackage,
  UpdateServer,
  Usage,
} from './servers'
export type {
  ApiKeyId,
  AuditId,
  AuditRecord,
  EntryName,
  FieldError,
  Labels,
  Name,
  Problem,
  Secret,
  ServerId,
  Timestamp,
  ToolsetId,
  UserId,
} from './shared'
export type {
  Version,
} from './system'
export type {
  Enforcement,
  EnrollToolbox,
  EnrolledToolbox,
  PageToolbox,
  RejoinToolbox,
  Toolbox,
  ToolboxId,
  ToolboxLink,
  ToolboxReport,
  UpdateToolbox,
} from './toolboxes'
export type {
  PageToolset,
  PutToolset,
  Toolset,
  ToolsetMember,
} from './toolsets'
