import * as v from 'valibot'
import { t } from './t'

const SHORTEST = 12
const LONGEST = 128

let unsure = false

/** Keeps whether a change of one's own password got no answer, so that nobody here knows which one holds. */
export function setPasswordUnsure(is: boolean): void {
  unsure = is
}

/** What is said, wherever a password is asked for, while that is so; empty otherwise. */
export function unsureText(): string {
  return unsure ? t('Your password may have been changed: try the new one, then the old one.') : ''
}

/** A password as the server takes it. */
export const passwordSchema = v.pipe(
  v.string(),
  v.check(
    (password) => [...password].length >= SHORTEST && [...password].length <= LONGEST,
    t('{shortest} to {longest} characters', { shortest: SHORTEST, longest: LONGEST }),
  ),
)
