import { Tooltip as Base } from '@base-ui/react/tooltip'
import type { ReactElement, ReactNode } from 'react'
import { useFloatingContainer } from './floating'

/** A few words about a control, on hover and focus. The control must have its own name: a tooltip is an addition. */
export function Tooltip({
  text,
  children,
  side = 'top',
  off = false,
}: {
  text: ReactNode
  children: ReactElement<Record<string, unknown>>
  side?: 'top' | 'bottom' | 'left' | 'right'
  /** While what the control opens is open: Escape is for that. */
  off?: boolean
}) {
  return (
    <Base.Root disabled={off}>
      <Base.Trigger render={children} />
      <Base.Portal container={useFloatingContainer()}>
        <Base.Positioner side={side} sideOffset={6} collisionPadding={8} className="z-50">
          <Base.Popup className="floating max-w-72 px-2 py-1 text-sm text-text">{text}</Base.Popup>
        </Base.Positioner>
      </Base.Portal>
    </Base.Root>
  )
}

/** Once around everything: a second tooltip close after the first one shows without delay. */
export function TooltipProvider({ children }: { children: ReactNode }) {
  return <Base.Provider delay={400}>{children}</Base.Provider>
}
