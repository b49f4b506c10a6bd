import { Fragment } from 'react'
import { plainText } from '@/lib/text'

/** What the server says, with what it puts in backticks set as code. Everything else in it is plain text. */
export function TickedText({ text, limit = 2000 }: { text: string | null | undefined; limit?: number }) {
  return plainText(text, limit)
    .split(/`([^`\n]{1,200})`/)
    .map((part, place) => {
      const key = `${place}${part}`
      // Odd places are what stood between backticks.
      return place % 2 === 0 ? (
        <Fragment key={key}>{part}</Fragment>
      ) : (
        <code key={key} className="id">
          {part}
        </code>
      )
    })
}
