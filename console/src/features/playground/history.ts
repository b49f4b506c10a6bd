/**
 * What was run in the playground: kept in this browser for the person who did it, bounded, without results, and
 * taken away at sign-out with everything that is private.
 */
import * as v from 'valibot'
import { privateStorage } from '@/lib/private-storage'

const MOST = 50
/** Larger inputs are not kept. */
const LARGEST_INPUT = 8 * 1024

const RunSchema = v.object({
  id: v.string(),
  at: v.string(),
  target: v.string(),
  kind: v.picklist(['tool', 'resource', 'prompt']),
  item: v.string(),
  /** JSON. */
  input: v.string(),
  outcome: v.picklist(['answered', 'tool_error', 'failed', 'cancelled']),
  took: v.number(),
})

/** One run. */
export type PastRun = v.InferOutput<typeof RunSchema>

/** The runs of a person, newest first. */
export function pastRuns(person: string): PastRun[] {
  const parsed = v.safeParse(
    v.pipe(v.string(), v.parseJson(), v.array(RunSchema)),
    privateStorage.get('playground', person),
  )
  return parsed.success ? parsed.output.slice(0, MOST) : []
}

/** Adds a run, and gives all of them. */
export function addRun(person: string, run: PastRun): PastRun[] {
  if (run.input.length > LARGEST_INPUT) return pastRuns(person)
  const runs = [run, ...pastRuns(person)].slice(0, MOST)
  privateStorage.set('playground', person, JSON.stringify(runs))
  return runs
}

/** Forgets the runs of a person. */
export function forgetRuns(person: string): void {
  privateStorage.set('playground', person, undefined)
}
