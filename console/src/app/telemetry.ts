/**
 * What the console reports to the Toolyard it came from: web vitals, which operations were used, errors. Route patterns
 * instead of paths, and never what was typed or answered. Loaded after the first page stands.
 */
import { type MetricType, onCLS, onFCP, onINP, onLCP, onTTFB } from 'web-vitals'
import { setUseReporter } from '@/api/client'
import type { NewConsoleReport } from '@/api/generated/console'
import { sendConsoleReports } from '@/api/generated/console'
import { reportsWanted } from '@/lib/telemetry-choice'
import { setErrorReporter } from '@/ui/boundary'

/** The most reports that wait; what comes after them is not kept. */
const MOST_WAITING = 50
const SEND_AFTER_MS = 10_000
/** The same error is told once in this time: a loop of them says nothing more. */
const SAME_ERROR_MS = 60_000
/** The name of the first script: its hash changes with any script of the console. */
const BUILD = document.querySelector<HTMLScriptElement>('script[type="module"]')?.src.split('/').at(-1) ?? ''

type Report = Omit<NewConsoleReport, 'at' | 'build' | 'route'>

const waiting: NewConsoleReport[] = []
const told = new Map<string, number>()
let timer: ReturnType<typeof setTimeout> | undefined
let pattern: () => string = () => '/'

/** Begins to watch. `route` gives the pattern of the page that is shown, such as `/servers/$name`. */
export function startTelemetry(route: () => string): void {
  pattern = route
  setUseReporter((operation) => add({ kind: 'interaction', name: operation.slice(0, 64) }))
  setErrorReporter((error, where) => reportError(error, `boundary: ${where}`))
  window.addEventListener('error', (event) => reportError(event.error, 'window'))
  window.addEventListener('unhandledrejection', (event) => reportError(event.reason, 'promise'))
  // The page may never be seen again: this is the last moment that is sure to come.
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'hidden') flush()
  })
  for (const watch of [onCLS, onFCP, onINP, onLCP, onTTFB]) watch(vital)
}

function vital(metric: MetricType): void {
  add({ kind: 'web_vital', name: metric.name, value: metric.value })
}

function reportError(error: unknown, where: string): void {
  // An aborted request is somebody leaving a page.
  if (error instanceof DOMException && error.name === 'AbortError') return
  const name = error instanceof Error ? error.name : typeof error
  // The API's problems carry names of things in their detail; their code says what is needed.
  const code = error instanceof Error && 'code' in error ? String(error.code) : undefined
  const message = code ?? (error instanceof Error ? error.message : '')
  const key = `${name} ${message} ${where}`
  const now = Date.now()
  if (now - (told.get(key) ?? 0) < SAME_ERROR_MS) return
  if (told.size > 200) told.clear()
  told.set(key, now)
  const stack = error instanceof Error ? frames(error.stack) : ''
  add({ kind: 'error', name: name.slice(0, 64), message: `${where}: ${message}`.slice(0, 500), stack })
}

/** Only the places of a stack: its first line repeats the message. */
function frames(stack: string | undefined): string {
  return (stack ?? '')
    .split('\n')
    .filter((line) => /^\s*at |@/.test(line))
    .join('\n')
    .slice(0, 4000)
}

function add(report: Report): void {
  if (!reportsWanted() || waiting.length >= MOST_WAITING) return
  waiting.push({
    ...report,
    at: new Date().toISOString(),
    build: BUILD.slice(0, 64),
    route: pattern().slice(0, 128),
  })
  timer ??= setTimeout(flush, SEND_AFTER_MS)
}

function flush(): void {
  clearTimeout(timer)
  timer = undefined
  const reports = waiting.splice(0)
  if (reports.length === 0 || !reportsWanted()) return
  // Not `call`: nobody waits for the answer, a failure is no news, and it must outlive the page.
  fetch(sendConsoleReports.path, {
    method: sendConsoleReports.method,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ reports }),
    credentials: 'same-origin',
    keepalive: true,
  }).catch(() => undefined)
}
