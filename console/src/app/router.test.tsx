// @vitest-environment happy-dom
import { QueryClient } from '@tanstack/react-query'
import {
  createMemoryHistory,
  createRoute,
  createRouter,
  Outlet,
  RouterProvider,
} from '@tanstack/react-router'
import { act } from 'react'
import { createRoot } from 'react-dom/client'
import { beforeAll, expect, test, vi } from 'vitest'
import type { Session } from '@/api/generated/types'
import { Route as rootRoute } from '@/routes/__root'
import { onlyFor } from './guard'
import { router as ofConsole } from './router'

// The console's own pages are not needed.
vi.mock('@/routeTree.gen', () => ({ routeTree: undefined }))

const session: Session = {
  kind: 'user',
  display: 'v@example.test',
  organization: 'default',
  role: 'developer',
  actions: ['credential:read'],
  first_run: false,
}

beforeAll(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
})

test('a page that is withheld leaves the frame around it, and comes back with the right to see it', async () => {
  let now = session
  const shell = createRoute({
    getParentRoute: () => rootRoute,
    id: '/_shell',
    beforeLoad: () => ({ session: now }),
    component: () => (
      <>
        <nav>Navigation</nav>
        <Outlet />
      </>
    ),
  })
  const page = createRoute({
    getParentRoute: () => shell,
    path: '/credentials',
    beforeLoad: ({ context }) => onlyFor(context.session, 'credential:read'),
    component: () => <h1>Credentials</h1>,
  })
  const router = createRouter({
    defaultNotFoundComponent: ofConsole.options.defaultNotFoundComponent,
    routeTree: rootRoute.addChildren([shell.addChildren([page])]),
    context: { queryClient: new QueryClient() },
    history: createMemoryHistory({ initialEntries: ['/credentials'] }),
  })
  const place = document.body.appendChild(document.createElement('div'))
  const root = createRoot(place)
  // as: this router is another one than the console's own.
  await act(async () => root.render(<RouterProvider router={router as never} />))
  const shows = (heading: string) =>
    vi.waitFor(async () => {
      await act(async () => undefined)
      expect(place.querySelector('h1')?.textContent).toBe(heading)
      expect(place.querySelector('nav')?.textContent).toBe('Navigation')
    })
  await shows('Credentials')
  now = { ...session, role: 'viewer', actions: [] }
  await act(async () => router.invalidate())
  await shows('Not for your role')
  now = session
  await act(async () => router.invalidate())
  await shows('Credentials')
  await act(async () => root.unmount())
})
