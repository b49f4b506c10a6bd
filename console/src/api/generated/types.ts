// Generated from openapi/public.json by `npm run generate`: do not edit.
export type {
  AuditId,
  AuditRecord,
  PageAuditRecord,
} from './audit'
export type {
  CallRecord,
  OrganizationId,
  PageCallRecord,
} from './calls'
export type {
  Category,
  CreateSource,
  Entry,
  EntrySummary,
  EntryVersionSummary,
  Icon,
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
  UpdateEntry,
  Validation,
} from './catalog'
export type {
  Credential,
  CredentialId,
  PageCredential,
  PutCredential,
} from './credentials'
export type {
  Action,
  CallOutcome,
  Code,
  Era,
  LogStream,
  Phase,
  Reason,
  RemoteTransport,
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
  SignIn,
  Why,
} from './identity'
export type {
  ApiKey,
  ApiKeyId,
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
  UserId,
} from './members'
export type {
  CloneServer,
  CreateServer,
  EntryVersion,
  Exit,
  Instance,
  InstanceId,
  Limits,
  LogLine,
  McpInfo,
  PageRevision,
  PageServer,
  PathGrant,
  ProbeCall,
  Remote,
  Revision,
  RevisionId,
  RevisionSpec,
  RollbackServer,
  Rollout,
  RolloutId,
  RolloutStep,
  Runtime,
  Server,
  ServerSettings,
  UpdateServer,
  Usage,
} from './servers'
export type {
  Argument,
  EntryName,
  FieldError,
  Input,
  KeyValueInput,
  Name,
  Package,
  Problem,
  Secret,
  ServerId,
  Timestamp,
  ToolsetId,
  Transport,
} from './shared'
export type {
  Version,
} from './system'
export type {
  Enforcement,
  EnrollToolbox,
  EnrolledToolbox,
  PageToolbox,
  Toolbox,
  ToolboxId,
  ToolboxReport,
} from './toolboxes'
export type {
  PageToolset,
  PutToolset,
  Toolset,
  ToolsetMember,
} from './toolsets'
