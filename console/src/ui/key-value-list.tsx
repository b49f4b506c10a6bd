import type { ReactNode } from 'react'

/** Facts about a thing, name and value. A value of `undefined` leaves its line out. */
export function KeyValueList({ items }: { items: ReadonlyArray<readonly [name: string, value: ReactNode]> }) {
  return (
    // On a phone long names break, so that the values have most of the room.
    <dl className="grid gap-x-5 gap-y-2 max-sm:grid-cols-[fit-content(38%)_minmax(0,1fr)] sm:grid-cols-[minmax(6rem,auto)_minmax(0,1fr)]">
      {items
        .filter(([, value]) => value !== undefined && value !== null)
        .map(([name, value]) => (
          <div key={name} className="contents">
            <dt className="break-words text-muted">{name}</dt>
            <dd className="min-w-0 wrap-anywhere">{value}</dd>
          </div>
        ))}
    </dl>
  )
}
