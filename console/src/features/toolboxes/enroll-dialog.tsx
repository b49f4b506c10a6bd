import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useEffect, useState } from 'react'
import * as v from 'valibot'
import { callToSave } from '@/api/answer-lost'
import { call } from '@/api/client'
import { enrollToolbox, listToolboxes, rejoinToolbox, updateToolbox } from '@/api/generated/toolboxes'
import type { EnrolledToolbox, Toolbox } from '@/api/generated/types'
import { useOnce } from '@/api/once'
import { invalidate } from '@/api/queries'
import { type FieldProps, takenAt, useForm } from '@/lib/form'
import { formatTime } from '@/lib/format'
import { nameSchema } from '@/lib/name'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { CancelButton, Dialog } from '@/ui/dialog'
import { ErrorNote } from '@/ui/error-state'
import { TextInput } from '@/ui/inputs'
import { ButtonLink } from '@/ui/link'
import { LiveRegion } from '@/ui/live-region'
import { Notice } from '@/ui/notice'
import { Select } from '@/ui/select'
import { CloseButton, OnceCode, useShownOnce } from '@/ui/shown-once'
import { Status } from '@/ui/status'
import { readLabels } from './labels'
import { toolboxQuery } from './public/queries'
import { labelsText } from './public/toolbox-state'

const LABELS = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const read = readLabels(dataset.value)
    if ('labels' in read) return read.labels
    addIssue({ message: read.problem })
    return NEVER
  }),
)

/** Where an agent listens; empty when it dials. The server looks at the rest. */
const ADDRESS = v.pipe(
  v.string(),
  v.trim(),
  v.regex(/^(?:$|.+:[0-9]{1,5}$)/, t('A host and a port, such as edge-1.example.com:8082')),
)

const tokenLost = () => t('The command was not copied, and cannot be shown again. Another token can be made.')

/** Makes a toolbox, shows the command for its host this once, and waits for its agent. */
export function EnrollDialog({ onClose }: { onClose: () => void }) {
  const [made, setMade] = useState<EnrolledToolbox>()
  const settle = useShownOnce({ shown: made !== undefined, lost: tokenLost() })
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title={made === undefined ? t('Add a toolbox') : t('Join {name}', { name: made.toolbox.name })}
      {...(made === undefined
        ? {
            description: t(
              'Another host that runs servers. Its agent dials out to Toolyard and needs no open port, unless it listens.',
            ),
          }
        : {})}
    >
      {made === undefined ? <Enroll onMade={setMade} /> : <Join made={made} settle={settle} />}
    </Dialog>
  )
}

/** Makes another token for a toolbox, and waits until its agent joined with it. */
export function RejoinDialog({ name, onClose }: { name: string; onClose: () => void }) {
  const [made, setMade] = useState<EnrolledToolbox>()
  const settle = useShownOnce({ shown: made !== undefined, lost: tokenLost() })
  const once = useOnce()
  const form = useForm({
    initial: { lifetime: '3600' },
    schema: v.object({ lifetime: v.pipe(v.string(), v.transform(Number)) }),
    submit: async ({ lifetime }) => {
      const body = { expires_seconds: lifetime }
      const rejoin = (idempotencyKey: string) =>
        call(rejoinToolbox, { path: { name }, body }, { idempotencyKey })
      setMade(await once(body, rejoin))
      form.reset()
    },
    fieldOf: () => 'lifetime',
  })
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title={made === undefined ? t('Let {name} join again', { name }) : t('Join {name}', { name })}
      {...(made === undefined
        ? {
            description: t(
              'For a host that was installed anew, was revoked, or was away for more than a month. Certificates that it has stay good until it joins.',
            ),
          }
        : {})}
    >
      {made === undefined ? (
        <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
          <Lifetime field={form.field('lifetime')} />
          <ErrorNote error={form.submitError} />
          <div className="flex flex-wrap justify-end gap-2">
            <CancelButton />
            <Button type="submit" variant="primary" busy={form.submitting}>
              {t('Make a token')}
            </Button>
          </div>
        </form>
      ) : (
        <Join made={made} settle={settle} />
      )}
    </Dialog>
  )
}

/** Changes what servers may ask of a toolbox. */
export function LabelsDialog({ toolbox, onClose }: { toolbox: Toolbox; onClose: () => void }) {
  const client = useQueryClient()
  const { name } = toolbox
  const form = useForm({
    initial: { labels: labelsText(toolbox.labels) },
    schema: v.object({ labels: LABELS }),
    submit: async ({ labels }) => {
      const after = await callToSave(updateToolbox, { path: { name }, body: { labels } })
      client.setQueryData(toolboxQuery(name).queryKey, after)
      await invalidate(client, listToolboxes)
      onClose()
    },
    fieldOf: () => 'labels',
  })
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title={t('Labels of {name}', { name })}
      description={t('Servers that were placed by labels before stay where they are.')}
    >
      <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
        <TextInput
          {...form.field('labels')}
          label={t('Labels')}
          placeholder="zone=a, gpu=yes"
          autoComplete="off"
          mono
          required={false}
        />
        <ErrorNote error={form.submitError} />
        <div className="flex flex-wrap justify-end gap-2">
          <CancelButton />
          <Button type="submit" variant="primary" busy={form.submitting}>
            {t('Save the labels')}
          </Button>
        </div>
      </form>
    </Dialog>
  )
}

/** Changes where a toolbox's agent listens, or that it dials. */
export function AddressDialog({ toolbox, onClose }: { toolbox: Toolbox; onClose: () => void }) {
  const client = useQueryClient()
  const { name } = toolbox
  const form = useForm({
    initial: { address: toolbox.address ?? '' },
    schema: v.object({ address: ADDRESS }),
    submit: async ({ address }) => {
      const after = await callToSave(updateToolbox, { path: { name }, body: { address } })
      client.setQueryData(toolboxQuery(name).queryKey, after)
      await invalidate(client, listToolboxes)
      onClose()
    },
    fieldOf: () => 'address',
  })
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title={t('Address of {name}', { name })}
      description={t('Connections that are open stay. The agent must be started to listen, or to dial.')}
    >
      <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
        <Address field={form.field('address')} />
        <ErrorNote error={form.submitError} />
        <div className="flex flex-wrap justify-end gap-2">
          <CancelButton />
          <Button type="submit" variant="primary" busy={form.submitting}>
            {t('Save the address')}
          </Button>
        </div>
      </form>
    </Dialog>
  )
}

function Address({ field }: { field: FieldProps<string> }) {
  return (
    <TextInput
      {...field}
      label={t('Address where the agent listens')}
      hint={t('Only for a host that must not dial out. Toolyard connects to it.')}
      placeholder="edge-1.example.com:8082"
      autoComplete="off"
      mono
      required={false}
    />
  )
}

function Lifetime({ field }: { field: FieldProps<string> }) {
  return (
    <Select
      {...field}
      label={t('The token is good for')}
      hint={t('And for one join.')}
      options={[
        { value: '3600', label: t('An hour') },
        { value: '86400', label: t('A day') },
        { value: '604800', label: t('7 days') },
      ]}
    />
  )
}

function Enroll({ onMade }: { onMade: (made: EnrolledToolbox) => void }) {
  const client = useQueryClient()
  const once = useOnce()
  const form = useForm({
    initial: { name: '', labels: '', address: '', lifetime: '3600' },
    schema: v.object({
      name: nameSchema,
      labels: LABELS,
      address: ADDRESS,
      lifetime: v.pipe(v.string(), v.transform(Number)),
    }),
    submit: async ({ name, labels, address, lifetime }) => {
      const body = { name, labels, expires_seconds: lifetime, ...(address === '' ? {} : { address }) }
      const taken = takenAt('name', t('There is a toolbox of this name'))
      const enroll = (idempotencyKey: string) => call(enrollToolbox, { body }, { idempotencyKey })
      onMade(await once(body, enroll).catch(taken))
      await invalidate(client, listToolboxes)
    },
    fieldOf: (field) =>
      field === 'expires_seconds' ? 'lifetime' : field.startsWith('labels') ? 'labels' : field,
  })
  return (
    <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
      <TextInput
        {...form.field('name')}
        label={t('Name')}
        autoComplete="off"
        mono
        required
        placeholder="edge-1"
      />
      <TextInput
        {...form.field('labels')}
        label={t('Labels')}
        hint={t('What servers may ask of a toolbox.')}
        placeholder="zone=a, gpu=yes"
        autoComplete="off"
        mono
        required={false}
      />
      <Address field={form.field('address')} />
      <Lifetime field={form.field('lifetime')} />
      <ErrorNote error={form.submitError} />
      <div className="flex flex-wrap justify-end gap-2">
        <CancelButton />
        <Button type="submit" variant="primary" busy={form.submitting}>
          {t('Make a token')}
        </Button>
      </div>
    </form>
  )
}

function Join({ made, settle }: { made: EnrolledToolbox; settle: () => void }) {
  const { name } = made.toolbox
  const { data = made.toolbox } = useQuery({ ...toolboxQuery(name), refetchInterval: 5_000 })
  // A toolbox that joins again may be online all the time: a new certificate tells that the token was used.
  const joined =
    data.certificate_expires_at != null &&
    data.certificate_expires_at !== made.toolbox.certificate_expires_at &&
    (data.state === 'online' || data.state === 'draining')
  useEffect(() => {
    // The token was used: nothing is lost any more.
    if (joined) settle()
  }, [joined, settle])
  return (
    <div className="flex flex-col gap-4">
      <p>{t('Install Toolyard on the host, then run there:')}</p>
      <OnceCode code={made.command} label={t('Command for the host')} onCopied={settle} />
      <Notice tone="warn" title={t('The token is shown only now')}>
        {t('It is good for one join until {time}.', { time: formatTime(made.expires_at) })}
      </Notice>
      <p className="text-muted">
        {made.toolbox.address == null ? (
          <>
            {t('The agent dials')}{' '}
            <code className="id">{made.addresses.map((address) => oneLine(address, 200)).join(', ')}</code>.{' '}
            {made.addresses.every(isLoopback)
              ? t('Only this machine reaches that: set agent_listen and agent_addresses for other hosts.')
              : t('The host must reach it.')}
          </>
        ) : (
          <>
            {t('Toolyard connects to')} <code className="id">{oneLine(made.toolbox.address, 300)}</code>.{' '}
            {t('It must lead to the host from here.')}
          </>
        )}
        {Object.keys(data.labels).length > 0 &&
          ` ${t('Labels: {labels}.', { labels: labelsText(data.labels) })}`}
      </p>
      <div className="flex flex-wrap items-center justify-between gap-3 rounded-md border px-3 py-2.5">
        {joined ? (
          <Status kind="good">{t('{name} is online', { name })}</Status>
        ) : (
          <Status kind="working">{t('Waiting for its agent')}</Status>
        )}
        <LiveRegion>{joined ? t('{name} is online', { name }) : ''}</LiveRegion>
        {joined && (
          <ButtonLink to="/toolboxes/$name" params={{ name }} size="small">
            {t('Open the toolbox')}
          </ButtonLink>
        )}
      </div>
      <div className="flex flex-wrap justify-end gap-2">
        <CloseButton variant={joined ? 'primary' : 'secondary'}>{t('Done')}</CloseButton>
      </div>
    </div>
  )
}

function isLoopback(address: string): boolean {
  return /^(?:127\.|localhost[:]|\[::1\])/.test(address)
}
