import { Fragment, type ReactNode } from 'react'
import { t } from './t'

/** A text with elements in it: `rich('Run {command} first', { command: <code>make</code> })`. */
export function rich(text: string, values: Record<string, ReactNode>): ReactNode {
  const parts = t(text).split(/\{(\w+)\}/)
  // Odd places are the names between the braces.
  return parts.map((part, place) => {
    const key = `${place}${part}`
    return <Fragment key={key}>{place % 2 === 0 ? part : values[part]}</Fragment>
  })
}
