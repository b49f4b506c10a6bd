import type { Session } from '@/api/generated/types'

const LATER = 'toolyard.setup-later'

/** Whether to lead to the first-run page: the password is still the made-up one, and nobody said "not now" in this tab. */
export function setupIsDue(session: Session): boolean {
  try {
    return session.first_run === true && sessionStorage.getItem(LATER) === null
  } catch {
    return false
  }
}

/** Asks again with the next tab. */
export function postponeSetup(): void {
  try {
    sessionStorage.setItem(LATER, '1')
  } catch {
    // Without storage `setupIsDue` does not ask at all.
  }
}
