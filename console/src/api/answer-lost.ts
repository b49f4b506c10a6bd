/**
 * A change whose answer was lost may have been made all the same, so nobody may say that it failed. What somebody asks
 * for by pressing a button goes through {@link callToChange}: the page shows what became of it. A form keeps what was
 * typed, to be sent again: it goes through {@link callToSave}, or `useOnce` where it creates something.
 */
import { t } from '@/lib/t'
import { type ApiProblem, type CallInput, type CallOptions, call, isProblem } from './client'
import { outdatedSince, watchOutdated } from './connection'
import type { Operation } from './operation'

/** Time to read what is said, and more than the page needs to show what became of it. */
const SHOWN_MS = 10_000

/** Nobody knows whether a change was made: its answer did not come. */
export class AnswerLost extends Error {
  // The title says all that a code would.
  override name = ''
  readonly title: string
  readonly detail: string

  constructor(title: string, detail: string, cause: ApiProblem) {
    super(title, { cause })
    this.title = title
    this.detail = detail
  }

  /** Resolves once there was a connection to Toolyard for a while: by then the page shows what became of the change. */
  known(): Promise<void> {
    return new Promise((resolve) => {
      let timer: ReturnType<typeof setTimeout> | undefined
      const look = () => {
        clearTimeout(timer)
        if (outdatedSince() === undefined) timer = setTimeout(done, SHOWN_MS)
      }
      const unwatch = watchOutdated(look)
      const done = () => {
        unwatch()
        resolve()
      }
      look()
    })
  }
}

const notKnown = () => t('It is not known whether that was done')

/**
 * Calls an operation that changes something, as {@link call} does. Throws {@link AnswerLost} where it may have been done:
 * `unsure` says what is not known.
 */
export async function callToChange<Input, Answer>(
  operation: Operation<Input, Answer>,
  input: CallInput<Input>,
  unsure = notKnown(),
  options: CallOptions = {},
): Promise<Answer> {
  try {
    return await call(operation, input, options)
  } catch (error) {
    if (!isLost(error)) throw error
    const why = isAnswered(error) ? t('the answer cannot be read') : error.detail
    const detail = t('{why}; this page shows what became of it once Toolyard can be reached', { why })
    throw new AnswerLost(unsure, detail, error)
  }
}

/** As {@link callToChange}, for a form whose change may be made twice: the second time changes nothing more. */
export async function callToSave<Input, Answer>(
  operation: Operation<Input, Answer>,
  input: CallInput<Input>,
  unsure?: string,
): Promise<Answer> {
  try {
    return await call(operation, input)
  } catch (error) {
    throw toSendAgain(error, unsure)
  }
}

/** What a form that may be sent twice says of an error: {@link AnswerLost} where it may have been done. */
export function toSendAgain(error: unknown, unsure = notKnown()): unknown {
  // An answer of a version that this console does not know comes again with each sending: it says to reload the page.
  if (!isLost(error) || isAnswered(error)) return error
  const detail = t('{why}; send it again as it is: the result is the same, whether it was done or not', {
    why: error.detail,
  })
  return new AnswerLost(unsure, detail, error)
}

function isLost(error: unknown): error is ApiProblem {
  if (!isProblem(error)) return false
  const { code, status } = error
  if (code === 'unexpected_answer') return status < 400 || status >= 500
  // A database that does not answer in time may have written what it was given.
  return code === 'unreachable' || code === 'store_unavailable'
}

/** Whether an answer came, of which only what it says is not understood. */
function isAnswered({ status }: ApiProblem): boolean {
  return status >= 200 && status < 300
}
