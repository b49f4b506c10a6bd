import { Tabs as Base } from '@base-ui/react/tabs'
import type { ReactNode } from 'react'
import { LIST, TAB } from './tab-class'

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
