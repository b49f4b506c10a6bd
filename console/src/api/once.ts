import { useState } from 'react'
import { toSendAgain } from './answer-lost'

type Once = <Answer>(request: unknown, send: (idempotencyKey: string) => Promise<Answer>) => Promise<Answer>

/**
 * Makes a creation happen once, also when its answer was lost and somebody sends it again: the same request has the same
 * idempotency key until it was answered, and the server answers it as the first time, with a secret that it shows only
 * then. Another request, or the same one after an answer, is a new one. Throws `AnswerLost` where the answer was lost.
 */
export function makeOnce(newKey: () => string = randomKey): Once {
  let last: { request: string; key: string } | undefined
  return async (request, send) => {
    const text = JSON.stringify(request)
    if (last?.request !== text) last = { request: text, key: newKey() }
    const sent = last
    const answer = await send(sent.key).catch((error: unknown) => {
      throw toSendAgain(error)
    })
    if (last === sent) last = undefined
    return answer
  }
}

/** For a form that creates something: `once(body, (idempotencyKey) => call(createKey, { body }, { idempotencyKey }))`. */
export function useOnce(): Once {
  const [once] = useState(() => makeOnce())
  return once
}

function randomKey(): string {
  // Not `randomUUID`: plain HTTP on a name other than localhost has none.
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
