import type { SettingsValues } from '@/features/servers/public/settings'
import type { PlaceValues } from '@/features/toolboxes/public/place'

/** What the form has: the settings of a server, where it runs, and what only a new one has. */
export interface DeployValues extends SettingsValues, PlaceValues {
  name: string
  package: string
  /** Whether it starts at once. */
  start: boolean
}
