/** Theme and density. `public/appearance.js` reads what this stores, before the first paint: part 1 of 2. */
import { useSyncExternalStore } from 'react'
import { storage } from '@/lib/storage'

export type Theme = 'system' | 'light' | 'dark'
export type Density = 'comfortable' | 'compact'

const listeners = new Set<() => void>()

function subscribe(listener: () => void): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

function tell(): void {
  for (const listener of listeners) listener()
}

const theme = (): Theme => {
  const stored = document.documentElement.dataset['theme']
  return stored === 'light' || stored === 'dark' ? stored : 'system'
}
const density = (): Density =>
  document.documentElement.dataset['density'] === 'compact' ? 'compact' : 'comfortable'

/** Chooses a theme, in this browser. */
export function setTheme(next: Theme): void {
  if (next === 'system') delete document.documentElement.dataset['theme']
  else document.documentElement.dataset['theme'] = next
  storage.set('theme', next === 'system' ? undefined : next)
  tell()
}

/** Chooses a density, in this browser. */
export function setDensity(next: Density): void {
  if (next === 'compact') document.documentElement.dataset['density'] = next
  else delete document.documentElement.dataset['density']
  storage.set('density', next === 'compact' ? next : undefined)
  tell()
}

/** The theme that is chosen. */
export function useTheme(): Theme {
  return useSyncExternalStore(subscribe, theme)
}

/** The density that is chosen. */
export function useDensity(): Density {
  return useSyncExternalStore(subscribe, density)
}
