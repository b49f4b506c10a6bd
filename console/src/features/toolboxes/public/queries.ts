import { getToolbox, listToolboxes } from '@/api/generated/toolboxes'
import { q } from '@/api/queries'

/** Every toolbox, by name. */
export const toolboxesQuery = q(listToolboxes, {})

/** One toolbox. */
export function toolboxQuery(name: string) {
  return q(getToolbox, { path: { name } })
}
