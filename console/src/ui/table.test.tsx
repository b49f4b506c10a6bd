// @vitest-environment happy-dom
import { act } from 'react'
import { createRoot } from 'react-dom/client'
import { beforeAll, expect, test } from 'vitest'
import { type Column, Table } from './table'

interface Row {
  name: string
  phase: string
}

const COLUMNS: Column<Row>[] = [{ id: 'name', header: 'Name', cell: (row) => row.name }]

beforeAll(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
})

test('one change renders one row again, and a reorder of equal rows none', () => {
  const renders = new Map<string, number>()
  const columns: Column<Row>[] = [
    {
      id: 'name',
      header: 'Name',
      compare: (one, other) => one.name.localeCompare(other.name),
      cell: (row) => {
        renders.set(row.name, (renders.get(row.name) ?? 0) + 1)
        return row.name
      },
    },
    { id: 'phase', header: 'State', cell: (row) => row.phase },
  ]
  const rows = Array.from({ length: 60 }, (_, at): Row => ({ name: `server-${at}`, phase: 'ready' }))
  const place = document.createElement('div')
  const root = createRoot(place)
  const show = (shown: readonly Row[], chosen: readonly string[] = []) =>
    act(() =>
      root.render(
        <Table
          label="Servers"
          rows={shown}
          columns={columns}
          rowKey={(row) => row.name}
          // What a page gives anew with every render.
          sort={{ column: 'name', descending: false }}
          onSortChange={() => {}}
          selection={{ keys: new Set(chosen), onChange: () => {} }}
        />,
      ),
    )
  const rendered = () => {
    const found = [...renders].filter(([, count]) => count > 0).map(([name]) => name)
    renders.clear()
    return found
  }

  show(rows)
  expect(rendered()).toHaveLength(60)
  expect(place.querySelectorAll('[data-row]')).toHaveLength(60)

  show(rows.with(7, { name: 'server-7', phase: 'failed' }))
  expect(rendered()).toEqual(['server-7'])
  expect(place.textContent).toContain('failed')

  show(rows.with(7, { name: 'server-7', phase: 'failed' }).toReversed(), ['server-9'])
  expect(rendered().sort()).toEqual(['server-7', 'server-9'])
  act(() => root.unmount())
})

test('a long table is printed with all its rows, up to a bound that it tells', () => {
  const place = document.createElement('div')
  const root = createRoot(place)
  const show = (count: number) => {
    const rows = Array.from({ length: count }, (_, at): Row => ({ name: `server-${at}`, phase: 'ready' }))
    act(() => root.render(<Table label="Servers" rows={rows} columns={COLUMNS} rowKey={(row) => row.name} />))
  }
  const printed = () => place.querySelectorAll('[data-row]').length

  show(107)
  expect(printed()).toBeLessThan(107)
  act(() => void window.dispatchEvent(new Event('beforeprint')))
  expect(printed()).toBe(107)
  expect(place.textContent).not.toContain('Printed are')

  show(1200)
  expect(printed()).toBe(1000)
  expect(place.textContent).toMatch(/Printed are the first 1.?000 of 1.?200 rows/)
  act(() => void window.dispatchEvent(new Event('afterprint')))
  expect(printed()).toBeLessThan(1000)
  act(() => root.unmount())
})
