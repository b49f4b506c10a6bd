import * as v from 'valibot'
import { t } from '@/lib/t'

const SHORTEST = 12
const LONGEST = 128
/** Without what looks alike: these are read aloud and typed. */
const LETTERS = 'abcdefghjkmnpqrstuvwxyzACDEFGHJKLMNPQRTUVWXYZ234679'
const MADE_LENGTH = 20

/** A password of 20 random characters (more than 110 bits). */
export function madePassword(): string {
  const largest = 256 - (256 % LETTERS.length)
  let password = ''
  while (password.length < MADE_LENGTH) {
    for (const byte of crypto.getRandomValues(new Uint8Array(32))) {
      // Bytes beyond the last full round would make some letters more likely.
      if (byte < largest && password.length < MADE_LENGTH) password += LETTERS[byte % LETTERS.length]
    }
  }
  return password
}

/** A password as the server takes it. */
export const passwordSchema = v.pipe(
  v.string(),
  v.check(
    (password) => [...password].length >= SHORTEST && [...password].length <= LONGEST,
    t('{shortest} to {longest} characters', { shortest: SHORTEST, longest: LONGEST }),
  ),
)
