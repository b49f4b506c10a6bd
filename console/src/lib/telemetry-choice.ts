/** Whether this browser reports how the console does: its own choice, and that of the browser. */
import { storage } from './storage'

/** Whether the browser asks not to be observed: Global Privacy Control (W3C), which nothing here overrules. */
export function privacySignal(): boolean {
  return 'globalPrivacyControl' in navigator && navigator.globalPrivacyControl === true
}

/** Whether reports are wanted: until somebody says otherwise here. */
export function reportsWanted(): boolean {
  return !privacySignal() && storage.get('reports') !== 'off'
}

/** Keeps the choice, in this browser. */
export function setReportsWanted(wanted: boolean): void {
  storage.set('reports', wanted ? undefined : 'off')
}
