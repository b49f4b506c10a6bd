/**
 * Every page of the console, read from its route files, so that a page is looked at from the day it exists. A route
 * with a parameter needs a line in `EXAMPLES`.
 */
import { readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'

export interface Route {
  /** The page's address with its parameters' names: its name in reports. */
  name: string
  /** An address that shows it, on a Toolyard made by `arrange`. */
  path: string
  /** Where that address leads to: to itself, for most. */
  landsOn: string
  /** Whether it is for administrators only. */
  administration: boolean
  /** Whether it is shown to people who have not signed in. */
  open: boolean
}

/** Addresses of things that `arrange` makes. */
const EXAMPLES: Record<string, string> = {
  '/marketplace/$namespace/$name': '/marketplace/io.github.modelcontextprotocol/server-time',
  '/deploy/$namespace/$name': '/deploy/io.github.modelcontextprotocol/server-time',
  '/servers/$name': '/servers/everything',
  '/playground/$name': '/playground/everything',
  '/toolsets/$name': '/toolsets/all',
  '/connect/$name': '/connect/everything',
  '/toolboxes/$name': '/toolboxes/local',
  '/credentials/$name': '/credentials/example',
}

/** Addresses that lead on to a part of theirs. */
const LEADS_ON: Record<string, string> = {
  '/access': '/access/members',
  '/settings': '/settings/account',
}

/** As `vite.config.ts` says what goes to administrators only. */
const ADMINISTRATION = /^\/(?:access|audit|settings\/(?:organization|sources|flags))(?:\/|$)/
/** Pages without the shell, and without a session. */
const OPEN = /^\/sign-in$/
/** Shown only to the first person of a new Toolyard: `setup.spec.ts` looks at it. */
const FIRST_START = '/setup'
const ROUTES_DIR = resolve(import.meta.dirname, '../src/routes')

export const ROUTES: Route[] = addresses(ROUTES_DIR, '')
  .filter((name) => name !== FIRST_START)
  .map((name) => ({
    name,
    path: example(name),
    landsOn: LEADS_ON[name] ?? example(name),
    administration: ADMINISTRATION.test(name),
    open: OPEN.test(name),
  }))
  .sort((a, b) => a.name.localeCompare(b.name, 'en'))

/** The addresses of the route files below a folder, by the router's rules for file names. */
function addresses(folder: string, base: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (entry.isDirectory()) {
      return addresses(join(folder, entry.name), entry.name.startsWith('_') ? base : `${base}/${entry.name}`)
    }
    const file = /^(.+)\.tsx$/.exec(entry.name)?.[1]
    // A layout is shown with the pages in it.
    if (file === undefined || file.startsWith('_') || file === 'route' || file.startsWith('-')) return []
    if (file === 'index') return [base === '' ? '/' : base]
    return [`${base}/${file.replaceAll('.', '/')}`]
  })
}

function example(name: string): string {
  const known = Object.keys(EXAMPLES)
    .filter((pattern) => name === pattern || name.startsWith(`${pattern}/`))
    .sort((a, b) => b.length - a.length)[0]
  const path = known === undefined ? name : (EXAMPLES[known] ?? '') + name.slice(known.length)
  if (path.includes('$')) throw new Error(`routes.ts has no example for ${name}`)
  return path
}
