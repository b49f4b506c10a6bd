import { keepPreviousData, useQuery } from '@tanstack/react-query'
import { type ReactNode, useMemo } from 'react'
import { METRICS_WINDOW } from '@/api/generated/enums'
import type { ServerMetrics as Metrics, MetricsWindow } from '@/api/generated/types'
import { formatBytes, formatDuration, formatNumber, formatPercent, formatTime } from '@/lib/format'
import { t } from '@/lib/t'
import { Chart, type ChartSeries } from '@/ui/chart'
import { EmptyState } from '@/ui/empty-state'
import { FilterChips } from '@/ui/filter-chips'
import { Panel } from '@/ui/panel'
import { RelativeTime } from '@/ui/relative-time'
import { Skeleton } from '@/ui/skeleton'
import { callPoints, callTotals, resourcePoints } from '../metric-points'
import { shortId } from './log-view'
import { metricsQuery } from './queries'

const TONES = ['accent', 'info', 'warn', 'good', 'muted'] as const

/** What went through it, how fast, and what it used. */
export function ServerMetrics({
  name,
  range,
  onRangeChange,
}: {
  name: string
  range: MetricsWindow
  onRangeChange: (range: MetricsWindow) => void
}) {
  const query = useQuery({
    ...metricsQuery(name, range),
    placeholderData: keepPreviousData,
    refetchInterval: range === '15m' || range === '1h' ? 15_000 : 60_000,
  })
  const skeleton = <Skeleton className="h-54 w-full" />
  return (
    <div className="flex flex-col gap-4">
      <div className="flex flex-wrap items-center justify-between gap-x-6 gap-y-2">
        <FilterChips
          label={t('How far back')}
          chosen={[range]}
          options={METRICS_WINDOW.map((value) => ({ value, label: rangeText(value) }))}
          onChange={([next]) => next !== undefined && onRangeChange(next)}
        />
        <Totals metrics={query.data} />
      </div>
      <div className="grid gap-4 xl:grid-cols-2">
        <Panel title={t('Calls')} query={query} skeleton={skeleton}>
          {(metrics) => <Calls metrics={metrics} />}
        </Panel>
        <Panel title={t('Time that calls took')} query={query} skeleton={skeleton}>
          {(metrics) => <Latency metrics={metrics} />}
        </Panel>
        <Panel title={t('Memory')} query={query} skeleton={skeleton}>
          {(metrics) => (
            <Resources metrics={metrics} label={t('Memory by instance')} of="memory" format={formatBytes} />
          )}
        </Panel>
        <Panel title={t('Processor')} query={query} skeleton={skeleton}>
          {(metrics) => (
            <Resources
              metrics={metrics}
              label={t('Share of one core by instance')}
              of="cpu"
              format={formatPercent}
            />
          )}
        </Panel>
      </div>
    </div>
  )
}

function rangeText(range: MetricsWindow): string {
  const texts: Record<MetricsWindow, string> = {
    '15m': t('15 minutes'),
    '1h': t('1 hour'),
    '24h': t('24 hours'),
    '7d': t('7 days'),
  }
  return texts[range] ?? range
}

function Totals({ metrics }: { metrics: Metrics | undefined }) {
  const totals = metrics === undefined ? undefined : callTotals(metrics.calls)
  return (
    <dl className="flex flex-wrap gap-x-6 gap-y-1">
      <Total name={t('Calls')}>{totals === undefined ? '–' : formatNumber(totals.count)}</Total>
      <Total name={t('Failed')}>
        {totals === undefined
          ? '–'
          : totals.count === 0
            ? formatNumber(0)
            : `${formatNumber(totals.errors)} (${formatPercent(totals.errors / totals.count)})`}
      </Total>
      <Total name={t('Slowest p95')}>
        {totals?.slowest === undefined ? '–' : formatDuration(totals.slowest)}
      </Total>
    </dl>
  )
}

function Total({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="flex items-baseline gap-1.5">
      <dt className="text-sm text-muted">{name}</dt>
      <dd className="tabular font-medium">{children}</dd>
    </div>
  )
}

function Calls({ metrics }: { metrics: Metrics }) {
  const points = useMemo(() => callPoints(metrics), [metrics])
  const series: ChartSeries[] = [
    { label: t('calls'), values: points.count, tone: 'accent', fill: true },
    { label: t('failed'), values: points.errors, tone: 'bad' },
  ]
  if (metrics.calls.length === 0) return <NoCalls />
  return (
    <WithTable
      label={t('Calls')}
      times={points.times}
      series={series}
      format={formatNumber}
      keep={(at) => points.count[at] !== 0}
    />
  )
}

function Latency({ metrics }: { metrics: Metrics }) {
  const points = useMemo(() => callPoints(metrics), [metrics])
  if (metrics.calls.length === 0) return <NoCalls />
  return (
    <WithTable
      label={t('Time that calls took')}
      times={points.times}
      series={[
        { label: 'p50', values: points.p50, tone: 'accent' },
        { label: 'p95', values: points.p95, tone: 'info' },
        { label: 'p99', values: points.p99, tone: 'warn', dashed: true },
      ]}
      format={formatDuration}
      keep={(at) => points.count[at] !== 0}
    />
  )
}

function NoCalls() {
  return (
    <EmptyState title={t('No calls in this time')}>
      {t('Calls that go through the gateway appear here.')}
    </EmptyState>
  )
}

function Resources({
  metrics,
  label,
  of,
  format,
}: {
  metrics: Metrics
  label: string
  of: 'memory' | 'cpu'
  format: (value: number) => string
}) {
  const points = useMemo(() => {
    // Samples are kept for an hour; of them those that the range asks for.
    const from = Date.parse(metrics.since)
    const within = metrics.resources.map((one) => ({
      ...one,
      samples: one.samples.filter((sample) => Date.parse(sample.at) >= from),
    }))
    return resourcePoints(within)
  }, [metrics])
  const begin = metrics.resources.map((one) => one.since ?? undefined).filter((at) => at !== undefined)
  if (points.times.length < 2) {
    return (
      <EmptyState title={t('No measurements yet')}>
        {metrics.resources.length === 0
          ? t('Nothing of it runs on a toolbox.')
          : t('Its toolbox reports every few seconds; a line needs two reports.')}
      </EmptyState>
    )
  }
  return (
    <>
      <WithTable
        label={label}
        times={points.times}
        series={points.instances.map((one, at) => ({
          label: shortId(one.instance),
          values: one[of],
          tone: TONES[at % TONES.length] ?? 'accent',
          fill: at === 0,
        }))}
        format={format}
        keep={() => true}
      />
      <p className="mt-2 text-sm text-muted">
        {t(
          'Measurements are kept for an hour at most, and not over a restart of Toolyard. The first is from',
        )}{' '}
        <RelativeTime at={begin.toSorted()[0]} />.
      </p>
    </>
  )
}

/** Rows of the table that stands for a chart. */
const MOST_ROWS = 300

/** A chart, and the same numbers as a table for people who cannot see it or want the numbers. */
function WithTable({
  label,
  times,
  series,
  format,
  keep,
}: {
  label: string
  times: readonly number[]
  series: readonly ChartSeries[]
  format: (value: number) => string
  /** Which moments the table has. */
  keep: (at: number) => boolean
}) {
  const rows = times
    .map((time, at) => ({ time, at }))
    .filter(({ at }) => keep(at))
    .slice(-MOST_ROWS)
    .reverse()
  return (
    <>
      <Chart label={label} times={times} series={series} format={format} binary={format === formatBytes} />
      <details className="mt-2">
        <summary className="w-fit rounded text-sm text-muted">{t('As a table')}</summary>
        <section
          aria-label={t('{label} as a table', { label })}
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
          tabIndex={0}
          className="mt-2 max-h-64 overflow-auto rounded-md border"
        >
          <table className="w-full text-left text-sm">
            <thead className="sticky top-0 bg-sunken">
              <tr>
                <th scope="col" className="px-3 py-1 font-medium text-muted">
                  {t('Time')}
                </th>
                {series.map((one) => (
                  <th key={one.label} scope="col" className="px-3 py-1 text-right font-medium text-muted">
                    {one.label}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map(({ time, at }) => (
                <tr key={time} className="border-t">
                  <td className="tabular px-3 py-1 whitespace-nowrap">{formatTime(new Date(time * 1000))}</td>
                  {series.map((one) => {
                    const value = one.values[at]
                    return (
                      <td key={one.label} className="tabular px-3 py-1 text-right">
                        {value === null || value === undefined ? '–' : format(value)}
                      </td>
                    )
                  })}
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      </details>
    </>
  )
}
