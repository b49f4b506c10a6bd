import { useQuery } from '@tanstack/react-query'
import { listToolboxes } from '@/api/generated/toolboxes'
import { q } from '@/api/queries'
import { may, useSession } from '@/api/session'
import type { Form } from '@/lib/form'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Textarea } from '@/ui/inputs'
import { Select } from '@/ui/select'
import type { DeployValues } from './values'

/** Stands for "any toolbox with these labels": no toolbox can have this name. */
export const LABELLED = '*'

/** Where the server runs; nothing where there is nothing to choose. */
export function ToolboxField({ form }: { form: Form<DeployValues> }) {
  const session = useSession()
  const toolboxes = useQuery({ ...q(listToolboxes, {}), enabled: may(session, 'toolbox:read') })
  const usable = toolboxes.data?.items.filter((one) => one.state !== 'removed') ?? []
  const labels = usable.flatMap((one) =>
    Object.entries(one.labels).map(([name, value]) => `${name}=${value}`),
  )
  if (usable.length < 2 && labels.length === 0) return null
  return (
    <>
      <Select
        {...form.field('toolbox')}
        label={t('Toolbox')}
        hint={t('Where it runs.')}
        options={[
          { value: '', label: t('Toolyard chooses') },
          ...(labels.length > 0 ? [{ value: LABELLED, label: t('Any that has certain labels') }] : []),
          ...usable.map((one) => ({
            value: one.name,
            label: one.state === 'online' ? one.name : `${one.name} · ${one.state}`,
          })),
        ]}
      />
      {form.values.toolbox === LABELLED && (
        <Textarea
          {...form.field('labels')}
          label={t('Labels')}
          hint={t('One a line; a toolbox must have all of them. There are: {labels}', {
            labels: oneLine([...new Set(labels)].join(', '), 300),
          })}
          required
          mono
        />
      )}
    </>
  )
}

/** The labels of a text, one a line as `name=value`; what is wrong with the first bad line. */
export function labelsOf(text: string): { labels: Record<string, string>; wrong: string | undefined } {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
  const bad = lines.find((line) => !/^[^=]+=.*$/.test(line))
  const labels = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf('=')).trim(), line.slice(line.indexOf('=') + 1).trim()]),
  )
  if (lines.length === 0) return { labels, wrong: t('Give at least one label') }
  return {
    labels,
    wrong: bad === undefined ? undefined : t('{line} is not name=value', { line: oneLine(bad, 60) }),
  }
}
