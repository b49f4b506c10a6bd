import '@/styles.css'
import { QueryClientProvider } from '@tanstack/react-query'
import { RouterProvider } from '@tanstack/react-router'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { setAccount, setOnSignedOut } from '@/api/client'
import { sessionQuery } from '@/api/session'
import { queryClient } from '@/app/query-client'
import { router } from '@/app/router'
import { askToSignIn, leaveForSignIn } from '@/app/signed-out'
import { hasUnsaved } from '@/lib/form'
import { isThere } from '@/lib/not-loaded'
import { Boundary } from '@/ui/boundary'
import { ToastProvider } from '@/ui/toast'

setAccount(() => queryClient.getQueryData(sessionQuery.queryKey)?.account)

setOnSignedOut((changes, why) => {
  // Nobody was signed in: no session ended, and the page's own guard leads to sign-in.
  if (
    router.state.location.pathname === '/sign-in' ||
    queryClient.getQueryData(sessionQuery.queryKey) === undefined
  )
    return Promise.resolve(false)
  void import('@/app/last-known').then(({ forgetLastKnown }) => forgetLastKnown())
  // The question stands in the frame around pages, which this one has not.
  if (router.state.location.pathname === '/setup') return leaveForSignIn(router)
  if (changes || why === 'account_changed' || hasUnsaved()) return askToSignIn(changes)
  return leaveForSignIn(router)
})

// A page that stayed open over an upgrade asks for files that are gone; the page of the new version has its own.
// Without a server that answers there is nothing to gain, and what is shown would be lost; so would what was typed, or is
// shown once.
window.addEventListener('vite:preloadError', ({ payload }) => {
  // The router would load the page anew at once, also when nothing answers.
  sessionStorage.setItem(`tanstack_router_reload:${payload.message}`, '1')
  const last = Number(sessionStorage.getItem('toolyard.reloaded') ?? 0)
  if (Date.now() - last < 30_000) return
  void isThere().then((there) => {
    if (!there || hasUnsaved()) return
    sessionStorage.setItem('toolyard.reloaded', String(Date.now()))
    location.reload()
  })
})

const root = document.getElementById('root')
if (root === null) throw new Error('index.html has no #root')
// Boundaries show and report what they catch; in production it need not stand in the browser's console as well.
const caught = import.meta.env.DEV ? {} : { onCaughtError: () => undefined }
createRoot(root, caught).render(
  <StrictMode>
    <Boundary where="root">
      <QueryClientProvider client={queryClient}>
        <ToastProvider>
          <RouterProvider router={router} />
        </ToastProvider>
      </QueryClientProvider>
    </Boundary>
  </StrictMode>,
)

// Not needed for the first page: what watches, keeps and helps comes when it stands.
const later = window.requestIdleCallback ?? ((work: () => void) => setTimeout(work, 500))
later(() => {
  void import('@/app/telemetry').then(({ startTelemetry }) =>
    startTelemetry(() => router.state.matches.at(-1)?.fullPath ?? '/'),
  )
  void import('@/app/service-worker').then(({ registerServiceWorker }) =>
    // A browser that refuses (a private window, a certificate it does not trust) has the console without it.
    registerServiceWorker().catch(() => undefined),
  )
})
