import type { GenericSchema } from 'valibot'

/** What an operation takes. `undefined` in a place means that there is nothing to give. */
export interface OperationInput {
  path: Record<string, string | number> | undefined
  query: Record<string, string | number | boolean | null | undefined> | undefined
  body: unknown
}

/** One operation of the API, as generated: how to ask, and how to check the answer. */
export interface Operation<Input, Answer> {
  id: string
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Such as `/api/v1/servers/{name}`. */
  path: string
  answer: 'json' | 'nothing' | 'stream'
  schema: GenericSchema<unknown, Answer> | undefined
  /** Only for the type checker. */
  readonly input?: Input
}

/** Makes an {@link Operation}; only generated code calls it. */
export function operation<Input, Answer>(
  id: string,
  method: Operation<Input, Answer>['method'],
  path: string,
  answer: Operation<Input, Answer>['answer'],
  schema: GenericSchema<unknown, Answer> | undefined,
): Operation<Input, Answer> {
  return { id, method, path, answer, schema }
}
