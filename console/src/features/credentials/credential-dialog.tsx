import { useQueryClient } from '@tanstack/react-query'
import { useRef, useState } from 'react'
import * as v from 'valibot'
import { callToSave, toSendAgain } from '@/api/answer-lost'
import { call, isProblem } from '@/api/client'
import { getCredential, listCredentials, putCredential } from '@/api/generated/credentials'
import type { Credential } from '@/api/generated/types'
import { isGone } from '@/api/gone'
import { invalidate } from '@/api/queries'
import { useForm } from '@/lib/form'
import { nameSchema } from '@/lib/name'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { CancelButton, Dialog } from '@/ui/dialog'
import { ErrorNote } from '@/ui/error-state'
import { PasswordInput, Textarea, TextInput } from '@/ui/inputs'
import { toast } from '@/ui/toast'
import { Checkbox } from '@/ui/toggles'

/** The most that the server takes. */
const LARGEST_SECRET = 64 * 1024
const LONGEST_DESCRIPTION = 500

const SCHEMA = v.object({
  name: nameSchema,
  description: v.pipe(
    v.string(),
    v.trim(),
    v.maxLength(LONGEST_DESCRIPTION, t('At most {count} characters', { count: LONGEST_DESCRIPTION })),
  ),
  secret: v.pipe(
    v.string(),
    v.minLength(1, t('Enter the secret')),
    v.check(
      (secret) => new TextEncoder().encode(secret).length <= LARGEST_SECRET,
      t('At most {size}', { size: '64 KiB' }),
    ),
  ),
})

/** Makes a credential, or gives one another secret. */
export function CredentialDialog({
  credential,
  onClose,
}: {
  /** The one that gets another secret; a new one is made without it. */
  credential?: Credential
  onClose: () => void
}) {
  const client = useQueryClient()
  const [lines, setLines] = useState(false)
  const unanswered = useRef({ name: '', puts: 0 })
  const form = useForm({
    initial: { name: credential?.name ?? '', description: credential?.description ?? '', secret: '' },
    schema: SCHEMA,
    submit: async ({ name, description, secret }) => {
      const unsure =
        credential === undefined
          ? t('It is not known whether {name} is kept', { name })
          : t('It is not known whether {name} has another secret', { name })
      // Putting would replace what is there; what is there after an answer was lost was put here.
      if (credential === undefined) {
        if (unanswered.current.name !== name) unanswered.current = { name, puts: 0 }
        const { puts } = unanswered.current
        const isTaken = await taken(name, puts, description).catch((error: unknown) => {
          // Before the first time nothing was put.
          throw puts > 0 ? toSendAgain(error, unsure) : error
        })
        if (isTaken) throw { errors: [{ field: 'name', message: t('There is a credential of this name') }] }
      }
      unanswered.current.puts += 1
      let changed: Credential
      try {
        changed = await callToSave(putCredential, { path: { name }, body: { secret, description } }, unsure)
      } catch (error) {
        // A refusal is an answer.
        if (isProblem(error) && error.status >= 400 && error.status < 500) unanswered.current.puts -= 1
        throw error
      }
      await invalidate(client, listCredentials)
      if (credential === undefined) toast.done({ title: t('{name} is kept', { name }) })
      else tellOutdated(changed)
      onClose()
    },
  })
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title={
        credential === undefined
          ? t('Create a credential')
          : t('Replace the secret of {name}', { name: credential.name })
      }
      description={
        credential === undefined
          ? t('A secret that servers get by reference. It is kept encrypted and never shown again.')
          : credential.used_by.length === 0
            ? t('No server uses it.')
            : plural(
                credential.used_by.length,
                '{count} server uses it, and gets the new secret at its next start.',
                '{count} servers use it, and get the new secret at their next start.',
              )
      }
    >
      <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
        {credential === undefined && (
          <TextInput
            {...form.field('name')}
            label={t('Name')}
            placeholder="github-token"
            autoComplete="off"
            mono
            required
          />
        )}
        <div className="flex flex-col gap-2">
          {lines ? (
            <Textarea
              {...form.field('secret')}
              label={t('Secret')}
              autoComplete="off"
              rows={6}
              mono
              required
            />
          ) : (
            <PasswordInput
              {...form.field('secret')}
              label={t('Secret')}
              autoComplete="new-password"
              required
            />
          )}
          <Checkbox
            label={t('It has several lines, such as a PEM key')}
            value={lines}
            onValueChange={setLines}
          />
        </div>
        <TextInput
          {...form.field('description')}
          label={t('Description')}
          hint={t('What it opens, and who to ask about it.')}
          autoComplete="off"
          required={false}
        />
        <ErrorNote error={form.submitError} />
        <div className="flex flex-wrap justify-end gap-2">
          <CancelButton />
          <Button type="submit" variant="primary" busy={form.submitting}>
            {credential === undefined ? t('Create the credential') : t('Replace the secret')}
          </Button>
        </div>
      </form>
    </Dialog>
  )
}

/** Says who goes on with an older secret; the page of credentials lists them until none does. */
function tellOutdated({ name, outdated_in, unknown_in }: Credential) {
  const title = t('{name} has another secret', { name })
  // A control plane of an earlier version does not tell.
  if (outdated_in == null || unknown_in == null)
    return toast.note({
      title,
      description: t('Restart the servers that use it: which of them go on with the older one is not known.'),
    })
  const restart = [...outdated_in, ...unknown_in]
  const servers = oneLine(restart.join(', '), 200)
  if (restart.length === 0)
    toast.done({ title, description: t('Nothing that runs was started with an older one.') })
  else if (outdated_in.length === 0)
    toast.note({
      title,
      description: t('Restart {servers}: with which one it runs is not known.', { servers }),
    })
  else
    toast.note({
      title,
      description: plural(
        restart.length,
        'Restart {servers}: until then it goes on with the older one.',
        'Restart {servers}: until then they go on with the older one.',
        { servers },
      ),
    })
}

/** Whether there is one that was not made here; `puts` says how often it was put here without an answer. */
async function taken(name: string, puts: number, description: string): Promise<boolean> {
  try {
    const there = await call(getCredential, { path: { name } }, { awaited: true })
    return !(there.version <= puts && (there.description ?? '') === description)
  } catch (error) {
    if (isGone(error)) return false
    throw error
  }
}
