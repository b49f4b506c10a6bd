import type { Phase, Reason, Server } from '@/api/generated/types'
import { t } from '@/lib/t'
import { Status, type StatusKind } from '@/ui/status'

const KIND: Record<Phase, StatusKind> = {
  ready: 'good',
  pending: 'waiting',
  preparing: 'working',
  starting: 'working',
  degraded: 'warn',
  stopping: 'working',
  stopped: 'off',
  failed: 'bad',
  unknown: 'unknown',
}

/** How good a phase is. */
export function phaseKind(phase: Phase): StatusKind {
  // A newer server may know a phase that this console does not.
  return KIND[phase] ?? 'unknown'
}

/** A phase in words. */
export function phaseText(phase: Phase): string {
  const texts: Record<Phase, string> = {
    ready: t('Ready'),
    pending: t('Pending'),
    preparing: t('Preparing'),
    starting: t('Starting'),
    degraded: t('Degraded'),
    stopping: t('Stopping'),
    stopped: t('Stopped'),
    failed: t('Failed'),
    unknown: t('Unknown'),
  }
  return texts[phase] ?? phase
}

/** A reason in words. */
export function reasonText(reason: Reason): string {
  const texts: Record<Reason, string> = {
    requested: t('somebody asked for it'),
    awaiting_toolbox: t('waiting for a toolbox to take it'),
    resolving: t('determining the exact versions'),
    installing: t('installing its packages'),
    awaiting_probe: t('waiting for its first MCP answer'),
    answered: t('it answers'),
    image_not_found: t('the container image does not exist'),
    package_not_found: t('the package or version does not exist'),
    install_failed: t('its packages could not be installed'),
    checksum_mismatch: t('a downloaded file is not the one that was locked'),
    config_invalid: t('its configuration cannot work'),
    credential_missing: t('a required secret is not set'),
    credential_expired: t('a secret expired while Toolyard could not be reached'),
    start_timeout: t('it did not answer in time after its start'),
    handshake_failed: t('it answered, but not as an MCP server'),
    crash_loop: t('it ends again and again'),
    exited: t('its process ended'),
    out_of_memory: t('it used more memory than its limit'),
    out_of_disk: t('it kept more on disk than its limit'),
    probe_failed: t('it stopped answering'),
    toolbox_unreachable: t('its toolbox has been silent for too long'),
    toolbox_removed: t('the toolbox where it must run was removed'),
    engine_unavailable: t('what runs servers on its toolbox does not work'),
    unsupported_by_engine: t('its toolbox cannot do what it asks for'),
    no_capacity: t('no toolbox can take it'),
    remote_unreachable: t('its address cannot be reached'),
    quarantined: t('its catalog entry was withdrawn'),
    deadline_exceeded: t('it took longer than allowed'),
    superseded: t('another change took over'),
    tools_lost: t('it lists fewer tools than the one that serves'),
    observing: t('it serves, and is observed'),
    canary: t('it is tried on a part of the calls'),
    outside_window: t('it waits for the time in which changes may be made'),
    drained: t('its toolbox is being drained'),
    scaled_down: t('fewer instances are wanted'),
    internal: t('something broke in Toolyard'),
  }
  return texts[reason] ?? reason.replaceAll('_', ' ')
}

/** What a server that wants other credentials answers with (`HandshakeError::Status` in crates/mcp/src/error.rs). */
const NOT_LET_IN = /\bHTTP status 40[13]\b/

/** What a message says beyond its reason, which stands above it: nothing is told twice. */
export function beyondReason(reason: Reason, message: string): string {
  const said = reasonText(reason)
  if (!message.toLowerCase().startsWith(said.toLowerCase())) return message
  const rest = message.slice(said.length)
  // Only a whole sentence, or its first part, is the same.
  return /^(?:\s*[.;:,·–-]|\s*$)/.test(rest) ? rest.replace(/^[\s.;:,·–-]+/, '') : message
}

/** What is done about a server that runs elsewhere, where the advice for one that runs here is of no use. */
function remoteAdvice(reason: Reason): string | undefined {
  const texts: Partial<Record<Reason, string>> = {
    handshake_failed: t('Check its address and its protocol: what answers there may be no MCP server.'),
    probe_failed: t('Whoever runs it can see what keeps it. It is tried again by itself.'),
    deadline_exceeded: t(
      'Its address took long to answer. Try it again, or allow more time in the settings.',
    ),
  }
  return texts[reason]
}

/** What somebody can do about a reason; `undefined` when there is nothing to do, or nothing general to say. */
export function reasonAdvice(
  reason: Reason,
  { remote = false, message = '' }: { remote?: boolean; message?: string } = {},
): string | undefined {
  if (reason === 'handshake_failed' && NOT_LET_IN.test(message))
    return t(
      'It does not let Toolyard in. Check its headers in the settings, and the credential that they have their value from: it may be missing, wrong or expired.',
    )
  const elsewhere = remote ? remoteAdvice(reason) : undefined
  if (elsewhere !== undefined) return elsewhere
  const texts: Partial<Record<Reason, string>> = {
    awaiting_toolbox: t('A toolbox must be online. See the page of toolboxes.'),
    image_not_found: t('Check the image and its tag in the settings.'),
    package_not_found: t(
      'Its registry has no such package or version, or does not show it to everybody. Check the entry, or choose another version in the settings.',
    ),
    install_failed: t('The log says what the installation met. A restart tries it again.'),
    checksum_mismatch: t('The file at its registry changed. Choose another version, or ask its publisher.'),
    config_invalid: t('Correct the settings; the message says which one.'),
    credential_missing: t('Set the secret in the settings.'),
    credential_expired: t('Restart the server to give it the secret again.'),
    start_timeout: t('The log shows how far it came. It may need a longer start timeout in the settings.'),
    handshake_failed: t(
      'The log shows what it said instead. It may want other arguments, or be no MCP server.',
    ),
    crash_loop: t('Its error output shows why. Correct the settings, or choose another version.'),
    exited: t('Its error output shows why. Correct the settings, or choose another version.'),
    out_of_memory: t('Give it a higher memory limit in the settings.'),
    out_of_disk: t('Give it a higher disk limit in the settings.'),
    probe_failed: t('The log may show what keeps it. A restart replaces it.'),
    toolbox_unreachable: t('Look after the toolbox: its agent must reach Toolyard.'),
    toolbox_removed: t('It runs nowhere until it is moved: choose another toolbox for it, or any that can.'),
    engine_unavailable: t('Look after the toolbox: its page says what its engine misses.'),
    unsupported_by_engine: t('Move it to another toolbox, or ask for less in the settings.'),
    no_capacity: t('Bring a toolbox online that can take it.'),
    remote_unreachable: t('Check the address, and that this network reaches it.'),
    quarantined: t('Choose another entry, or ask who manages the catalog.'),
    deadline_exceeded: t('The log shows what took long. Try it again, or allow more time in the settings.'),
    internal: t('The log of Toolyard has the cause. Try it again.'),
  }
  return texts[reason]
}

/** Whether what served is gone, and no rollout says what comes next: a toolbox that can take it is missing. */
export function servesNowhere({
  enabled,
  kind,
  phase,
  instances,
  rollout,
}: Pick<Server, 'enabled' | 'kind' | 'phase' | 'instances' | 'rollout'>): boolean {
  const settled = rollout != null && rollout.state !== 'progressing'
  return enabled && kind !== 'remote' && phase === 'pending' && instances.length === 0 && settled
}

/** Whether somebody deleted it, and it is gone once its instances have ended: only its message tells. */
export function isBeingDeleted({ phase, message }: Pick<Server, 'phase' | 'message'>): boolean {
  return phase === 'stopping' && message?.startsWith('being deleted') === true
}

/** The state of a server: that of its phase, or that it is about to be gone. */
export function ServerStatus({ server }: { server: Pick<Server, 'phase' | 'message'> }) {
  if (isBeingDeleted(server)) return <Status kind="working">{t('Being deleted')}</Status>
  return <PhaseStatus phase={server.phase} />
}

/** The state of a server or an instance. */
export function PhaseStatus({ phase, className }: { phase: Phase; className?: string }) {
  return (
    <Status kind={phaseKind(phase)} className={className}>
      {phaseText(phase)}
    </Status>
  )
}
