/** The worker that keeps the console's own files, so that it opens without a connection. It never keeps answers. */
import { t } from '@/lib/t'
import { toast } from '@/ui/toast'

const SCRIPT = '/service-worker.js'

interface ScriptPolicy {
  createScriptURL(url: string): unknown
}

interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL(url: string): string }): ScriptPolicy
}

/** Registers the worker, in builds that have one. */
export async function registerServiceWorker(): Promise<void> {
  if (!import.meta.env.PROD || !('serviceWorker' in navigator)) return
  // as: Trusted Types are in Chromium only; the policy allows the one script there is.
  const types = (window as { trustedTypes?: TrustedTypes }).trustedTypes
  const policy = types?.createPolicy('toolyard', {
    createScriptURL: (url) => {
      if (url !== SCRIPT) throw new TypeError('not a script of the console')
      return url
    },
  })
  const script = (policy?.createScriptURL(SCRIPT) ?? SCRIPT) as string // as: `register` takes the trusted URL too
  const registration = await navigator.serviceWorker.register(script, { scope: '/' })
  registration.addEventListener('updatefound', () => {
    const worker = registration.installing
    worker?.addEventListener('statechange', () => {
      // Without a controller it is the first one: nothing to update.
      if (worker.state === 'installed' && navigator.serviceWorker.controller !== null) offerUpdate()
    })
  })
}

function offerUpdate(): void {
  toast.note({
    title: t('A new version of the console is here'),
    description: t('What is typed and not saved is lost when the page is loaded again.'),
    action: { label: t('Reload'), act: () => window.location.reload() },
  })
}
