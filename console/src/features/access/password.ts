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
