import { Plus, Trash2 } from 'lucide-react'
import { focusAfter } from '@/lib/focus-after'
import type { Form } from '@/lib/form'
import { t } from '@/lib/t'
import { Button, IconButton } from '@/ui/button'
import { Combobox } from '@/ui/combobox'
import { PasswordInput, TextInput } from '@/ui/inputs'
import { AsideButton, useCredentialNames } from '../settings-parts'
import type { HeaderRow } from './headers'
import { rowId } from './row-id'

/** The headers that a remote server gets with every request: rows that can be added, changed and removed. */
export function HeaderFields<Values extends { headers: HeaderRow[] }>({ form }: { form: Form<Values> }) {
  const names = useCredentialNames()
  const { headers } = form.values
  const set = (next: HeaderRow[], ...paths: string[]) =>
    // as: every form with headers takes them.
    form.set({ headers: next } as Partial<Values>, paths)
  const change = (id: string, changes: Partial<HeaderRow>) =>
    set(
      headers.map((row) => (row.id === id ? { ...row, ...changes } : row)),
      `headers.${id}`,
    )
  const add = (credential: string | undefined) => {
    const id = rowId()
    focusAfter(`header-${id}`, () => set([...headers, { id, name: '', value: '', credential }]))
  }
  return (
    <div className="flex flex-col gap-4">
      {headers.map((row) => (
        <div
          key={row.id}
          className="grid items-start gap-2 sm:grid-cols-[minmax(0,1fr)_minmax(0,1.5fr)_auto]"
        >
          <TextInput
            id={`header-${row.id}`}
            label={t('Name')}
            value={row.name}
            onValueChange={(name) => change(row.id, { name })}
            error={form.errorAt(`headers.${row.id}`)}
            placeholder="Authorization"
            autoComplete="off"
            mono
          />
          {row.credential === undefined ? (
            <PasswordInput
              id={`header-value-${row.id}`}
              label={t('Value')}
              value={row.value}
              onValueChange={(value) => change(row.id, { value })}
              placeholder="Bearer …"
            />
          ) : (
            <Combobox
              id={`header-value-${row.id}`}
              label={t('Credential')}
              value={row.credential}
              onValueChange={(credential) => change(row.id, { credential })}
              options={names.map((name) => ({ value: name, label: name }))}
              placeholder={t('Choose a credential')}
              aside={
                <AsideButton
                  focus={`header-value-${row.id}`}
                  onClick={() => change(row.id, { credential: undefined })}
                >
                  {t('Type a value instead')}
                </AsideButton>
              }
              mono
            />
          )}
          <IconButton
            icon={Trash2}
            label={t('Remove {name}', { name: row.name || t('the header') })}
            className="sm:mt-6"
            onClick={() =>
              set(
                headers.filter((one) => one.id !== row.id),
                `headers.${row.id}`,
              )
            }
          />
        </div>
      ))}
      <div className="flex flex-wrap gap-2">
        <Button size="small" icon={Plus} onClick={() => add(undefined)}>
          {t('Add a header')}
        </Button>
        {names.length > 0 && (
          <Button size="small" icon={Plus} onClick={() => add('')}>
            {t('Add a header from a credential')}
          </Button>
        )}
      </div>
    </div>
  )
}
