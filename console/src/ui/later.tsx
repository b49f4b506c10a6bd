import { type ComponentType, type ReactNode, useEffect, useReducer, useRef } from 'react'
import { t } from '@/lib/t'
import { errorFacts } from './error-state'
import { toast } from './toast'

/**
 * A component whose code comes when it is first wanted, or `loadAhead` was called. Unlike React's `lazy` it tries again
 * the next time when the code did not come, and takes nothing else of the page away: a note says so, and `onFailed`
 * closes what was to open.
 */
export function later<Props extends object>(
  load: () => Promise<ComponentType<Props>>,
  onFailed: (props: Props) => void,
  /** What stands there until it is there. */
  fallback: ReactNode = null,
): ComponentType<Props> & { loadAhead: () => Promise<void> } {
  let Loaded: ComponentType<Props> | undefined
  const loadAhead = async () => {
    Loaded ??= await load()
  }
  // biome-ignore lint/correctness/noComponentHookFactories: a module makes it once, as with React's `lazy`.
  function Later(props: Props) {
    const [, show] = useReducer((count: number) => count + 1, 0)
    const latest = useRef(props)
    useEffect(() => {
      latest.current = props
    })
    const wanted = !('open' in props) || props.open === true
    useEffect(() => {
      if (!wanted || Loaded !== undefined) return
      let gone = false
      loadAhead().then(
        () => !gone && show(),
        (error: unknown) => {
          if (gone) return
          const { title, detail } = errorFacts(error)
          toast.failed({ title: t('It could not be opened'), description: `${title}: ${detail}` })
          onFailed(latest.current)
        },
      )
      return () => {
        gone = true
      }
    }, [wanted])
    if (Loaded === undefined) return wanted ? fallback : null
    return <Loaded {...props} />
  }
  return Object.assign(Later, { loadAhead })
}
