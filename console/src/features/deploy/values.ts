import type { SettingsValues } from '@/features/servers/public/settings'

/** What the form has: the settings of a server, and what only a new one has. */
export interface DeployValues extends SettingsValues {
  name: string
  package: string
  /** `''` lets Toolyard choose, `*` any that has the labels. */
  toolbox: string
  /** One a line, as `name=value`. */
  labels: string
  /** Whether it starts at once. */
  start: boolean
}
