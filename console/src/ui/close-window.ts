import { createContext } from 'react'

/** Closes the window around it as Escape does: it asks first where something would be lost. */
export const CloseWindow = createContext<() => void>(() => undefined)
