import { useEffect, useState } from 'react'
import { flushSync } from 'react-dom'

/** The most rows or lines of a long list that are printed. */
export const MOST_PRINTED = 1000

/** Whether the page is being printed: a long list has only what is near the screen otherwise. */
export function usePrinting(): boolean {
  const [printing, setPrinting] = useState(false)
  useEffect(() => {
    // The browser takes the page as it is when the event is over.
    const begin = () => flushSync(() => setPrinting(true))
    const end = () => setPrinting(false)
    window.addEventListener('beforeprint', begin)
    window.addEventListener('afterprint', end)
    return () => {
      window.removeEventListener('beforeprint', begin)
      window.removeEventListener('afterprint', end)
    }
  }, [])
  return printing
}
