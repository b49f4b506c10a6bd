import { useSession } from '@/api/session'
import { ChangePassword } from '@/features/account/public/change-password'
import { EndKeys } from '@/features/account/public/end-keys'
import { formatTime } from '@/lib/format'
import { t } from '@/lib/t'
import { Card } from '@/ui/card'
import { KeyValueList } from '@/ui/key-value-list'
import { toast } from '@/ui/toast'

/** Who is signed in, and their own password. */
export function AccountPage() {
  const session = useSession()
  return (
    <div className="flex max-w-3xl flex-col gap-4">
      <Card title={t('Signed in')}>
        <KeyValueList
          items={[
            [t('As'), session.display],
            [
              t('Organization'),
              <span key="organization" className="id">
                {session.organization}
              </span>,
            ],
            [t('Role'), session.role],
            [t('Until'), session.expires_at == null ? undefined : formatTime(session.expires_at)],
          ]}
        />
      </Card>
      {session.kind === 'user' && (
        <Card title={t('Password')} description={t('Your other sessions end when it changes.')}>
          <ChangePassword
            askEmail
            submitLabel={t('Save')}
            keys={(field) => <EndKeys maker="me" field={field} />}
            onDone={() => {
              toast.done({ title: t('Your sign-in is changed') })
              return undefined
            }}
          />
        </Card>
      )}
    </div>
  )
}
