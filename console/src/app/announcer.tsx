import { useRouter } from '@tanstack/react-router'
import { useEffect, useState } from 'react'
import { LiveRegion } from '@/ui/live-region'

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
      frame = requestAnimationFrame(() => {
        setTitle(document.title)
        // A page that put the focus into its form keeps it there.
        if (document.activeElement !== null && document.activeElement.closest('main form') !== null) return
        document.querySelector<HTMLElement>('main h1')?.focus({ preventScroll: true })
      })
    })
    return () => {
      stop()
      cancelAnimationFrame(frame)
    }
  }, [router])
  return <LiveRegion>{title}</LiveRegion>
}
