import { useState } from 'react'

/**
 * A key that makes the same creation, sent twice, happen once: the same for the same request, another one when
 * something in it changed.
 */
export function useIdempotencyKey(): (body: unknown) => string {
  const [keyOf] = useState(() => {
    let last: { body: string; key: string } | undefined
    return (body: unknown): string => {
      const text = JSON.stringify(body)
      if (last?.body !== text) last = { body: text, key: randomKey() }
      return last.key
    }
  })
  return keyOf
}

function randomKey(): string {
  // Not `randomUUID`: plain HTTP on a name other than localhost has none.
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
