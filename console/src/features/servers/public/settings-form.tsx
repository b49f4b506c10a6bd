import { FolderCheck } from 'lucide-react'
import type { ReactNode } from 'react'
import type { Server } from '@/api/generated/types'
import { useDenied } from '@/api/session'
import { t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Combobox } from '@/ui/combobox'
import { NumberInput, PasswordInput, Textarea, TextInput } from '@/ui/inputs'
import { Select } from '@/ui/select'
import { Checkbox, RadioGroup } from '@/ui/toggles'
import { Paths, Variables, Volumes } from '../settings-lists'
import { AsideButton, Group, type SettingsForm, useCredentialNames } from '../settings-parts'
import type { InputField } from './inputs'
import type { PathProblem, SettingsValues } from './settings'
import { useGrantDenied } from './spec-denied'

/** What the entry asks for: one control for each input, fit for its format, choices and secrecy. */
export function InputFields<Values extends SettingsValues>({
  form,
  fields,
  pathProblem,
}: {
  form: SettingsForm<Values>
  fields: readonly InputField[]
  pathProblem: PathProblem | undefined
}) {
  const grantDenied = useGrantDenied()
  const credentials = useCredentialNames()
  const { inputs, bound } = form.values
  const change = (changes: Partial<SettingsValues>, key: string) =>
    // as: every form with settings takes a part of the settings.
    form.set(changes as Partial<Values>, [`inputs.${key}`])
  return (
    <div className="flex flex-col gap-4">
      {fields.map((field) => {
        const credential = bound[field.key]
        const suggestionProblem = field.suggestion === '' ? undefined : pathProblem?.(field.suggestion, false)
        const common = {
          id: `input-${field.key}`,
          name: `inputs.${field.key}`,
          label: <code className="id wrap-anywhere">{oneLine(field.key, 100)}</code>,
          hint: hintText(field, grantDenied, suggestionProblem),
          required: field.required,
          error: form.errorAt(`inputs.${field.key}`),
        }
        if (credential !== undefined) {
          return (
            <Combobox
              key={field.key}
              {...common}
              aside={
                <AsideButton
                  focus={common.id}
                  onClick={() => {
                    const { [field.key]: _, ...rest } = bound
                    change({ bound: rest }, field.key)
                  }}
                >
                  {field.secret ? t('Type a secret instead') : t('Type a value instead')}
                </AsideButton>
              }
              value={credential}
              onValueChange={(name) => change({ bound: { ...bound, [field.key]: name } }, field.key)}
              options={credentials.map((name) => ({ value: name, label: name }))}
              placeholder={t('Choose a credential')}
              mono
            />
          )
        }
        return (
          <InputControl
            key={field.key}
            field={field}
            common={common}
            value={inputs[field.key] ?? ''}
            onValueChange={(value) => change({ inputs: { ...inputs, [field.key]: value } }, field.key)}
            aside={
              field.suggestion !== '' &&
              (inputs[field.key] ?? '') === '' &&
              suggestionProblem === undefined ? (
                <AsideButton
                  icon={FolderCheck}
                  focus={common.id}
                  onClick={() => change({ inputs: { ...inputs, [field.key]: field.suggestion } }, field.key)}
                >
                  {t('Let it read {path}', { path: oneLine(field.suggestion, 60) })}
                </AsideButton>
              ) : field.secret && credentials.length > 0 ? (
                <AsideButton
                  focus={common.id}
                  onClick={() => change({ bound: { ...bound, [field.key]: '' } }, field.key)}
                >
                  {t('Use a credential')}
                </AsideButton>
              ) : undefined
            }
          />
        )
      })}
    </div>
  )
}

function hintText(
  field: InputField,
  grantDenied: string | undefined,
  suggestionProblem: string | undefined,
): string | undefined {
  const parts: string[] = []
  if (field.description !== '') parts.push(plainText(field.description, 600))
  if (field.template !== undefined && !field.secret)
    parts.push(t('Becomes part of {text}', { text: oneLine(field.template, 200) }))
  if (field.repeated) parts.push(t('One value a line.'))
  if (field.format === 'filepath') parts.push(t('A path on the toolbox’s host; the server may read it.'))
  if (field.format === 'filepath' && grantDenied !== undefined) parts.push(`${grantDenied}.`)
  else if (suggestionProblem !== undefined)
    parts.push(
      t('Its entry suggests {path}: {problem}.', {
        path: oneLine(field.suggestion, 60),
        problem: suggestionProblem,
      }),
    )
  if (field.secret) parts.push(t('Kept in the vault, and never shown again.'))
  return parts.length === 0 ? undefined : parts.join(' ')
}

function InputControl({
  field,
  common,
  value,
  onValueChange,
  aside,
}: {
  field: InputField
  common: {
    id: string
    name: string
    label: ReactNode
    hint: ReactNode
    required: boolean
    error: string | undefined
  }
  value: string
  onValueChange: (value: string) => void
  aside: ReactNode
}) {
  const empty = t('Not set')
  const placeholder = oneLine(field.placeholder || field.suggestion, 200)
  if (field.choices.length > 0) {
    const options = [
      ...(field.required && field.initial !== '' ? [] : [{ value: '', label: empty }]),
      ...field.choices.map((choice) => ({ value: choice, label: oneLine(choice, 100) })),
    ]
    return field.choices.length > 20 ? (
      <Combobox {...common} value={value} onValueChange={onValueChange} options={options} />
    ) : (
      <Select {...common} value={value} onValueChange={onValueChange} options={options} />
    )
  }
  if (field.secret) {
    return (
      <PasswordInput
        {...common}
        aside={aside}
        value={value}
        onValueChange={onValueChange}
        placeholder={placeholder}
        autoComplete="off"
      />
    )
  }
  if (field.format === 'boolean') {
    return (
      <Select
        {...common}
        value={value}
        onValueChange={onValueChange}
        options={[
          { value: '', label: empty },
          { value: 'true', label: t('Yes') },
          { value: 'false', label: t('No') },
        ]}
      />
    )
  }
  if (field.repeated)
    return (
      <Textarea
        {...common}
        aside={aside}
        value={value}
        onValueChange={onValueChange}
        placeholder={placeholder}
        mono
      />
    )
  if (field.format === 'number')
    return <NumberInput {...common} value={value} onValueChange={onValueChange} placeholder={placeholder} />
  return (
    <TextInput
      {...common}
      aside={aside}
      value={value}
      onValueChange={onValueChange}
      placeholder={placeholder}
      autoComplete="off"
      mono={field.format === 'filepath'}
    />
  )
}

/** What every server can have besides: limits, time, strategy; for packages also variables, arguments and paths. */
export function AdvancedFields<Values extends SettingsValues>({
  form,
  kind,
  server,
}: {
  form: SettingsForm<Values>
  /** `npm`, `pypi`, `oci` or `remote`. */
  kind: string
  /** The server, when it exists: its tools are suggested. */
  server?: Server
}) {
  const { values } = form
  const remote = kind === 'remote'
  const tools = [...new Set(server?.instances.flatMap((instance) => instance.mcp?.tool_names ?? []))]
  const set = (changes: Partial<SettingsValues>, ...paths: string[]) =>
    // as: every form with settings takes a part of the settings.
    form.set(changes as Partial<Values>, paths)
  const text = (
    name:
      | 'memory'
      | 'processes'
      | 'cpu'
      | 'disk'
      | 'startTimeout'
      | 'callTimeout'
      | 'rolloutTimeout'
      | 'replicas'
      | 'observe'
      | 'maxCopies'
      | 'idleStop'
      | 'warm'
      | 'updateWindow'
      | 'restartAt',
  ) => ({
    id: `settings-${name}`,
    name,
    value: values[name],
    onValueChange: (value: string) => set({ [name]: value }, name),
    error: form.errorAt(name),
  })
  return (
    <div className="flex flex-col gap-6">
      {!remote && (
        <>
          <Group title={t('Limits of one instance')}>
            <div className="grid gap-4 sm:grid-cols-4">
              <NumberInput {...text('memory')} label={t('Memory')} unit="MiB" required />
              <NumberInput {...text('processes')} label={t('Processes')} required />
              <NumberInput
                {...text('cpu')}
                label={t('Processor')}
                unit={t('mCPU')}
                placeholder={t('No limit')}
                hint={t('1000 is one core.')}
                required={false}
              />
              <NumberInput
                {...text('disk')}
                label={t('Disk')}
                unit="MiB"
                hint={t('What it keeps in its own folders; 0 is no limit, where this Toolyard allows that.')}
                required
              />
            </div>
          </Group>
          <Variables form={form} />
          <Group title={t('Arguments')}>
            <Textarea
              id="settings-arguments"
              name="arguments"
              label={t('More arguments')}
              hint={t('One a line, after the entry’s own. Nothing is run through a shell.')}
              required={false}
              value={values.arguments}
              onValueChange={(value) => set({ arguments: value }, 'arguments')}
              error={form.errorAt('arguments')}
              mono
            />
          </Group>
          <Paths form={form} />
          <Volumes form={form} />
          <Network form={form} />
          <Sandbox form={form} />
          {kind === 'oci' && (
            <Group title={t('Image')}>
              <Registry form={form} />
            </Group>
          )}
          <Group title={t('Instances')}>
            <div className="flex flex-col gap-4">
              <div className="grid gap-4 sm:grid-cols-3">
                <NumberInput
                  {...text('replicas')}
                  label={t('How many serve')}
                  hint={t('Spread over the toolboxes that fit.')}
                  required
                />
              </div>
              <RadioGroup
                label={t('Who shares one')}
                name="instancing"
                value={values.instancing}
                onValueChange={(instancing) =>
                  set({ instancing }, 'instancing', 'replicas', 'maxCopies', 'idleStop', 'warm')
                }
                error={form.errorAt('instancing')}
                options={[
                  {
                    value: 'shared',
                    label: t('Everybody'),
                    hint: t('For servers that keep nothing about who calls them.'),
                  },
                  {
                    value: 'per_user',
                    label: t('Nobody: each user has a copy'),
                    hint: t('A copy starts with the first call of a user or an API key.'),
                  },
                  {
                    value: 'per_session',
                    label: t('Nobody: each session has a copy'),
                    hint: t('Of a user, where the client has no sessions.'),
                  },
                ]}
              />
              {values.instancing !== 'shared' && (
                <div className="grid gap-4 sm:grid-cols-3">
                  <NumberInput {...text('maxCopies')} label={t('Copies at most')} required />
                  <NumberInput {...text('idleStop')} label={t('Stop an idle copy after')} unit="s" required />
                  <NumberInput {...text('warm')} label={t('Copies started ahead')} required />
                </div>
              )}
            </div>
          </Group>
        </>
      )}
      <Readiness form={form} tools={tools} />
      <Group title={t('Time')}>
        <div className="grid items-start gap-4 sm:grid-cols-3">
          <NumberInput {...text('startTimeout')} label={t('To start')} unit="s" required />
          <NumberInput {...text('callTimeout')} label={t('For one call')} unit="s" required />
        </div>
      </Group>
      <Group title={t('Changes')}>
        <div className="flex flex-col gap-4">
          {!remote && (
            <RadioGroup
              label={t('How a new one replaces the old')}
              name="strategy"
              value={values.strategy}
              onValueChange={(strategy) => set({ strategy }, 'strategy')}
              error={form.errorAt('strategy')}
              options={[
                {
                  value: 'surge',
                  label: t('Start the new one first'),
                  hint: t('The old one serves until the new one answers.'),
                },
                {
                  value: 'recreate',
                  label: t('Stop the old one first'),
                  hint: t('For servers of which only one may run, such as one that owns a file.'),
                },
              ]}
            />
          )}
          <div className="grid items-start gap-4 sm:grid-cols-3">
            <NumberInput {...text('rolloutTimeout')} label={t('Time for a rollout')} unit="s" required />
            {!remote && values.strategy === 'surge' && (
              <NumberInput
                {...text('observe')}
                label={t('To observe a new one')}
                unit="s"
                hint={t('The old one waits so long, to take over again when the new one fails.')}
                required
              />
            )}
          </div>
          <div className="grid items-start gap-4 sm:grid-cols-2">
            <TextInput
              {...text('updateWindow')}
              label={t('Changes only at')}
              placeholder="sat,sun 02:00-05:00"
              hint={t('Times and days in UTC. A change asked for outside waits. Empty: at any time.')}
              autoComplete="off"
              required={false}
              mono
            />
            <TextInput
              {...text('restartAt')}
              label={t('Restart it every day at')}
              placeholder="03:30"
              hint={t('In UTC. Empty: never.')}
              autoComplete="off"
              required={false}
              mono
            />
          </div>
        </div>
      </Group>
    </div>
  )
}

/** Whom it may reach over the network. */
function Network<Values extends SettingsValues>({ form }: { form: SettingsForm<Values> }) {
  const { values } = form
  const set = (changes: Partial<SettingsValues>) =>
    // as: every form with settings takes a part of the settings.
    form.set(changes as Partial<Values>, ['egress', 'hosts'])
  return (
    <Group title={t('Network')}>
      <div className="flex flex-col gap-4">
        <RadioGroup
          label={t('Whom it may reach')}
          name="egress"
          value={values.egress}
          onValueChange={(egress) => set({ egress })}
          error={form.errorAt('egress')}
          options={[
            { value: 'all', label: t('Everything its toolbox can reach') },
            {
              value: 'hosts',
              label: t('Only the hosts that are listed'),
              hint: t('Over HTTP and HTTPS, through a proxy of its toolbox.'),
            },
            { value: 'none', label: t('Nobody') },
          ]}
          hint={t(
            'The toolbox must be able to enforce it; one that runs plain processes can shut a server off, and cannot tell hosts apart.',
          )}
        />
        {values.egress === 'hosts' && (
          <Textarea
            id="settings-hosts"
            name="hosts"
            label={t('Hosts')}
            hint={t('One a line: api.example.com, api.example.com:8443, or *.example.com.')}
            value={values.hosts}
            onValueChange={(hosts) => set({ hosts })}
            error={form.errorAt('hosts')}
            required
            mono
          />
        )}
      </div>
    </Group>
  )
}

/** What its sandbox refuses unless somebody who may allows it. */
function Sandbox<Values extends SettingsValues>({ form }: { form: SettingsForm<Values> }) {
  const { values } = form
  // Taking one away is for who deploys.
  const denied = useDenied('server:grant_privilege')
  const set = (changes: Partial<SettingsValues>) =>
    // as: every form with settings takes a part of the settings.
    form.set(changes as Partial<Values>, ['newNamespaces', 'listen'])
  return (
    <Group title={t('Allowed beyond its sandbox')}>
      <div className="flex flex-col gap-3">
        <Checkbox
          name="newNamespaces"
          label={t('Make new namespaces')}
          hint={t('Browsers need it for a sandbox of their own.')}
          disabledReason={values.newNamespaces ? undefined : denied}
          value={values.newNamespaces}
          onValueChange={(newNamespaces) => set({ newNamespaces })}
          error={form.errorAt('newNamespaces')}
        />
        <Checkbox
          name="listen"
          label={t('Listen on TCP ports of its host')}
          hint={t('Other servers there reach it then.')}
          disabledReason={values.listen ? undefined : denied}
          value={values.listen}
          onValueChange={(listen) => set({ listen })}
          error={form.errorAt('listen')}
        />
      </div>
    </Group>
  )
}

/** Who pulls a container image. */
function Registry<Values extends SettingsValues>({ form }: { form: SettingsForm<Values> }) {
  const credentials = useCredentialNames()
  return (
    <Combobox
      id="settings-registry"
      name="registry"
      label={t('Credential that pulls the image')}
      hint={t('As user:password, or a token. None for an image that everybody may pull.')}
      value={form.values.registry}
      onValueChange={(registry) =>
        // as: every form with settings takes a part of the settings.
        form.set({ registry } as Partial<Values>, ['registry'])
      }
      options={[
        { value: '', label: t('None') },
        ...credentials.map((name) => ({ value: name, label: name })),
      ]}
      error={form.errorAt('registry')}
      required={false}
      mono
    />
  )
}

/** The tool call that must succeed before it serves. */
function Readiness<Values extends SettingsValues>({
  form,
  tools,
}: {
  form: SettingsForm<Values>
  tools: readonly string[]
}) {
  const { values } = form
  const set = (changes: Partial<SettingsValues>, ...paths: string[]) =>
    // as: every form with settings takes a part of the settings.
    form.set(changes as Partial<Values>, paths)
  return (
    <Group title={t('Readiness')}>
      <div className="grid items-start gap-4 sm:grid-cols-2">
        <div>
          <TextInput
            id="settings-probe-tool"
            name="probeTool"
            label={t('Tool that must answer')}
            hint={t('It is called once before a new instance serves. Choose one that changes nothing.')}
            value={values.probeTool}
            onValueChange={(probeTool) => set({ probeTool }, 'probeTool', 'probeArguments')}
            error={form.errorAt('probeTool')}
            list={tools.length > 0 ? 'settings-probe-tools' : undefined}
            autoComplete="off"
            required={false}
            mono
          />
          {tools.length > 0 && (
            <datalist id="settings-probe-tools">
              {tools.map((tool) => (
                <option key={tool} value={oneLine(tool, 128)} />
              ))}
            </datalist>
          )}
        </div>
        {values.probeTool.trim() !== '' && (
          <Textarea
            id="settings-probe-arguments"
            name="probeArguments"
            label={t('Its arguments')}
            hint={t('As JSON.')}
            placeholder="{}"
            value={values.probeArguments}
            onValueChange={(probeArguments) => set({ probeArguments }, 'probeArguments')}
            error={form.errorAt('probeArguments')}
            required={false}
            mono
          />
        )}
      </div>
    </Group>
  )
}
