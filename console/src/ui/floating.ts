import { createContext, useContext } from 'react'

/** Whether this is inside a dialog, which is a landmark of its own. */
export const InsideDialog = createContext(false)

/**
 * Where menus, popovers and tooltips are put: into the page's `main`, so that they belong to a landmark; inside a
 * dialog, where Base UI puts them by itself.
 */
export function useFloatingContainer(): HTMLElement | undefined {
  const inside = useContext(InsideDialog)
  return inside ? undefined : (document.querySelector('main') ?? undefined)
}
