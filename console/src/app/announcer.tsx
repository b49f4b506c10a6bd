import { useRouter } from '@tanstack/react-router'
import { useEffect, useState } from 'react'
import { LiveRegion } from '@/ui/live-region'

/** How long to wait for a page's heading: about five seconds. */
const MOST_FRAMES = 300

/**
 * After navigation to another page: the focus goes to the page's `h1`, and its title is spoken. Changes of search
 * parameters are no navigation: the focus stays where somebody types.
 */
export function RouteAnnouncer() {
  const router = useRouter()
  const [title, setTitle] = useState('')
  useEffect(() => {
    let frame = 0
    const stop = router.subscribe('onRendered', (event) => {
      if (!event.pathChanged || event.fromLocation === undefined) return
      cancelAnimationFrame(frame)
      let frames = 0
      const arrive = () => {
        const heading = document.querySelector<HTMLElement>('main h1')
        // A page that still loads has no heading yet.
        if (heading === null && frames < MOST_FRAMES) {
          frames += 1
          frame = requestAnimationFrame(arrive)
          return
        }
        setTitle(document.title)
        // A page that put the focus into its form keeps it there.
        if (document.activeElement !== null && document.activeElement.closest('main form') !== null) return
        heading?.focus({ preventScroll: true })
      }
      frame = requestAnimationFrame(arrive)
    })
    return () => {
      stop()
      cancelAnimationFrame(frame)
    }
  }, [router])
  return <LiveRegion>{title}</LiveRegion>
}
