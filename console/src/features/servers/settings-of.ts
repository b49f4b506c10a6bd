/** The settings form's values for a server that exists: what was set, as the API reads it back. Pure. */
import type { CurrentSettings } from '@/api/generated/types'
import { takesHeaders } from './public/headers'
import type { InputField, Offer } from './public/inputs'
import { newSettings, type SettingsValues } from './public/settings'

/** What the server runs, as its entry described it then. */
export function offerOf(settings: CurrentSettings): Offer {
  const offer: Offer = { kind: settings.kind, runs: true, why: '' }
  if (settings.package != null) offer.package = settings.package
  if (settings.remote != null) offer.remote = settings.remote
  return offer
}

/** What the form shows at first. */
export function settingsOf(settings: CurrentSettings, fields: readonly InputField[]): SettingsValues {
  const values = newSettings(fields)
  // What is set of a server without an entry are its headers, which stand by themselves.
  if (!takesHeaders(settings))
    for (const [key, value] of Object.entries(settings.inputs)) values.inputs[key] = value
  for (const [name, value] of Object.entries(settings.environment))
    values.environment.push({ id: `set-${name}`, name, value, credential: undefined })
  for (const [name, { id, name: shown }] of Object.entries(settings.credentials)) {
    const credential = shown ?? id
    if (fields.some((field) => field.key === name)) values.bound[name] = credential
    else if (name === 'registry' && settings.kind === 'oci') values.registry = credential
    else if (!takesHeaders(settings))
      values.environment.push({ id: `set-${name}`, name, value: '', credential })
  }
  values.arguments = settings.arguments.join('\n')
  values.paths = settings.paths.map(({ path, writable }) => ({
    id: `set-${path}`,
    path,
    writable: writable === true,
  }))
  values.volumes = (settings.volumes ?? []).map(({ name, path }) => ({ id: `set-${name}`, name, path }))
  values.memory = trimmed(settings.limits.memory_bytes / (1024 * 1024))
  values.processes = String(settings.limits.processes)
  values.cpu = settings.limits.cpu_millis ? String(settings.limits.cpu_millis) : ''
  const disk = settings.limits.disk_bytes
  if (disk !== undefined) values.disk = trimmed(disk / (1024 * 1024))
  values.newNamespaces = settings.privileges?.includes('new_namespaces') === true
  values.listen = settings.privileges?.includes('listen') === true
  values.egress = settings.egress.policy
  if (settings.egress.policy === 'hosts') values.hosts = settings.egress.hosts.join('\n')
  values.strategy = settings.strategy
  values.probeTool = settings.probe_call?.tool ?? ''
  const probe = settings.probe_call?.arguments ?? {}
  values.probeArguments = Object.keys(probe).length === 0 ? '' : JSON.stringify(probe, null, 2)
  values.replicas = String(settings.replicas)
  values.observe = String(settings.observe_seconds)
  values.restartAt = settings.restart_at ?? ''
  values.updateWindow = settings.update_window ?? ''
  const { instancing } = settings
  if (instancing.mode !== undefined) values.instancing = instancing.mode
  if (instancing.max_copies !== undefined) values.maxCopies = String(instancing.max_copies)
  if (instancing.idle_stop_ms !== undefined) values.idleStop = trimmed(instancing.idle_stop_ms / 1000)
  if (instancing.warm !== undefined) values.warm = String(instancing.warm)
  values.startTimeout = trimmed(settings.start_timeout_ms / 1000)
  values.callTimeout = trimmed(settings.call_timeout_ms / 1000)
  values.rolloutTimeout = trimmed(settings.rollout_timeout_ms / 1000)
  return values
}

function trimmed(value: number): string {
  return String(Math.round(value * 1000) / 1000)
}
