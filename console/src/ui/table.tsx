import { useWindowVirtualizer } from '@tanstack/react-virtual'
import { ArrowDown, ArrowUp } from 'lucide-react'
import { type KeyboardEvent, memo, type ReactNode, useLayoutEffect, useRef, useState } from 'react'
import { cx } from '@/lib/cx'
import { formatNumber } from '@/lib/format'
import { t } from '@/lib/t'
import { MOST_PRINTED, usePrinting } from './use-printing'

/** A column. Define columns outside the component or in `useMemo`: rows render again when the array is another one. */
export interface Column<Row> {
  id: string
  header: string
  cell: (row: Row) => ReactNode
  /** Makes it sortable. */
  compare?: (one: Row, other: Row) => number
  align?: 'start' | 'end'
  /** As in CSS; columns without one share the rest. */
  width?: string
  /** Left out on screens narrower than this. */
  from?: 'xs' | 'sm' | 'md' | 'lg' | 'xl' | '2xl'
  /** The header is there for screen readers only. */
  hideHeader?: boolean
}

/** Which column orders the rows. Keep it in the URL. */
export interface Sort {
  column: string
  descending: boolean
}

/** Which rows are chosen, by key. */
export interface Selection {
  keys: ReadonlySet<string>
  onChange: (keys: ReadonlySet<string>) => void
}

export interface TableProps<Row> {
  /** What the rows are: the table's name. */
  label: string
  rows: readonly Row[]
  columns: ReadonlyArray<Column<Row>>
  rowKey: (row: Row) => string
  /** The row's name, for its check box. */
  rowLabel?: (row: Row) => string
  sort?: Sort
  onSortChange?: (sort: Sort) => void
  selection?: Selection
  /** Shown instead of rows. */
  empty?: ReactNode
}

const FROM = {
  // Narrower than most phones: there the first column has to be read.
  xs: 'max-[24rem]:hidden',
  sm: 'max-sm:hidden',
  md: 'max-md:hidden',
  lg: 'max-lg:hidden',
  xl: 'max-xl:hidden',
  '2xl': 'max-2xl:hidden',
}
/** What a column's `from` is on narrower screens, for a cell that says there what the column would. */
export const UNTIL = { xs: 'min-[24rem]:hidden', sm: 'sm:hidden', md: 'md:hidden', xl: 'xl:hidden' }
/** Longer tables have only those rows in the page that are near the screen. */
const VIRTUAL_FROM = 80

/**
 * A table: head that stays, sorting, choosing rows (Shift for a range), arrow keys between rows. All rows are one row
 * high; long tables are virtual by themselves. It scrolls with the page.
 */
export function Table<Row>(props: TableProps<Row>) {
  const { label, rows, columns, rowKey, rowLabel = rowKey, sort, onSortChange, selection, empty } = props
  const sorted = sortRows(rows, columns, sort)
  const body = useRef<HTMLTableSectionElement>(null)
  const printing = usePrinting()
  const anchor = useRef<string>(undefined)
  const choose = (key: string, on: boolean, range: boolean) => {
    if (selection === undefined) return
    const keys = new Set(selection.keys)
    const order = sorted.map(rowKey)
    const from = range && anchor.current !== undefined ? order.indexOf(anchor.current) : -1
    const to = order.indexOf(key)
    const chosen = from < 0 ? [key] : order.slice(Math.min(from, to), Math.max(from, to) + 1)
    for (const one of chosen) {
      if (on) keys.add(one)
      else keys.delete(one)
    }
    anchor.current = key
    selection.onChange(keys)
  }
  const latest = useRef(choose)
  useLayoutEffect(() => {
    latest.current = choose
  })
  const [stable] = useState(
    () => (key: string, on: boolean, range: boolean) => latest.current(key, on, range),
  )
  const row = (one: Row, index: number) => {
    const key = rowKey(one)
    return (
      <TableRow
        key={key}
        row={one}
        rowKey={key}
        index={index}
        label={rowLabel(one)}
        // as: the row's type is this table's own; `memo` forgets type parameters.
        columns={columns as ReadonlyArray<Column<unknown>>}
        chosen={selection?.keys.has(key)}
        choose={selection === undefined ? undefined : stable}
      />
    )
  }
  const all =
    selection !== undefined && sorted.length > 0 && sorted.every((one) => selection.keys.has(rowKey(one)))
  const some = selection !== undefined && !all && selection.keys.size > 0
  if (rows.length === 0 && empty !== undefined) return empty
  const table = (
    <table
      className="w-full table-fixed border-collapse text-left"
      aria-rowcount={sorted.length + 1}
      onKeyDown={moveBetweenRows}
    >
      <caption className="sr-only">{label}</caption>
      <thead className="sticky top-bar z-10 bg-surface shadow-[inset_0_-1px_0_var(--line)]">
        <tr aria-rowindex={1}>
          {selection !== undefined && (
            <th scope="col" className="w-9 pl-3">
              <input
                type="checkbox"
                className="checkbox block"
                aria-label={t('Choose all')}
                checked={all}
                ref={(input) => {
                  if (input !== null) input.indeterminate = some
                }}
                onChange={() => selection.onChange(all ? new Set() : new Set(sorted.map(rowKey)))}
              />
            </th>
          )}
          {columns.map((column) => (
            <Head key={column.id} column={column} sort={sort} onSortChange={onSortChange} />
          ))}
        </tr>
      </thead>
      {sorted.length < VIRTUAL_FROM || printing ? (
        <tbody>{sorted.slice(0, printing ? MOST_PRINTED : VIRTUAL_FROM).map(row)}</tbody>
      ) : (
        <VirtualBody rows={sorted} row={row} bodyRef={body} />
      )}
    </table>
  )
  if (!printing || sorted.length <= MOST_PRINTED) return table
  return (
    <>
      <p className="px-3 py-2">
        {t('Printed are the first {shown} of {all} rows: search or filter to print others.', {
          shown: formatNumber(MOST_PRINTED),
          all: formatNumber(sorted.length),
        })}
      </p>
      {table}
    </>
  )
}

function Head<Row>({
  column,
  sort,
  onSortChange,
}: {
  column: Column<Row>
  sort: Sort | undefined
  onSortChange: ((sort: Sort) => void) | undefined
}) {
  const sorted = sort?.column === column.id ? (sort.descending ? 'descending' : 'ascending') : undefined
  const Arrow = sorted === 'descending' ? ArrowDown : ArrowUp
  const end = column.align === 'end'
  return (
    <th
      scope="col"
      aria-sort={column.compare === undefined ? undefined : (sorted ?? 'none')}
      style={{ width: column.width }}
      className={cx(
        'h-9 px-3 text-sm font-medium text-muted',
        end && 'text-right',
        column.from && FROM[column.from],
      )}
    >
      {column.compare === undefined || onSortChange === undefined ? (
        <span className={cx('block truncate', column.hideHeader && 'sr-only')}>{column.header}</span>
      ) : (
        <button
          type="button"
          onClick={() => onSortChange({ column: column.id, descending: sorted === 'ascending' })}
          className={cx(
            '-mx-1 inline-flex min-h-6 max-w-full items-center gap-1 rounded px-1 hover:text-text',
            end && 'flex-row-reverse',
          )}
        >
          <span className="truncate">{column.header}</span>
          <Arrow
            aria-hidden="true"
            className={cx('size-3.5 shrink-0', sorted === undefined && 'opacity-0')}
          />
        </button>
      )}
    </th>
  )
}

interface RowProps {
  row: unknown
  rowKey: string
  index: number
  label: string
  columns: ReadonlyArray<Column<unknown>>
  chosen: boolean | undefined
  choose: ((key: string, on: boolean, range: boolean) => void) | undefined
}

const TableRow = memo(function TableRow({ row, rowKey, index, label, columns, chosen, choose }: RowProps) {
  return (
    <tr
      aria-rowindex={index + 2}
      data-row
      className={cx(
        'h-row border-b last:border-b-0 hover:bg-hover',
        chosen && 'bg-accent-soft hover:bg-accent-soft',
      )}
    >
      {choose !== undefined && (
        <td className="w-9 pl-3">
          <input
            type="checkbox"
            className="checkbox block"
            aria-label={t('Choose {name}', { name: label })}
            checked={chosen === true}
            onChange={(event) => {
              const { shiftKey } = event.nativeEvent as MouseEvent // as: a check box changes by a click, also from the keyboard
              choose(rowKey, event.target.checked, shiftKey)
            }}
          />
        </td>
      )}
      {columns.map((column) => (
        <td
          key={column.id}
          className={cx(
            'truncate px-3',
            column.align === 'end' && 'tabular text-right',
            column.from && FROM[column.from],
          )}
        >
          {column.cell(row)}
        </td>
      ))}
    </tr>
  )
})

function VirtualBody<Row>({
  rows,
  row,
  bodyRef,
}: {
  rows: readonly Row[]
  row: (row: Row, index: number) => ReactNode
  bodyRef: React.RefObject<HTMLTableSectionElement | null>
}) {
  const [offset, setOffset] = useState(0)
  const [height, setHeight] = useState(40)
  useLayoutEffect(() => {
    const body = bodyRef.current
    if (body === null) return
    const measure = () => {
      setOffset(Math.round(body.getBoundingClientRect().top + window.scrollY))
      const shown = body.querySelector('[data-row]')?.getBoundingClientRect().height
      if (shown !== undefined && shown > 0) setHeight(shown)
    }
    measure()
    const observer = new ResizeObserver(measure)
    observer.observe(document.documentElement)
    return () => observer.disconnect()
  }, [bodyRef])
  const virtualizer = useWindowVirtualizer({
    count: rows.length,
    estimateSize: () => height,
    overscan: 12,
    scrollMargin: offset,
  })
  const shown = virtualizer.getVirtualItems()
  const first = shown[0]
  const last = shown.at(-1)
  const before = first === undefined ? 0 : first.start - offset
  const after = last === undefined ? rows.length * height : virtualizer.getTotalSize() - (last.end - offset)
  return (
    <tbody ref={bodyRef}>
      {before > 0 && <Gap height={before} />}
      {shown.map(({ index }) => {
        const one = rows[index]
        return one === undefined ? null : row(one, index)
      })}
      {after > 0 && <Gap height={after} />}
    </tbody>
  )
}

/** The room of rows that are not in the page. One cell: a span over columns that are left out would make new ones. */
function Gap({ height }: { height: number }) {
  return (
    <tr>
      <td style={{ height, padding: 0 }} />
    </tr>
  )
}

function sortRows<Row>(
  rows: readonly Row[],
  columns: ReadonlyArray<Column<Row>>,
  sort: Sort | undefined,
): readonly Row[] {
  const compare = columns.find((column) => column.id === sort?.column)?.compare
  if (compare === undefined || sort === undefined) return rows
  return rows.toSorted((one, other) => (sort.descending ? compare(other, one) : compare(one, other)))
}

/** Up and down go to the same control of the row above or below. */
function moveBetweenRows(event: KeyboardEvent<HTMLTableElement>) {
  if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return
  const target = event.target
  if (
    !(target instanceof HTMLElement) ||
    (target.tagName === 'INPUT' && target.getAttribute('type') !== 'checkbox')
  )
    return
  const row = target.closest('[data-row]')
  if (row === null) return
  const next = event.key === 'ArrowDown' ? row.nextElementSibling : row.previousElementSibling
  const place = controls(row).indexOf(target)
  const other = next === null ? undefined : controls(next)[place]
  if (other === undefined) return
  event.preventDefault()
  other.focus()
  other.scrollIntoView({ block: 'nearest' })
}

function controls(row: Element): HTMLElement[] {
  return [...row.querySelectorAll<HTMLElement>('a[href], button, input')]
}
