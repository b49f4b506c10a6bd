import 'uplot/dist/uPlot.min.css'
import { useEffect, useRef, useState } from 'react'
import UPlot from 'uplot'
import { formatClock, formatNumber } from '@/lib/format'
import { t } from '@/lib/t'
import { VisuallyHidden } from './visually-hidden'

/** A line of a chart. `undefined` and `null` are gaps. */
export interface ChartSeries {
  label: string
  values: ReadonlyArray<number | null | undefined>
  tone: 'accent' | 'info' | 'warn' | 'bad' | 'good' | 'muted'
  fill?: boolean
  dashed?: boolean
}

/**
 * Lines over time. Only pages that draw one load the library: import this module from a part that is itself loaded
 * with its route. The legend shows the values under the pointer, and what the chart says in words is there for
 * people who do not see it.
 */
export function Chart({
  label,
  times,
  series,
  height = 180,
  format = formatNumber,
  binary = false,
}: {
  label: string
  /** Seconds since 1970, ascending; as many as each series has values. */
  times: readonly number[]
  series: readonly ChartSeries[]
  height?: number
  format?: (value: number) => string
  /** The values are sizes in bytes: the axis goes in steps of 1024. */
  binary?: boolean
}) {
  const box = useRef<HTMLDivElement>(null)
  const [at, setAt] = useState<number>()
  const look = useLook()
  const latest = useRef({ times, series, format })
  useEffect(() => {
    latest.current = { times, series, format }
  })
  // What makes another chart of it; other values only go into the same one.
  const shape = series.map((one) => `${one.label}|${one.tone}|${one.fill}|${one.dashed}`).join('\n')
  const chart = useRef<UPlot>(undefined)
  // biome-ignore lint/correctness/useExhaustiveDependencies: `shape` and `look` stand for the series and the theme.
  useEffect(() => {
    const element = box.current
    if (element === null) return
    const made = new UPlot(
      options(element, latest.current.series, height, binary, (value) => latest.current.format(value), setAt),
      aligned(latest.current.times, latest.current.series),
      element,
    )
    chart.current = made
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }))
    observer.observe(element)
    return () => {
      observer.disconnect()
      made.destroy()
      chart.current = undefined
    }
  }, [shape, height, look, binary])
  useEffect(() => {
    chart.current?.setData(aligned(times, series))
  }, [times, series])
  const place = at ?? times.length - 1
  const time = times[place]
  return (
    <figure className="min-w-0">
      <figcaption className="mb-2 flex flex-wrap items-baseline gap-x-4 gap-y-1 text-sm">
        <VisuallyHidden>{label}</VisuallyHidden>
        {series.map((one) => (
          <span key={one.label} className="inline-flex items-center gap-1.5">
            <span aria-hidden="true" className={`inline-block h-0.5 w-3 rounded ${TONE_CLASS[one.tone]}`} />
            <span className="text-muted">{one.label}</span>
            <span className="tabular">{text(one.values[place], format)}</span>
          </span>
        ))}
        <span className="tabular ml-auto text-faint">
          {time === undefined ? '' : formatClock(new Date(time * 1000)).slice(0, 8)}
        </span>
      </figcaption>
      <div ref={box} role="img" aria-label={summary(label, series, format)} style={{ height }} />
    </figure>
  )
}

const TONE_CLASS = {
  accent: 'bg-accent',
  info: 'bg-info',
  warn: 'bg-warn',
  bad: 'bg-bad',
  good: 'bg-good',
  muted: 'bg-faint',
}

function text(value: number | null | undefined, format: (value: number) => string): string {
  return value === null || value === undefined ? '–' : format(value)
}

/** What the chart says in words: of now only what it shows of now. */
export function summary(
  label: string,
  series: readonly ChartSeries[],
  format: (value: number) => string,
): string {
  const parts = series.map((one) => {
    const values = one.values.filter((value): value is number => typeof value === 'number')
    if (values.length === 0) return t('{series}: no values', { series: one.label })
    const highest = format(Math.max(...values))
    const last = one.values.at(-1)
    return typeof last === 'number'
      ? t('{series}: now {last}, highest {highest}', { series: one.label, last: format(last), highest })
      : t('{series}: no value now, highest {highest}', { series: one.label, highest })
  })
  return `${label}. ${parts.join('. ')}`
}

function aligned(times: readonly number[], series: readonly ChartSeries[]): UPlot.AlignedData {
  return [[...times], ...series.map((one) => [...one.values])]
}

/** A token's colour as the canvas needs it. */
function colour(element: HTMLElement, token: string): string {
  const probe = document.createElement('span')
  probe.style.color = `var(--${token})`
  element.append(probe)
  const found = getComputedStyle(probe).color
  probe.remove()
  return found
}

function options(
  element: HTMLElement,
  series: readonly ChartSeries[],
  height: number,
  binary: boolean,
  format: (value: number) => string,
  onPlace: (place: number | undefined) => void,
): UPlot.Options {
  const of = (token: string) => colour(element, token)
  const grid = { stroke: of('line'), width: 1 }
  const font = `11px ${getComputedStyle(element).fontFamily}`
  const axis = { stroke: of('faint'), font, grid, ticks: { show: false } }
  return {
    width: Math.max(1, element.clientWidth),
    height,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { y: { range: (_chart, _low, high) => [0, high > 0 ? high * 1.12 : 1] } },
    axes: [
      {
        ...axis,
        grid: { show: false },
        space: 80,
        size: 28,
        values: (_chart, ticks) => ticks.map((tick) => formatClock(new Date(tick * 1000)).slice(0, 5)),
      },
      {
        ...axis,
        size: 60,
        space: 36,
        ...(binary ? { incrs: POWERS } : {}),
        values: (_chart, ticks) => ticks.map(format),
      },
    ],
    series: [
      {},
      ...series.map((one): UPlot.Series => {
        const stroke = of(one.tone === 'muted' ? 'faint' : one.tone)
        const made: UPlot.Series = { label: one.label, stroke, width: 1.5, points: { show: false } }
        if (one.dashed) made.dash = [4, 4]
        if (one.fill) made.fill = stroke.replace('rgb(', 'rgba(').replace(')', ', 0.1)')
        return made
      }),
    ],
    hooks: { setCursor: [(chart) => onPlace(chart.cursor.idx ?? undefined)] },
  }
}

/** 1 B to 1 PiB. */
const POWERS = Array.from({ length: 51 }, (_, power) => 2 ** power)

/** Changes when the theme does. */
function useLook(): number {
  const [look, setLook] = useState(0)
  useEffect(() => {
    const changed = () => setLook((before) => before + 1)
    const observer = new MutationObserver(changed)
    observer.observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] })
    const media = matchMedia('(prefers-color-scheme: dark)')
    media.addEventListener('change', changed)
    return () => {
      observer.disconnect()
      media.removeEventListener('change', changed)
    }
  }, [])
  return look
}
