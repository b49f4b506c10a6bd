// The console's service worker. It keeps the console's own files, which are the same for everybody, and nothing else:
// no answer of the API, no file of the administration pages. `vite.config.ts` puts the version and the list in.
const VERSION = '__VERSION__'
const SHELL = '__SHELL__'.split(' ')
const CACHE = `toolyard-${VERSION}`

self.addEventListener('install', (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE)
      await cache.addAll(SHELL.map((url) => new Request(url, { cache: 'reload', credentials: 'omit' })))
      await self.skipWaiting()
    })(),
  )
})

self.addEventListener('activate', (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) {
        if (name.startsWith('toolyard-') && name !== CACHE) await caches.delete(name)
      }
      await self.clients.claim()
    })(),
  )
})

self.addEventListener('fetch', (event) => {
  const request = event.request
  const url = new URL(request.url)
  if (request.method !== 'GET' || url.origin !== self.location.origin) return
  if (request.mode === 'navigate') {
    event.respondWith(page(request))
    return
  }
  if (SHELL.includes(url.pathname)) event.respondWith(kept(request, url.pathname))
  else if (url.pathname.startsWith('/assets/') && !url.pathname.startsWith('/assets/admin/')) {
    event.respondWith(kept(request, url.pathname))
  }
})

/** A page from the server; without a connection the shell, which then shows what it knows. */
async function page(request) {
  try {
    return await fetch(request)
  } catch (error) {
    const shell = await caches.match('/', { cacheName: CACHE })
    if (shell === undefined) throw error
    return shell
  }
}

/** A file whose name changes with its content: kept once it was read. */
async function kept(request, path) {
  const cache = await caches.open(CACHE)
  const known = await cache.match(path)
  if (known !== undefined) return known
  const response = await fetch(request)
  if (response.ok && path.startsWith('/assets/')) await cache.put(path, response.clone())
  return response
}
