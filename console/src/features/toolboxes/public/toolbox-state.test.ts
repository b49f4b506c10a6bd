import { expect, test } from 'vitest'
import type { Toolbox } from '@/api/generated/types'
import { toolboxWhy } from './toolbox-state'

const toolbox = (connected: boolean, more: Partial<Toolbox> = {}) =>
  ({ state: 'online', reason: 'answered', message: '', link: { connected }, ...more }) as Toolbox // as: only these are looked at

test('an agent without a connection is not said to answer, also before it counts as unreachable', () => {
  expect(toolboxWhy(toolbox(true))).toBe('its agent answers')
  expect(toolboxWhy(toolbox(false))).toBe('its agent has no connection now')
  expect(toolboxWhy(toolbox(false, { message: 'its engine is busy' }))).toBe('its engine is busy')
})
