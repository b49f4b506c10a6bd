import { Plus, Trash2 } from 'lucide-react'
import type { ReactNode } from 'react'
import { focusAfter } from '@/lib/focus-after'
import { t } from '@/lib/t'
import { Button, IconButton } from '@/ui/button'
import { Combobox } from '@/ui/combobox'
import { TextInput } from '@/ui/inputs'
import { Checkbox } from '@/ui/toggles'
import { rowId } from './public/row-id'
import type { SettingsValues } from './public/settings'
import { useGrantDenied } from './public/spec-denied'
import { AsideButton, Group, type SettingsForm, useCredentialNames } from './settings-parts'

/** A list of settings: rows that can be added and removed. */
function Rows<Row extends { id: string }>({
  title,
  rows,
  nameOf,
  onRemove,
  error,
  add,
  addDenied,
  onAdd,
  focusOf,
  hint,
  rowClassName = 'flex flex-wrap items-start gap-x-3 gap-y-2',
  children,
}: {
  title: string
  rows: readonly Row[]
  /** What the button that removes a row calls it. */
  nameOf: (row: Row) => string
  /** Gets what is left, and what was removed. */
  onRemove: (rest: Row[], row: Row) => void
  /** What is wrong with the list as a whole. */
  error?: string | undefined
  /** The text of the button that adds a row. */
  add: string
  /** Why none can be added. */
  addDenied?: string | undefined
  onAdd: (id: string) => void
  /** The id of a row's first control: a new row is filled in next. */
  focusOf: (id: string) => string
  hint: string
  rowClassName?: string
  /** The controls of a row. `change` gives the list with a changed row. */
  children: (row: Row, change: (changes: Partial<Row>) => Row[]) => ReactNode
}) {
  return (
    <Group title={title}>
      <div className="flex flex-col gap-3">
        {rows.map((row) => (
          <div key={row.id} className={rowClassName}>
            {children(row, (changes) =>
              rows.map((one) => (one.id === row.id ? { ...one, ...changes } : one)),
            )}
            <IconButton
              icon={Trash2}
              label={t('Remove {name}', { name: nameOf(row) })}
              className="sm:mt-6"
              onClick={() =>
                onRemove(
                  rows.filter((one) => one.id !== row.id),
                  row,
                )
              }
            />
          </div>
        ))}
        {error !== undefined && (
          <p data-invalid="" tabIndex={-1} className="text-sm text-bad outline-none">
            {error}
          </p>
        )}
        <div>
          <Button
            size="small"
            icon={Plus}
            disabledReason={addDenied}
            onClick={() => {
              const id = rowId()
              focusAfter(focusOf(id), () => onAdd(id))
            }}
          >
            {add}
          </Button>
          <p className="mt-1.5 text-sm text-muted">{hint}</p>
        </div>
      </div>
    </Group>
  )
}

/** Environment variables besides those that the entry asks for. */
export function Variables<Values extends SettingsValues>({ form }: { form: SettingsForm<Values> }) {
  const credentials = useCredentialNames()
  const { environment } = form.values
  const set = (next: SettingsValues['environment'], id: string) =>
    // as: every form with settings takes a part of the settings.
    form.set({ environment: next } as Partial<Values>, [
      `environment.${id}`,
      ...(id === '' ? [] : ['environment']),
    ])
  return (
    <Rows
      title={t('More environment variables')}
      rows={environment}
      nameOf={(row) => row.name || t('the variable')}
      onRemove={(rest, row) => set(rest, row.id)}
      error={form.errorAt('environment')}
      add={t('Add a variable')}
      onAdd={(id) => set([...environment, { id, name: '', value: '', credential: undefined }], '')}
      focusOf={(id) => `variable-${id}`}
      hint={t('A plain value is shown to everybody who can see the server. For a secret, use a credential.')}
      rowClassName="grid items-start gap-2 sm:grid-cols-[minmax(0,1fr)_minmax(0,1fr)_auto]"
    >
      {(row, change) => (
        <>
          <TextInput
            id={`variable-${row.id}`}
            label={t('Name')}
            value={row.name}
            onValueChange={(name) => set(change({ name }), row.id)}
            error={form.errorAt(`environment.${row.id}`)}
            autoComplete="off"
            placeholder="LOG_LEVEL"
            mono
          />
          {row.credential !== undefined ? (
            <Combobox
              id={`value-${row.id}`}
              label={t('Credential')}
              value={row.credential}
              onValueChange={(credential) => set(change({ credential }), row.id)}
              options={credentials.map((name) => ({ value: name, label: name }))}
              placeholder={t('Choose a credential')}
              aside={
                <AsideButton
                  focus={`value-${row.id}`}
                  onClick={() => set(change({ credential: undefined }), row.id)}
                >
                  {t('Text instead')}
                </AsideButton>
              }
              mono
            />
          ) : (
            <TextInput
              id={`value-${row.id}`}
              label={t('Value')}
              value={row.value}
              onValueChange={(value) => set(change({ value }), row.id)}
              autoComplete="off"
              aside={
                credentials.length === 0 ? undefined : (
                  <AsideButton
                    focus={`value-${row.id}`}
                    onClick={() => set(change({ credential: '' }), row.id)}
                  >
                    {t('Use a credential')}
                  </AsideButton>
                )
              }
              mono
            />
          )}
        </>
      )}
    </Rows>
  )
}

/** What outlives the instances. */
export function Volumes<Values extends SettingsValues>({ form }: { form: SettingsForm<Values> }) {
  const { volumes } = form.values
  const set = (next: SettingsValues['volumes'], ...errors: string[]) =>
    // as: every form with settings takes a part of the settings.
    form.set({ volumes: next } as Partial<Values>, ['volumes', ...errors])
  const add = (id: string) => {
    const next = [...volumes, { id, name: '', path: '' }]
    // as: every form with settings takes a part of the settings.
    const changes = { volumes: next, strategy: 'recreate' } as Partial<Values>
    form.set(changes, ['volumes', 'strategy'])
  }
  return (
    <Rows
      title={t('Volumes')}
      rows={volumes}
      nameOf={(row) => row.name || t('the volume')}
      onRemove={(rest, row) => set(rest, `volumes.${row.id}`, 'strategy', 'instancing', 'replicas')}
      error={form.errorAt('volumes')}
      add={t('Add a volume')}
      onAdd={add}
      focusOf={(id) => `volume-name-${id}`}
      hint={t(
        'A volume outlives instances and revisions, and is removed with the server. It needs a toolbox with containers, and the server then stays on that toolbox.',
      )}
    >
      {(row, change) => (
        <>
          <TextInput
            id={`volume-name-${row.id}`}
            className="min-w-32 flex-1"
            label={t('Name')}
            value={row.name}
            onValueChange={(name) => set(change({ name }), `volumes.${row.id}`)}
            error={form.errorAt(`volumes.${row.id}`)}
            autoComplete="off"
            placeholder="data"
            mono
          />
          <TextInput
            id={`volume-path-${row.id}`}
            className="min-w-48 flex-1"
            label={t('Path for the server')}
            value={row.path}
            onValueChange={(path) => set(change({ path }), `volumes.${row.id}`)}
            autoComplete="off"
            placeholder="/data"
            mono
          />
        </>
      )}
    </Rows>
  )
}

/** Files of the toolbox's host that the server may see. */
export function Paths<Values extends SettingsValues>({ form }: { form: SettingsForm<Values> }) {
  const { paths } = form.values
  const denied = useGrantDenied()
  const set = (next: SettingsValues['paths'], id: string) =>
    // as: every form with settings takes a part of the settings.
    form.set({ paths: next } as Partial<Values>, [`paths.${id}`, ...(id === '' ? [] : ['paths'])])
  return (
    <Rows
      title={t('Paths of the host')}
      rows={paths}
      nameOf={(row) => row.path || t('the path')}
      onRemove={(rest, row) => set(rest, row.id)}
      error={form.errorAt('paths')}
      add={t('Add a path')}
      addDenied={denied}
      onAdd={(id) => set([...paths, { id, path: '', writable: false }], '')}
      focusOf={(id) => `path-${id}`}
      hint={t(
        'A server sees only its package, its own directory, and these paths, as far as the toolbox grants them.',
      )}
    >
      {(row, change) => (
        <>
          <TextInput
            id={`path-${row.id}`}
            className="min-w-48 flex-1"
            label={t('Path')}
            value={row.path}
            onValueChange={(path) => set(change({ path }), row.id)}
            error={form.errorAt(`paths.${row.id}`)}
            autoComplete="off"
            placeholder="/srv/data"
            mono
          />
          <div className="sm:mt-7">
            <Checkbox
              label={t('May write')}
              value={row.writable}
              onValueChange={(writable) => set(change({ writable }), row.id)}
            />
          </div>
        </>
      )}
    </Rows>
  )
}
