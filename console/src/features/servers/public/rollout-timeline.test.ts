import { expect, test } from 'vitest'
import type { Rollout, RolloutState } from '@/api/generated/types'
import { rolloutSteps } from './rollout-timeline'

function kinds(state: RolloutState, ...messages: string[]): string[] {
  const log = messages.map((message) => ({ at: '2026-11-29T16:00:00Z', message }))
  return rolloutSteps({ state, log } as unknown as Rollout).map(({ kind }) => kind) // as: only what is looked at
}

test('an attempt that failed is shown as failed, although the rollout goes on and ends well', () => {
  for (const failed of [
    'it ended by itself with exit code 1: Error: Cannot find module',
    'it ended by itself and was started again; stderr: boom',
    'it did not answer in time',
    'run `npm`: No such file or directory (os error 2)',
    'the registry fell silent',
    'crash loop',
    'ended by signal 9 (KILL)',
    'connect to `https://mcp.example.test/`: connection refused',
    'it answered with status 502',
    'the server wrote to standard output, but no MCP message; its first line was `Available transports:`',
    'the server closed its output before it answered',
    'the server answered `initialize`, but its version is none that is spoken here',
  ])
    expect(kinds('done', 'begun', failed, 'revision 2 serves')).toEqual(['done', 'bad', 'done'])
})

test('what was followed by another attempt is shown as failed, whatever its words are', () => {
  expect(
    kinds(
      'done',
      'begun',
      'placed on toolbox `a`',
      'awaiting probe',
      'words of a server',
      'awaiting probe',
      'revision 2 serves',
    ),
  ).toEqual(['done', 'done', 'done', 'bad', 'done', 'done'])
  expect(
    kinds(
      'done',
      'begun',
      'placed on toolbox `a`',
      'placed on toolbox `b`',
      'placed on toolbox `a`',
      'revision 2 serves',
    ),
  ).toEqual(['done', 'done', 'done', 'done', 'done'])
})

test('what went well is not shown as failed because of the names in it', () => {
  expect(
    kinds(
      'progressing',
      'toolbox `error-denied` determines the exact versions',
      'placed on toolbox `failed`',
      'prepared; what ran on toolbox `not-found` is given up with it',
      'revision 2 takes 10 % of the calls and every call of 1 client',
      'promoted: it was tried for long enough',
      'revision 2 serves and is observed until 2026-11-29T16:25:43.114Z',
    ),
  ).toEqual(['done', 'done', 'done', 'done', 'done', 'working'])
})

test('the last step of a rollout that ended tells how it ended', () => {
  expect(kinds('failed', 'begun', 'it did not answer in time')).toEqual(['done', 'bad'])
  expect(kinds('rolled_back', 'begun', 'it did not answer in time')).toEqual(['done', 'warn'])
  expect(kinds('progressing', 'begun', 'it did not answer in time')).toEqual(['done', 'bad'])
})
