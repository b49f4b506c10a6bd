import { useQuery } from '@tanstack/react-query'
import { may, useSession } from '@/api/session'
import type { FieldProps } from '@/lib/form'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Textarea } from '@/ui/inputs'
import { Select } from '@/ui/select'
import { LABELLED, REMOVED } from './place'
import { toolboxesQuery } from './queries'

/** Where a server runs: a toolbox, any, or any with certain labels. */
export function PlaceFields({
  toolbox,
  labels,
  hint,
  removed,
  byName = false,
  onlyUseful = false,
}: {
  /** The fields of a form with `PlaceValues`. */
  toolbox: FieldProps<string>
  labels: FieldProps<string>
  /** What choosing a toolbox means here. */
  hint: string
  /** What it is bound to and is gone, in words: it stands there until something else is chosen. */
  removed?: string | undefined
  /** Whether a toolbox must be named: leaves out what lets Toolyard choose one. */
  byName?: boolean
  /** Leaves out what no toolbox makes possible, and everything where there is nothing to choose; tells which labels there are. */
  onlyUseful?: boolean
}) {
  const session = useSession()
  const { data } = useQuery({ ...toolboxesQuery, enabled: may(session, 'toolbox:read') })
  const usable = data?.items.filter((one) => one.state !== 'removed') ?? []
  const known = usable.flatMap((one) => Object.entries(one.labels).map(([name, value]) => `${name}=${value}`))
  if (onlyUseful && usable.length < 2 && known.length === 0) return null
  return (
    <>
      <Select
        {...toolbox}
        label={t('Toolbox')}
        hint={hint}
        options={[
          ...(removed === undefined ? [] : [{ value: REMOVED, label: removed }]),
          ...(byName ? [] : [{ value: '', label: t('Toolyard chooses') }]),
          ...(byName || (onlyUseful && known.length === 0)
            ? []
            : [{ value: LABELLED, label: t('Any that has certain labels') }]),
          ...usable.map((one) => ({
            value: one.name,
            label: one.state === 'online' ? one.name : `${one.name} · ${one.state}`,
          })),
        ]}
      />
      {toolbox.value === LABELLED && (
        <Textarea
          {...labels}
          label={t('Labels')}
          hint={
            onlyUseful
              ? t('One a line; a toolbox must have all of them. There are: {labels}', {
                  labels: oneLine([...new Set(known)].join(', '), 300),
                })
              : t('One a line; a toolbox must have all of them.')
          }
          required
          mono
        />
      )}
    </>
  )
}
