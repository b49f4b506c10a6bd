/** The settings of a server as a form has them, what is wrong with them, and what the API takes. Pure. */
import * as v from 'valibot'
import type {
  Egress,
  Instancing,
  InstancingMode,
  Limits,
  Privilege,
  ProbeCall,
  ServerSettings,
  Strategy,
  Volume,
} from '@/api/generated/types'
import { same } from '@/lib/form'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { type InputField, inputIssue } from './inputs'

/** A variable beyond what the entry asks for. */
export interface VariableRow {
  /** Only for the screen. */
  id: string
  name: string
  value: string
  /** The credential that gives the value, instead of the text; `''` while none is chosen. */
  credential: string | undefined
}

/** A path of the toolbox's host that the server may use. */
export interface PathRow {
  id: string
  path: string
  writable: boolean
}

/** A place of the server's own that outlives its instances. */
export interface VolumeRow {
  id: string
  name: string
  path: string
}

/** Whom a server may reach. */
export type EgressPolicy = Egress['policy']

/** The settings as they stand on the screen. */
export interface SettingsValues {
  /** Values by input. */
  inputs: Record<string, string>
  /** Credentials by input: the input's value comes from there. `''` while none is chosen. */
  bound: Record<string, string>
  environment: VariableRow[]
  /** One argument a line. */
  arguments: string
  paths: PathRow[]
  volumes: VolumeRow[]
  /** In MiB. */
  memory: string
  processes: string
  /** In thousandths of a core; empty for no limit. */
  cpu: string
  /** In MiB. */
  disk: string
  /** Whether its sandbox lets it make new namespaces, and listen on TCP ports of its host. */
  newNamespaces: boolean
  listen: boolean
  strategy: Strategy
  /** Whom it may reach: everybody, nobody, or `hosts`. */
  egress: EgressPolicy
  /** One a line: `host`, `host:port` or `*.domain`. */
  hosts: string
  /** The tool that must answer before it counts as ready; empty for none. */
  probeTool: string
  /** The tool's arguments as JSON. */
  probeArguments: string
  /** The credential that pulls a container image; empty for nobody in particular. */
  registry: string
  /** How many instances serve at once. */
  replicas: string
  /** For how many seconds a new revision is observed while the old one waits. */
  observe: string
  /** At what time of day (UTC) it is restarted, such as `03:30`; empty for never. */
  restartAt: string
  /** When changes may be made (UTC), such as `sat,sun 02:00-05:00`; empty for at any time. */
  updateWindow: string
  /** Who shares an instance. */
  instancing: InstancingMode
  maxCopies: string
  /** In seconds. */
  idleStop: string
  warm: string
  /** In seconds. */
  startTimeout: string
  callTimeout: string
  rolloutTimeout: string
}

const MIB = 1024 * 1024
const TIME = /^(?:[01]\d|2[0-3]):[0-5]\d$/
const WINDOW =
  /^(?:(?:mon|tue|wed|thu|fri|sat|sun)(?:,(?:mon|tue|wed|thu|fri|sat|sun))* )?(?:[01]\d|2[0-3]):[0-5]\d-(?:[01]\d|2[0-3]):[0-5]\d$/

/** What the server takes when nothing is said (crates/types/src/spec.rs, crates/control/src/app/expand.rs). */
export const USUAL = {
  memory: '1024',
  processes: '256',
  cpu: '',
  disk: '1024',
  newNamespaces: false,
  listen: false,
  strategy: 'surge',
  egress: 'all',
  hosts: '',
  probeTool: '',
  probeArguments: '',
  registry: '',
  replicas: '1',
  observe: '5',
  restartAt: '',
  updateWindow: '',
  instancing: 'shared',
  maxCopies: '20',
  idleStop: '600',
  warm: '0',
  startTimeout: '60',
  callTimeout: '300',
  rolloutTimeout: '600',
} satisfies Partial<SettingsValues>

/** Settings of a new server: every input has its default. */
export function newSettings(fields: readonly InputField[]): SettingsValues {
  return {
    inputs: initialInputs(fields),
    bound: {},
    environment: [],
    arguments: '',
    paths: [],
    volumes: [],
    ...USUAL,
  }
}

/** The inputs with their defaults. */
export function initialInputs(fields: readonly InputField[]): Record<string, string> {
  return Object.fromEntries(fields.map((field) => [field.key, field.initial]))
}

/** Something that is wrong, and at which field of the form. */
export interface SettingsIssue {
  path: [string, ...string[]]
  message: string
}

/** Why a path of the host cannot be granted; `undefined` when nothing is known against it. */
export type PathProblem = (path: string, writable: boolean) => string | undefined

/** How the settings are used. */
export interface SettingsContext {
  fields: readonly InputField[]
  pathProblem?: PathProblem
  /** `npm`, `pypi`, `oci` or `remote`. One that runs elsewhere has no arguments, environment, paths, limits or egress. */
  kind: string
}

/** What is wrong with settings, by the server's own rules. */
export function settingsIssues(values: SettingsValues, context: SettingsContext): SettingsIssue[] {
  const issues: SettingsIssue[] = []
  const say = (message: string | undefined, ...path: [string, ...string[]]) => {
    if (message !== undefined) issues.push({ path, message })
  }
  for (const field of context.fields) say(fieldIssue(values, field, context), 'inputs', field.key)
  say(numberIssue(values.startTimeout, 0.1, 3600), 'startTimeout')
  say(numberIssue(values.callTimeout, 0.1, 86_400), 'callTimeout')
  say(numberIssue(values.rolloutTimeout, 1, 86_400), 'rolloutTimeout')
  say(jsonIssue(values), 'probeArguments')
  // TimeOfDay and UpdateWindow in crates/types/src/schedule.rs; what this lets through, the server looks at again.
  if (values.restartAt !== '' && !TIME.test(values.restartAt))
    say(t('Give a time such as 03:30'), 'restartAt')
  if (values.updateWindow !== '' && !WINDOW.test(values.updateWindow))
    say(t('Give a time such as 02:00-05:00, or sat,sun 02:00-05:00'), 'updateWindow')
  if (context.kind === 'remote') return issues
  say(wholeIssue(values.replicas, 1, 20), 'replicas')
  say(wholeIssue(values.observe, 0, 3600), 'observe')
  if (values.instancing !== 'shared') {
    say(wholeIssue(values.maxCopies, 1, 1000), 'maxCopies')
    say(numberIssue(values.idleStop, 1, 86_400), 'idleStop')
    say(wholeIssue(values.warm, 0, 1000), 'warm')
    if (values.instancing === 'per_session' && Number(values.replicas) > 1)
      say(t('A server with a copy for each session has one instance'), 'replicas')
  }
  for (const issue of volumeIssues(values)) issues.push(issue)
  say(numberIssue(values.memory, 16, 1024 * 1024), 'memory')
  say(numberIssue(values.processes, 4, 65_536), 'processes')
  if (values.cpu.trim() !== '') say(numberIssue(values.cpu, 0, 1_000_000), 'cpu')
  // Zero is no limit.
  if (values.disk.trim() !== '0') say(numberIssue(values.disk, 1, 16 * 1024 * 1024), 'disk')
  if (values.egress === 'hosts') say(hostsIssue(hostsOf(values)), 'hosts')
  const names = new Set<string>()
  for (const row of values.environment) {
    if (row.name === '' && row.value === '' && row.credential === undefined) continue
    const issue = row.credential === '' ? t('Choose a credential') : undefined
    say(variableIssue(row.name, names, context.fields) ?? issue, 'environment', row.id)
    names.add(row.name)
  }
  for (const row of values.paths) {
    if (row.path === '') continue
    const issue = row.path.startsWith('/') ? undefined : t('Give the whole path, such as /srv/data')
    say(issue ?? context.pathProblem?.(row.path, row.writable), 'paths', row.id)
  }
  return issues
}

/** The paths of the host that the server may see with these settings: rows, and inputs that are paths. */
export function grantsOf(
  values: Pick<SettingsValues, 'paths' | 'inputs' | 'bound' | 'volumes'>,
  context: SettingsContext,
): { path: string; writable: boolean }[] {
  if (context.kind === 'remote') return []
  const given = context.fields.filter(
    (field) => field.format === 'filepath' && values.bound[field.key] === undefined,
  )
  return [
    ...given
      .flatMap((field) => inputLines(field, values.inputs[field.key] ?? ''))
      .filter((path) => !isInVolume(path, values))
      .map((path) => ({ path, writable: false })),
    ...values.paths.filter((row) => row.path !== '').map(({ path, writable }) => ({ path, writable })),
  ]
}

/** Whether a path is that of a volume, or one in it: none of the host's (`is_in_volume` in crates/control/src/app/expand.rs). */
function isInVolume(path: string, values: Pick<SettingsValues, 'volumes'>): boolean {
  if (/\/\.\.(?:\/|$)/.test(path)) return false
  return volumesOf(values).some((volume) => volume.path !== '' && `${path}/`.startsWith(`${volume.path}/`))
}

function inputLines(field: InputField, value: string): string[] {
  if (value.trim() === '') return []
  return field.repeated ? value.split('\n').filter((line) => line !== '') : [value]
}

/** A volume has one writer: so one instance, shared, and never two at once. */
function volumeIssues(values: SettingsValues): SettingsIssue[] {
  const volumes = values.volumes.filter(isGiven)
  if (volumes.length === 0) return []
  const issues: SettingsIssue[] = []
  const [names, paths] = [new Set<string>(), new Set<string>()]
  for (const row of volumes) {
    const message = volumeIssue(row, names, paths)
    if (message !== undefined) issues.push({ path: ['volumes', row.id], message })
    names.add(row.name)
    paths.add(row.path)
  }
  if (volumes.length > 16)
    issues.push({ path: ['volumes'], message: t('A server has at most {count} volumes', { count: 16 }) })
  if (values.replicas.trim() !== '1')
    issues.push({ path: ['replicas'], message: t('A server with a volume has one instance') })
  if (values.instancing !== 'shared')
    issues.push({ path: ['instancing'], message: t('A server with a volume has no copies') })
  if (values.strategy !== 'recreate')
    issues.push({ path: ['strategy'], message: t('A volume has one writer: stop the old one first') })
  return issues
}

// Name in crates/types/src/name.rs, Volume in crates/types/src/spec.rs; what this lets through, the server looks at again.
function volumeIssue(
  row: VolumeRow,
  names: ReadonlySet<string>,
  paths: ReadonlySet<string>,
): string | undefined {
  if (!/^[a-z0-9]+(?:-[a-z0-9]+)*$/.test(row.name) || row.name.length > 40)
    return t('Name it with a–z, 0–9 and -, at most 40 characters')
  if (!/^(?:\/[^/:]+)+$/.test(row.path)) return t('Give the whole path, such as /data')
  if (/^\/(?:proc|sys|dev|tmp)(?:\/|$)/.test(row.path) || /\/\.\.?(?:\/|$)/.test(row.path))
    return t('A volume cannot be there')
  if (names.has(row.name)) return t('{name} is given twice', { name: row.name })
  if (paths.has(row.path)) return t('{name} is given twice', { name: row.path })
  return undefined
}

function isGiven(row: VolumeRow): boolean {
  return row.name !== '' || row.path !== ''
}

/** The volumes, as the API has them. */
export function volumesOf(values: Pick<SettingsValues, 'volumes'>): Volume[] {
  return values.volumes.filter(isGiven).map(({ name, path }) => ({ name, path }))
}

function hostsIssue(hosts: readonly string[]): string | undefined {
  if (hosts.length === 0) return t('Give a host, or choose “Nobody”')
  // EgressHost in crates/types/src/spec.rs; what this lets through, the server looks at again.
  const bad = hosts.find(
    (host) =>
      !/^(?:\[[\da-fA-F:.]+\]|(?:\*\.)?[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_][A-Za-z0-9_-]*)*)(?::\d{1,5})?$/.test(
        host,
      ),
  )
  return bad === undefined
    ? undefined
    : t('{host} is none of host, host:port and *.domain', { host: oneLine(bad, 100) })
}

function jsonIssue(values: SettingsValues): string | undefined {
  return values.probeTool.trim() === '' || jsonObject(values.probeArguments) !== undefined
    ? undefined
    : t('It is not a JSON object, such as {"timezone": "UTC"}')
}

function jsonObject(text: string): Record<string, unknown> | undefined {
  if (text.trim() === '') return {}
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined
  } catch {
    return undefined
  }
}

function fieldIssue(
  values: SettingsValues,
  field: InputField,
  { kind, pathProblem }: SettingsContext,
): string | undefined {
  const credential = values.bound[field.key]
  if (credential !== undefined) return credential === '' ? t('Choose a credential') : undefined
  const value = values.inputs[field.key] ?? ''
  if (value.trim() === '') {
    if (!field.required) return undefined
    return field.secret ? t('It needs a secret: give one, or choose a credential') : t('It needs a value')
  }
  const grants = field.format === 'filepath' && kind !== 'remote'
  return inputLines(field, value)
    .map(
      (one) =>
        inputIssue(field, one) ??
        (grants && !isInVolume(one, values) ? pathProblem?.(one, false) : undefined),
    )
    .find((issue) => issue !== undefined)
}

function variableIssue(
  name: string,
  before: ReadonlySet<string>,
  fields: readonly InputField[],
): string | undefined {
  if (name === '') return t('Give the variable a name')
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return t('Use only A–Z, a–z, 0–9 and _, and no digit first')
  if (before.has(name)) return t('{name} is given twice', { name })
  if (fields.some((field) => field.key === name)) return t('{name} is one of the settings above', { name })
  return undefined
}

function numberIssue(text: string, least: number, most: number): string | undefined {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value)) return t('Give a number')
  if (value < least || value > most)
    return t('Give a number from {least} to {most}', {
      least: least.toLocaleString(),
      most: most.toLocaleString(),
    })
  return undefined
}

function wholeIssue(text: string, least: number, most: number): string | undefined {
  return (
    numberIssue(text, least, most) ?? (Number.isInteger(Number(text)) ? undefined : t('Give a whole number'))
  )
}

/**
 * A refusal that only says, without naming a field, that a credential is gone, as one about the fields where it is
 * chosen; `undefined` for every other.
 */
export function credentialRefusal(
  values: Pick<SettingsValues, 'bound' | 'environment' | 'registry'>,
  error: unknown,
): { errors: { field: string; message: string }[] } | undefined {
  // as: only looks whether the fields are there.
  const { code, detail } = (typeof error === 'object' && error !== null ? error : {}) as Record<
    string,
    unknown
  >
  if (code !== 'credential_missing' || typeof detail !== 'string') return undefined
  const bound = [
    ...Object.entries(values.bound),
    ...values.environment.map((row) => [row.name, row.credential ?? ''] as const),
    ['registry', values.registry] as const,
  ]
  const errors = bound
    .filter(([, name]) => name !== '' && detail.includes(`no credential \`${name}\``))
    .map(([key, name]) => ({
      field: `credentials.${key}`,
      message: t('There is no credential {name} any more', { name: oneLine(name, 60) }),
    }))
  return errors.length === 0 ? undefined : { errors }
}

/** A schema of the whole form from the function that finds what is wrong with it. */
export function schemaOf<Values extends object>(
  issuesOf: (values: Values) => readonly SettingsIssue[],
): v.GenericSchema<unknown, Values> {
  return v.pipe(
    v.custom<Values>((values) => typeof values === 'object' && values !== null),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return
      for (const { path, message } of issuesOf(dataset.value)) {
        const [first, ...rest] = path.map((key) => ({
          type: 'object' as const,
          origin: 'value' as const,
          // as: what stands at a key is only for messages of valibot's own, which this does not use.
          input: dataset.value as Record<string, unknown>,
          key,
          value: undefined,
        }))
        if (first !== undefined) addIssue({ message, path: [first, ...rest] })
      }
    }),
  )
}

/** The field of the form where an error at a field of the API stands; `undefined` where the form has none. */
export function settingsFieldOf(values: Pick<SettingsValues, 'environment' | 'inputs'>) {
  const direct: Record<string, string> = {
    limits: 'memory',
    'limits.memory_bytes': 'memory',
    'limits.processes': 'processes',
    'limits.cpu_millis': 'cpu',
    'limits.disk_bytes': 'disk',
    privileges: 'newNamespaces',
    start_timeout_ms: 'startTimeout',
    call_timeout_ms: 'callTimeout',
    rollout_timeout_ms: 'rolloutTimeout',
    'egress.policy': 'egress',
    'egress.hosts': 'hosts',
    'probe_call.tool': 'probeTool',
    'probe_call.arguments': 'probeArguments',
    probe_call: 'probeTool',
    'credentials.registry': 'registry',
    replicas: 'replicas',
    observe_seconds: 'observe',
    restart_at: 'restartAt',
    update_window: 'updateWindow',
    'instancing.mode': 'instancing',
    'instancing.max_copies': 'maxCopies',
    'instancing.idle_stop_ms': 'idleStop',
    'instancing.warm': 'warm',
  }
  const given = (key: string): string | undefined => {
    if (Object.hasOwn(values.inputs, key)) return `inputs.${key}`
    const row = values.environment.find((one) => one.name === key)
    return row === undefined ? undefined : `environment.${row.id}`
  }
  return (field: string): string | undefined => {
    // An item of a list, such as `egress.hosts[2]`, stands where its list does.
    const own = direct[field.replace(/(?:\[\d+\]|\.\d+)+$/, '')]
    if (own !== undefined && !(field === 'credentials.registry' && given('registry') !== undefined))
      return own
    const [noun, rest] = splitOnce(field, '.')
    if (noun === 'inputs' || noun === 'credentials' || (noun === 'environment' && rest !== ''))
      return given(rest)
    return /^(?:arguments|paths|volumes)\b/.exec(field)?.[0] ?? field
  }
}

function splitOnce(text: string, at: string): [string, string] {
  const place = text.indexOf(at)
  return place < 0 ? [text, ''] : [text.slice(0, place), text.slice(place + at.length)]
}

/** What the API takes. Of an existing server only what differs from `before`. */
export function settingsBody(
  values: SettingsValues,
  context: SettingsContext,
  before: SettingsValues = newSettings(context.fields),
): ServerSettings {
  const inputs: Record<string, string> = {}
  const credentials: Record<string, string> = {}
  const unset: string[] = []
  for (const field of context.fields) {
    const credential = values.bound[field.key]
    const value = values.inputs[field.key] ?? ''
    if (credential !== undefined) {
      if (credential !== before.bound[field.key]) credentials[field.key] = credential
    } else if (value !== '') {
      if (value !== (before.inputs[field.key] ?? '')) inputs[field.key] = value
    } else if (before.bound[field.key] !== undefined || (before.inputs[field.key] ?? '') !== '')
      unset.push(field.key)
  }
  const body: ServerSettings = { inputs, credentials }
  if (context.kind !== 'remote') addProcessSettings(body, values, before, credentials, unset)
  if (unset.length > 0) body.unset_environment = unset
  const probe = probeOf(values)
  if (!same(probe, probeOf(before))) body.probe_call = probe ?? { tool: '' }
  if (values.restartAt !== before.restartAt) body.restart_at = values.restartAt
  if (values.updateWindow !== before.updateWindow) body.update_window = values.updateWindow
  if (values.strategy !== before.strategy) body.strategy = values.strategy
  if (values.startTimeout !== before.startTimeout) body.start_timeout_ms = milliseconds(values.startTimeout)
  if (values.callTimeout !== before.callTimeout) body.call_timeout_ms = milliseconds(values.callTimeout)
  if (values.rolloutTimeout !== before.rolloutTimeout)
    body.rollout_timeout_ms = milliseconds(values.rolloutTimeout)
  return body
}

function addProcessSettings(
  body: ServerSettings,
  values: SettingsValues,
  before: SettingsValues,
  credentials: Record<string, string>,
  unset: string[],
): void {
  const environment: Record<string, string> = {}
  for (const row of values.environment) {
    if (row.name === '') continue
    const old = before.environment.find((one) => one.name === row.name)
    if (row.credential !== undefined) {
      if (row.credential !== old?.credential) credentials[row.name] = row.credential
    } else if (old === undefined || old.credential !== undefined || old.value !== row.value)
      environment[row.name] = row.value
  }
  body.environment = environment
  for (const old of before.environment)
    if (!values.environment.some((one) => one.name === old.name)) unset.push(old.name)
  if (values.registry !== before.registry) {
    if (values.registry === '') unset.push('registry')
    else credentials['registry'] = values.registry
  }
  if (values.replicas !== before.replicas) body.replicas = Number(values.replicas)
  if (values.observe !== before.observe) body.observe_seconds = Number(values.observe)
  const instancing = instancingOf(values)
  if (!same(instancing, instancingOf(before))) body.instancing = instancing
  const egress = egressOf(values)
  if (!same(egress, egressOf(before))) body.egress = egress
  if (values.arguments !== before.arguments) body.arguments = lines(values.arguments)
  const paths = values.paths.filter((row) => row.path !== '')
  const samePaths =
    paths.length === before.paths.length &&
    paths.every(
      (row, place) =>
        row.path === before.paths[place]?.path && row.writable === before.paths[place]?.writable,
    )
  if (!samePaths) body.paths = paths.map(({ path, writable }) => ({ path, writable }))
  const volumes = volumesOf(values)
  if (!same(volumes, volumesOf(before))) body.volumes = volumes
  const changed = (['memory', 'processes', 'cpu', 'disk'] as const).some(
    (name) => values[name] !== before[name],
  )
  if (changed) body.limits = limitsOf(values)
  const privileges = privilegesOf(values)
  if (!same(privileges, privilegesOf(before))) body.privileges = privileges
}

function hostsOf(values: Pick<SettingsValues, 'hosts'>): string[] {
  return lines(values.hosts.replace(/[ \t]+/g, ''))
}

/** Whom it may reach, as the API has it. */
export function egressOf(values: Pick<SettingsValues, 'egress' | 'hosts'>): Egress {
  return values.egress === 'hosts' ? { policy: 'hosts', hosts: hostsOf(values) } : { policy: values.egress }
}

/** Who shares an instance, as the API has it. */
function instancingOf(values: SettingsValues): Instancing {
  return {
    mode: values.instancing,
    max_copies: Number(values.maxCopies),
    idle_stop_ms: milliseconds(values.idleStop),
    warm: Number(values.warm),
  }
}

/** Who shares an instance, for people. */
export function instancingText(mode: InstancingMode): string {
  switch (mode) {
    case 'per_user':
      return t('nobody: each user has a copy')
    case 'per_session':
      return t('nobody: each session has a copy')
    default:
      return t('everybody')
  }
}

/** The call that must succeed, as the API has it. */
function probeOf(values: Pick<SettingsValues, 'probeTool' | 'probeArguments'>): ProbeCall | undefined {
  const tool = values.probeTool.trim()
  return tool === '' ? undefined : { tool, arguments: jsonObject(values.probeArguments) ?? {} }
}

/** The limits as the API has them. */
export function limitsOf(values: Pick<SettingsValues, 'memory' | 'processes' | 'cpu' | 'disk'>): Limits {
  return {
    memory_bytes: Math.round(Number(values.memory) * MIB),
    processes: Math.round(Number(values.processes)),
    cpu_millis: values.cpu.trim() === '' ? 0 : Math.round(Number(values.cpu)),
    disk_bytes: Math.round(Number(values.disk) * MIB),
  }
}

/** What its sandbox allows it beyond what every server may, as the API has it. */
export function privilegesOf(values: Pick<SettingsValues, 'newNamespaces' | 'listen'>): Privilege[] {
  const privileges: Privilege[] = []
  if (values.newNamespaces) privileges.push('new_namespaces')
  if (values.listen) privileges.push('listen')
  return privileges
}

function milliseconds(seconds: string): number {
  return Math.round(Number(seconds) * 1000)
}

function lines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '')
}
