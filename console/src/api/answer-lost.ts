/**
 * A change whose answer was lost may have been made all the same, so nobody may say that it failed. What somebody asks
 * for by pressing a button goes through {@link callToChange}; a form keeps what was typed, and is sent again.
 */
import { t } from '@/lib/t'
import { type ApiProblem, type CallInput, call, isProblem } from './client'
import type { Operation } from './operation'

/** Nobody knows whether a change was made: its answer did not come. */
export class AnswerLost extends Error {
  // The title says all that a code would.
  override name = ''
  readonly title: string
  readonly detail: string
  /** For `toast.problem`, which is given the title of a failure. */
  readonly unsure = true

  constructor(title: string, cause: ApiProblem) {
    super(title, { cause })
    this.title = title
    const why = cause.status >= 200 && cause.status < 300 ? t('the answer cannot be read') : cause.detail
    this.detail = t('{why}; this page shows what became of it once Toolyard can be reached', { why })
  }
}

/**
 * Calls an operation that changes something, as {@link call} does. Throws {@link AnswerLost} where it may have been done:
 * `unsure` says what is not known.
 */
export async function callToChange<Input, Answer>(
  operation: Operation<Input, Answer>,
  input: CallInput<Input>,
  unsure = t('It is not known whether that was done'),
): Promise<Answer> {
  try {
    return await call(operation, input)
  } catch (error) {
    throw isProblem(error) && isLost(error) ? new AnswerLost(unsure, error) : error
  }
}

function isLost({ code, status }: ApiProblem): boolean {
  if (code === 'unexpected_answer') return status < 400 || status >= 500
  // A database that does not answer in time may have written what it was given.
  return code === 'unreachable' || code === 'store_unavailable'
}
