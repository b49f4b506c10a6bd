/** Metrics as evenly spaced points for charts. Pure. */
import type { CallBucket, InstanceResources, ServerMetrics } from '@/api/generated/types'

/** Calls by stretches: a stretch without a call counts zero and has no durations. */
export interface CallPoints {
  /** Seconds since 1970. */
  times: number[]
  count: number[]
  errors: number[]
  /** In milliseconds. */
  p50: Array<number | null>
  p95: Array<number | null>
  p99: Array<number | null>
}

/** Every stretch of the window, also those that the answer leaves out. */
export function callPoints(
  metrics: Pick<ServerMetrics, 'since' | 'until' | 'bucket_seconds' | 'calls'>,
): CallPoints {
  const step = Math.max(1, metrics.bucket_seconds)
  const first = Math.floor(Date.parse(metrics.since) / 1000)
  const last = Math.floor(Date.parse(metrics.until) / 1000)
  const by = new Map(metrics.calls.map((bucket) => [Math.floor(Date.parse(bucket.at) / 1000), bucket]))
  const points: CallPoints = { times: [], count: [], errors: [], p50: [], p95: [], p99: [] }
  // A window has at most some hundred stretches, whatever the answer says.
  const most = 2000
  for (let time = first; time <= last && points.times.length < most; time += step) {
    const bucket = by.get(time)
    points.times.push(time)
    points.count.push(bucket?.count ?? 0)
    points.errors.push(bucket?.errors ?? 0)
    points.p50.push(inMilliseconds(bucket, 'p50_us'))
    points.p95.push(inMilliseconds(bucket, 'p95_us'))
    points.p99.push(inMilliseconds(bucket, 'p99_us'))
  }
  return points
}

function inMilliseconds(
  bucket: CallBucket | undefined,
  field: 'p50_us' | 'p95_us' | 'p99_us',
): number | null {
  return bucket === undefined ? null : bucket[field] / 1000
}

/** How many calls there were in all, how many failed, and the slowest stretch's 95th percentile in milliseconds. */
export function callTotals(calls: readonly CallBucket[]): {
  count: number
  errors: number
  slowest: number | undefined
} {
  let [count, errors] = [0, 0]
  let slowest: number | undefined
  for (const bucket of calls) {
    count += bucket.count
    errors += bucket.errors
    slowest = Math.max(slowest ?? 0, bucket.p95_us / 1000)
  }
  return { count, errors, slowest }
}

/** What instances used, on one axis of time: for each instance a value or nothing at each moment. */
export interface ResourcePoints {
  times: number[]
  instances: Array<{ instance: string; memory: Array<number | null>; cpu: Array<number | null> }>
}

/** Samples of all instances brought to one axis; agents report at their own moments, so moments are rounded. */
export function resourcePoints(resources: readonly InstanceResources[], step = 15): ResourcePoints {
  const round = (at: string) => Math.round(Date.parse(at) / 1000 / step) * step
  const times = [...new Set(resources.flatMap(({ samples }) => samples.map(({ at }) => round(at))))].sort(
    (one, other) => one - other,
  )
  return {
    times,
    instances: resources.map(({ instance, samples }) => {
      const by = new Map(samples.map((sample) => [round(sample.at), sample]))
      return {
        instance,
        memory: times.map((time) => by.get(time)?.memory_bytes ?? null),
        cpu: times.map((time) => by.get(time)?.cpu ?? null),
      }
    }),
  }
}
