import { Tabs as Base } from '@base-ui/react/tabs'
import type { ReactNode } from 'react'

const TAB =
  'relative -mb-px inline-flex min-h-control items-center gap-1.5 border-b-2 border-transparent px-0.5 whitespace-nowrap text-muted hover:text-text'
const LIST = 'flex gap-5 overflow-x-auto overflow-y-hidden border-b'

/** The classes of tabs that are links to child routes: `<nav className={tabListClass}>` with `<PlainLink className={tabClass} activeProps={{ 'data-active': true }}>`. */
export const tabListClass = LIST
/** One of them; it looks chosen with `aria-current="page"`, which the router's links set. */
export const tabClass = `${TAB} aria-[current=page]:border-accent aria-[current=page]:font-medium aria-[current=page]:text-text`

/** Views of one thing that are no pages of their own. Where a view should be linkable, use child routes. */
export function Tabs<Value extends string>({
  label,
  value,
  onValueChange,
  tabs,
}: {
  label: string
  value: Value
  onValueChange: (value: Value) => void
  tabs: ReadonlyArray<{ value: Value; label: ReactNode; content: ReactNode }>
}) {
  return (
    <Base.Root
      value={value}
      onValueChange={(next: unknown) => {
        const chosen = tabs.find((tab) => tab.value === next)
        if (chosen !== undefined) onValueChange(chosen.value)
      }}
    >
      <Base.List aria-label={label} className={LIST}>
        {tabs.map((tab) => (
          <Base.Tab
            key={tab.value}
            value={tab.value}
            className={`${TAB} data-[active]:border-accent data-[active]:font-medium data-[active]:text-text`}
          >
            {tab.label}
          </Base.Tab>
        ))}
      </Base.List>
      {tabs.map((tab) => (
        <Base.Panel key={tab.value} value={tab.value} className="pt-4 outline-offset-4">
          {tab.content}
        </Base.Panel>
      ))}
    </Base.Root>
  )
}
