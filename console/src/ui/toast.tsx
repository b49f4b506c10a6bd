import { CircleAlert, CircleCheck, Info, X } from 'lucide-react'
import { type ReactNode, useSyncExternalStore } from 'react'
import { cx } from '@/lib/cx'
import { t } from '@/lib/t'
import { Button } from './button'
import { LiveRegion } from './live-region'
import { TickedText } from './ticked-text'

interface ToastText {
  title: string
  description?: string
  /** What can be done about it. It stays until it is closed. */
  action?: { label: string; act: () => void }
}

type Kind = 'done' | 'note' | 'failed'

interface Item extends ToastText {
  id: number
  kind: Kind
  /** Until somebody closes it. */
  stays: boolean
}

/** An error after which nobody knows whether something was done, until `known` resolves. */
interface Unsure extends Error {
  known: () => Promise<unknown>
}

const SHOWN_MS = 5000
/** After the pointer or the focus left them. */
const SHOWN_AFTER_MS = 2500
const MOST = 4

let items: readonly Item[] = []
let last = 0
let held = false
const timers = new Map<number, ReturnType<typeof setTimeout>>()
const listeners = new Set<() => void>()

function subscribe(listener: () => void): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

function become(next: readonly Item[]): void {
  items = next
  for (const listener of listeners) listener()
}

function close(id: number): void {
  clearTimeout(timers.get(id))
  timers.delete(id)
  become(items.filter((item) => item.id !== id))
}

function closeLater(item: Item, after: number): void {
  if (!item.stays && !held)
    timers.set(
      item.id,
      setTimeout(() => close(item.id), after),
    )
}

function add(kind: Kind, text: ToastText): Item {
  last += 1
  const item = { ...text, kind, id: last, stays: kind === 'failed' || text.action !== undefined }
  for (const one of items.slice(0, Math.max(0, items.length + 1 - MOST))) close(one.id)
  become([...items, item])
  closeLater(item, SHOWN_MS)
  return item
}

function addProblem(title: string, error: unknown): Item {
  const description = error instanceof Error ? ('detail' in error ? String(error.detail) : error.message) : ''
  return add('failed', { title, description })
}

function addUnsure(error: unknown): boolean {
  if (!(error instanceof Error && 'known' in error)) return false
  const item = addProblem(error.message, error)
  // as: errors with a `known` are these.
  void (error as Unsure).known().then(() => {
    item.stays = false
    closeLater(item, 0)
  })
  return true
}

/** While they are looked at, none goes away. */
function hold(on: boolean): void {
  if (held === on) return
  held = on
  for (const timer of timers.values()) clearTimeout(timer)
  timers.clear()
  if (!on) for (const item of items) closeLater(item, SHOWN_AFTER_MS)
}

/**
 * The result of an action that somebody just took, in a live region. Nothing else is a toast: what happened by itself
 * belongs into the page.
 */
export const toast = {
  done: (text: ToastText) => void add('done', text),
  note: (text: ToastText) => void add('note', text),
  /** Stays until it is closed. */
  failed: (text: ToastText) => void add('failed', text),
  /** An action's error, with what the server said. One after which nobody knows whether it was done says so itself. */
  problem: (title: string, error: unknown) => {
    if (!addUnsure(error)) addProblem(title, error)
  },
  /** Says that nobody knows whether something was done, until that is known; `false` where the error says something else. */
  unsure: addUnsure,
}

const ICON = { done: CircleCheck, failed: CircleAlert, note: Info }
const COLOUR = { done: 'text-good', failed: 'text-bad', note: 'text-info' }

/** Once around everything. */
export function ToastProvider({ children }: { children: ReactNode }) {
  return (
    <>
      {children}
      <Toasts />
    </>
  )
}

function spoken(item: Item | undefined): string {
  return item === undefined ? '' : `${item.title}. ${item.description ?? ''}`
}

function Toasts() {
  const shown = useSyncExternalStore(subscribe, () => items)
  return (
    <>
      <LiveRegion>{spoken(shown.findLast((item) => item.kind !== 'failed'))}</LiveRegion>
      <LiveRegion urgent>{spoken(shown.findLast((item) => item.kind === 'failed'))}</LiveRegion>
      {shown.length > 0 && (
        <section
          aria-label={t('Notifications')}
          onPointerEnter={() => hold(true)}
          onPointerLeave={() => hold(false)}
          onFocus={() => hold(true)}
          onBlur={() => hold(false)}
          className="fixed right-0 bottom-0 z-50 flex w-full flex-col gap-2 p-3 sm:w-96 sm:p-4"
        >
          {shown.map((item) => (
            <Toast key={item.id} item={item} />
          ))}
        </section>
      )}
    </>
  )
}

function Toast({ item }: { item: Item }) {
  const Icon = ICON[item.kind]
  return (
    <div className="floating flex items-start gap-2.5 p-3">
      <Icon aria-hidden="true" className={cx('mt-0.5 size-4 shrink-0', COLOUR[item.kind])} />
      <div className="min-w-0 flex-1">
        <p className="font-medium">{item.title}</p>
        {item.description !== undefined && item.description !== '' && (
          <p className="mt-0.5 max-h-32 overflow-y-auto text-sm text-muted">
            <TickedText text={item.description} />
          </p>
        )}
        {item.action !== undefined && (
          <Button size="small" className="mt-2" onClick={item.action.act}>
            {item.action.label}
          </Button>
        )}
      </div>
      <button
        type="button"
        aria-label={t('Close: {title}', { title: item.title })}
        onClick={() => {
          close(item.id)
          hold(false)
        }}
        className="flex size-6 shrink-0 items-center justify-center rounded text-muted hover:bg-hover hover:text-text"
      >
        <X aria-hidden="true" className="size-4" />
      </button>
    </div>
  )
}
