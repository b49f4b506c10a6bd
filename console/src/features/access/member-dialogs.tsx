import { useQueryClient } from '@tanstack/react-query'
import { Dices } from 'lucide-react'
import { useState } from 'react'
import * as v from 'valibot'
import { callToSave } from '@/api/answer-lost'
import { call } from '@/api/client'
import { ROLE } from '@/api/generated/enums'
import { listKeys } from '@/api/generated/keys'
import { createMember, listMembers, updateMember } from '@/api/generated/members'
import type { Member, Role } from '@/api/generated/types'
import { useOnce } from '@/api/once'
import { invalidate } from '@/api/queries'
import { useSession } from '@/api/session'
import { EndKeys } from '@/features/account/public/end-keys'
import { usePasswordAgain } from '@/features/account/public/password-again'
import { type FieldProps, takenAt, useForm } from '@/lib/form'
import { passwordSchema } from '@/lib/password'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { CancelButton, Dialog } from '@/ui/dialog'
import { ErrorNote } from '@/ui/error-state'
import { PasswordInput, TextInput } from '@/ui/inputs'
import { Notice } from '@/ui/notice'
import { CloseButton, OnceCode, useShownOnce } from '@/ui/shown-once'
import { toast } from '@/ui/toast'
import { RadioGroup } from '@/ui/toggles'
import { madePassword } from './password'
import { roleHint, rolesBelow, roleText } from './roles'

const EMAIL = v.pipe(
  v.string(),
  v.trim(),
  v.minLength(1, t('Enter an e-mail address')),
  v.maxLength(254, t('At most 254 characters')),
  v.regex(/^[^\s@]+@[^\s@]+$/, t('An e-mail address such as name@example.org')),
)

/** What somebody needs to sign in. */
interface SignIn {
  email: string
  password: string
}

const passwordLost = () =>
  t('The password was not copied, and cannot be shown again. Another one can be set.')

/** Adds a member. What they need to sign in is shown afterwards, this once: closing before it was copied asks first. */
export function AddMemberDialog({ onClose }: { onClose: () => void }) {
  const [added, setAdded] = useState<SignIn>()
  const settle = useShownOnce({ shown: added !== undefined, lost: passwordLost() })
  return (
    <Dialog open onOpenChange={(open) => !open && onClose()} title={t('Add a member')}>
      {added === undefined ? (
        <AddMember onAdded={setAdded} />
      ) : (
        <div className="flex flex-col gap-4">
          <p role="status" className="font-medium">
            {t('{name} is a member', { name: oneLine(added.email) })}
          </p>
          <SignInNote {...added} onCopied={settle} />
        </div>
      )}
    </Dialog>
  )
}

function AddMember({ onAdded }: { onAdded: (added: SignIn) => void }) {
  const client = useQueryClient()
  const again = usePasswordAgain()
  const once = useOnce()
  const form = useForm({
    initial: { email: '', role: 'developer' as Role, password: '' }, // as: one of its values, not only this one
    schema: v.object({ email: EMAIL, role: v.picklist(ROLE), password: passwordSchema }),
    submit: async (body) => {
      const taken = takenAt('email', t('There is a member with this address'))
      const create = () => once(body, (idempotencyKey) => call(createMember, { body }, { idempotencyKey }))
      const member = await again.run(create).catch(taken)
      onAdded({ email: member.email, password: body.password })
      await invalidate(client, listMembers)
    },
  })
  return (
    <>
      <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
        <TextInput
          {...form.field('email')}
          label={t('Email')}
          type="email"
          autoComplete="off"
          required
          placeholder="name@example.org"
        />
        <RoleGroup field={form.field('role')} />
        <NewPassword field={form.field('password')} />
        <ErrorNote error={form.submitError} />
        <Footer>
          <CancelButton />
          <Button type="submit" variant="primary" busy={form.submitting}>
            {t('Add the member')}
          </Button>
        </Footer>
      </form>
      {again.question}
    </>
  )
}

/** Gives a member another role. */
export function RoleDialog({
  member,
  onOpenChange,
}: {
  member: Member
  onOpenChange: (open: boolean) => void
}) {
  const client = useQueryClient()
  const again = usePasswordAgain()
  const name = oneLine(member.email)
  const form = useForm({
    initial: { role: member.role },
    schema: v.object({ role: v.picklist(ROLE) }),
    submit: async ({ role }) => {
      await again.run(() => callToSave(updateMember, { path: { id: member.id }, body: { role } }))
      await invalidate(client, listMembers)
      toast.done({ title: t('{name} is {role} now', { name, role: roleText(role).toLowerCase() }) })
      onOpenChange(false)
    },
  })
  return (
    <Dialog open onOpenChange={onOpenChange} title={t('Role of {name}', { name })}>
      <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
        <RoleGroup field={form.field('role')} />
        <p className="text-sm text-muted">
          {t(
            'It holds at once. Of the API keys that they made, those with more power than the new role are revoked.',
          )}
        </p>
        <ErrorNote error={form.submitError} />
        <Footer>
          <CancelButton />
          <Button
            type="submit"
            variant="primary"
            busy={form.submitting}
            disabledReason={form.dirty ? undefined : t('It is their role now')}
          >
            {t('Change the role')}
          </Button>
        </Footer>
      </form>
      {again.question}
    </Dialog>
  )
}

/** Gives a member a new password, for people who forgot theirs. */
export function PasswordDialog({
  member,
  self,
  onOpenChange,
}: {
  member: Member
  self: boolean
  onOpenChange: (open: boolean) => void
}) {
  const name = oneLine(member.email)
  const [given, setGiven] = useState<string>()
  const settle = useShownOnce({ shown: given !== undefined, lost: passwordLost() })
  const again = usePasswordAgain()
  const client = useQueryClient()
  const form = useForm({
    initial: { password: '', revoke_keys: false },
    schema: v.object({ password: passwordSchema, revoke_keys: v.boolean() }),
    submit: async (body) => {
      await again.run(() => callToSave(updateMember, { path: { id: member.id }, body }))
      setGiven(body.password)
      form.reset()
      if (body.revoke_keys) void invalidate(client, listKeys)
    },
  })
  return (
    <Dialog open onOpenChange={onOpenChange} title={t('New password for {name}', { name })}>
      {given === undefined ? (
        <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
          <NewPassword field={form.field('password')} />
          <p className="text-sm text-muted">
            {self ? t('You are signed out everywhere, here too.') : t('They are signed out everywhere.')}
          </p>
          <EndKeys maker={`user:${member.id}`} field={form.field('revoke_keys')} />
          <ErrorNote error={form.submitError} />
          <Footer>
            <CancelButton />
            <Button type="submit" variant="primary" busy={form.submitting}>
              {t('Set the password')}
            </Button>
          </Footer>
        </form>
      ) : (
        <div className="flex flex-col gap-4">
          <p role="status" className="font-medium">
            {t('The password is set')}
          </p>
          <SignInNote email={member.email} password={given} onCopied={settle} />
        </div>
      )}
      {again.question}
    </Dialog>
  )
}

/** What somebody needs to sign in, to hand over. */
function SignInNote({ email, password, onCopied }: SignIn & { onCopied: () => void }) {
  const lines = [
    t('Address: {address}', { address: `${window.location.origin}/sign-in` }),
    t('Email: {email}', { email }),
    t('Password: {password}', { password }),
  ].join('\n')
  return (
    <>
      <OnceCode code={lines} label={t('What they need to sign in')} onCopied={onCopied} />
      <Notice tone="warn" title={t('The password is shown only now')}>
        {t('Hand it over on a way that you trust. They can choose another one after they signed in.')}
      </Notice>
      <Footer>
        <CloseButton>{t('Done')}</CloseButton>
      </Footer>
    </>
  )
}

function NewPassword({ field }: { field: FieldProps<string> }) {
  return (
    <div className="flex flex-col items-start gap-2">
      <PasswordInput
        {...field}
        label={t('Password')}
        hint={t('It is shown once more when it is set, to hand it over.')}
        autoComplete="new-password"
        required
        className="w-full"
      />
      <Button size="small" icon={Dices} onClick={() => field.onValueChange(madePassword())}>
        {t('Make one up')}
      </Button>
    </div>
  )
}

function RoleGroup({ field }: { field: FieldProps<Role> }) {
  const session = useSession()
  const mine = rolesBelow(session.role)
  return (
    <RadioGroup
      {...field}
      label={t('Role')}
      options={ROLE.map((role) => ({
        value: role,
        label: roleText(role),
        hint: roleHint(role),
        ...(mine.includes(role) ? {} : { disabledReason: t('Only owners make owners') }),
      }))}
    />
  )
}

function Footer({ children }: { children: React.ReactNode }) {
  return <div className="flex flex-wrap justify-end gap-2">{children}</div>
}
