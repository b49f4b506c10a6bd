import { useVirtualizer } from '@tanstack/react-virtual'
import { type ReactNode, useLayoutEffect, useRef } from 'react'
import { cx } from '@/lib/cx'
import { formatNumber } from '@/lib/format'
import { t } from '@/lib/t'
import { MOST_PRINTED, usePrinting } from './use-printing'

/**
 * A long list in a box that scrolls by itself, such as a log: only lines near the view are in the page, and lines may
 * differ in height. With `follow` it stays at its end while lines are added; `onFollowChange` tells when somebody
 * scrolls away from the end, or back to it.
 */
export function VirtualList<Item>({
  items,
  itemKey,
  children,
  label,
  follow = false,
  onFollowChange,
  estimate = 20,
  className,
}: {
  items: readonly Item[]
  itemKey: (item: Item) => string | number
  children: (item: Item) => ReactNode
  label: string
  follow?: boolean
  onFollowChange?: (follow: boolean) => void
  /** A line's usual height, in pixels. */
  estimate?: number
  /** Must give it a height. */
  className?: string
}) {
  const box = useRef<HTMLDivElement>(null)
  const printing = usePrinting()
  const virtualizer = useVirtualizer({
    count: items.length,
    getScrollElement: () => box.current,
    estimateSize: () => estimate,
    getItemKey: (index) => {
      const item = items[index]
      return item === undefined ? index : itemKey(item)
    },
    overscan: 16,
  })
  const newest = items.at(-1)
  const end = newest === undefined ? undefined : itemKey(newest)
  // biome-ignore lint/correctness/useExhaustiveDependencies: `end` and `printing` are what makes it go to the end again.
  useLayoutEffect(() => {
    if (follow && items.length > 0) virtualizer.scrollToIndex(items.length - 1, { align: 'end' })
  }, [follow, end, virtualizer, printing])
  const scrolled = () => {
    const element = box.current
    if (element === null || onFollowChange === undefined) return
    const atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < estimate * 2
    if (atEnd !== follow) onFollowChange(atEnd)
  }
  if (printing) {
    const printed = items.slice(-MOST_PRINTED)
    return (
      <div className={cx(className, 'h-auto! max-h-none!')}>
        {printed.length < items.length && (
          <p className="px-3 py-2">
            {t('Printed are the last {shown} of {all} lines.', {
              shown: formatNumber(printed.length),
              all: formatNumber(items.length),
            })}
          </p>
        )}
        {printed.map((item) => (
          <div key={itemKey(item)}>{children(item)}</div>
        ))}
      </div>
    )
  }
  return (
    <div
      ref={box}
      role="log"
      aria-label={label}
      aria-live="off"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
      tabIndex={0}
      onScroll={scrolled}
      className={cx('overflow-auto [overflow-anchor:none]', className)}
    >
      <div className="relative" style={{ height: virtualizer.getTotalSize() }}>
        {virtualizer.getVirtualItems().map(({ index, start, key }) => {
          const item = items[index]
          if (item === undefined) return null
          return (
            <div
              key={key}
              ref={virtualizer.measureElement}
              data-index={index}
              className="absolute top-0 left-0 w-full"
              style={{ transform: `translateY(${start}px)` }}
            >
              {children(item)}
            </div>
          )
        })}
      </div>
    </div>
  )
}
