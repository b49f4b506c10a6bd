import { createHash } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import tailwindcss from '@tailwindcss/vite'
import { tanstackRouter } from '@tanstack/router-plugin/vite'
import react from '@vitejs/plugin-react'
import { defineConfig, type Plugin } from 'vite'

const toolyard = process.env['TOOLYARD_URL'] ?? 'http://127.0.0.1:8080'

/**
 * Administration code: the server sends `assets/admin/` only to people who may administer
 * (docs/decisions/0005-console.md). Part 1 of 3: part 2 is the check in `administrationStaysApart`, part 3 who
 * gets which area, in `ADMINISTRATION` of crates/toolyard/src/console/mod.rs.
 */
const ADMINISTRATION =
  /\/src\/(?:features\/(?:access|audit|admin)\/|routes\/_shell\/(?:access|audit|settings\/(?:organization|sources|flags))[./])/

/** The page that a chunk is for: its area has a right of its own. */
const AREA =
  /\/src\/routes\/_shell\/(?:access\/|settings\/)?(members|keys|audit|organization|sources|flags)[./]/

/** The folder of a chunk: that of its area, or of administration when several areas share it. */
function folder(moduleIds: readonly string[]): string {
  if (!moduleIds.some((id) => ADMINISTRATION.test(id))) return 'assets'
  const areas = new Set(moduleIds.flatMap((id) => AREA.exec(id)?.[1] ?? []))
  return ['assets/admin', ...(areas.size === 1 ? areas : [])].join('/')
}

/** Fails the build when a chunk that everybody gets needs one that only administrators get. */
function administrationStaysApart(): Plugin {
  return {
    name: 'toolyard:administration-stays-apart',
    generateBundle(_options, bundle) {
      for (const chunk of Object.values(bundle)) {
        if (chunk.type !== 'chunk' || chunk.fileName.startsWith('assets/admin/')) continue
        const wrong = chunk.imports.filter((name) => name.startsWith('assets/admin/'))
        if (wrong.length > 0) this.error(`${chunk.fileName} needs administration code: ${wrong.join(', ')}`)
      }
    },
  }
}

/**
 * The service worker: `worker/service-worker.js` with the files of the first page, and a version that changes with
 * any file of the console.
 */
function serviceWorker(): Plugin {
  return {
    name: 'toolyard:service-worker',
    apply: 'build',
    async writeBundle(options, bundle) {
      const dist = options.dir ?? 'dist'
      const first = new Set<string>()
      const add = (name: string) => {
        const chunk = bundle[name]
        if (chunk?.type !== 'chunk' || first.has(name)) return
        first.add(name)
        for (const style of chunk.viteMetadata?.importedCss ?? []) first.add(style)
        for (const next of chunk.imports) add(next)
      }
      for (const chunk of Object.values(bundle))
        if (chunk.type === 'chunk' && chunk.isEntry) add(chunk.fileName)
      const files = ['/', '/appearance.js', '/favicon.svg', ...[...first].sort().map((name) => `/${name}`)]
      const version = createHash('sha256')
        .update(Object.keys(bundle).sort().join())
        .digest('hex')
        .slice(0, 16)
      const source = await readFile(join(import.meta.dirname, 'worker/service-worker.js'), 'utf8')
      const worker = source.replace('__VERSION__', version).replace('__SHELL__', files.join(' '))
      await writeFile(join(dist, 'service-worker.js'), worker)
    },
  }
}

export default defineConfig({
  plugins: [
    tanstackRouter({
      target: 'react',
      autoCodeSplitting: true,
      // A loader travels with its page: loaders name operations and schemas, which would otherwise all be in the
      // first load. The link's preload on intent fetches both before they are needed.
      codeSplittingOptions: {
        defaultBehavior: [['loader', 'component', 'errorComponent', 'notFoundComponent']],
      },
    }),
    react(),
    tailwindcss(),
    administrationStaysApart(),
    serviceWorker(),
  ],
  resolve: { alias: { '@': `${import.meta.dirname}/src` } },
  build: {
    // The browsers that have `light-dark()`, so that it stays as written.
    target: ['chrome125', 'firefox128', 'safari18'],
    manifest: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        // What nearly every page needs is one file: dozens of small ones compress worse, and each is named in the entry.
        codeSplitting: {
          groups: [{ name: 'common', minShareCount: 20, test: (id) => !ADMINISTRATION.test(id) }],
        },
        chunkFileNames: (chunk) => `${folder(chunk.moduleIds)}/[name]-[hash].js`,
      },
    },
  },
  server: {
    proxy: Object.fromEntries(['/api', '/mcp', '/v0.1'].map((path) => [path, { target: toolyard }])),
  },
  preview: {
    proxy: Object.fromEntries(['/api', '/mcp', '/v0.1'].map((path) => [path, { target: toolyard }])),
    headers: {
      'Content-Security-Policy':
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types toolyard",
    },
  },
})
