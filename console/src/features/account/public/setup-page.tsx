import { useNavigate } from '@tanstack/react-router'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { ChangePassword } from './change-password'
import { postponeSetup } from './first-run'

/** After the first sign-in: an own address and password instead of those that Toolyard made up. */
export function SetupPage() {
  const navigate = useNavigate()
  const go = () => navigate({ to: '/' })
  return (
    <main className="flex min-h-dvh flex-col items-center px-4 pt-[10vh] pb-8">
      <div className="w-full max-w-md">
        <p className="text-sm text-muted">{t('First start')}</p>
        <h1 tabIndex={-1} className="text-xl font-semibold tracking-[-0.01em]">
          {t('Make this Toolyard yours')}
        </h1>
        <p className="mt-1 mb-6 text-muted">
          {t(
            'You signed in with a password that was written to the log. Choose the address and the password that you sign in with from now on.',
          )}
        </p>
        <ChangePassword askEmail submitLabel={t('Save and go on')} onDone={go} />
        <div className="mt-3">
          <Button
            variant="ghost"
            onClick={() => {
              postponeSetup()
              void go()
            }}
          >
            {t('Not now')}
          </Button>
        </div>
      </div>
    </main>
  )
}
