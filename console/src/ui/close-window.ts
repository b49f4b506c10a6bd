import { createContext } from 'react'
import { t } from '@/lib/t'

/** How the window around it is closed. */
export interface Closing {
  /** As Escape does: it asks first where something would be lost. With `givenUp` what was typed goes without a question. */
  close: (givenUp?: boolean) => void
  /** What it was opened for is being sent: it closes when that was answered. */
  sending: boolean
}

export const CloseWindow = createContext<Closing>({ close: () => undefined, sending: false })

/** Why a window is not closed now. */
export const sendingText = () => t('It is being sent')
