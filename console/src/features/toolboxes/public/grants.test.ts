import { expect, test } from 'vitest'
import type { Toolbox } from '@/api/generated/types'
import { grantableOn, grantablePaths, isGrantable } from './grants'

function toolbox(name: string, detail: string | undefined): Toolbox {
  const enforcement = detail === undefined ? {} : { path_grants: { enforced: true, detail } }
  // as: only what is looked at.
  return { name, state: 'online', report: { enforcement } } as unknown as Toolbox
}

test('a toolbox says which paths it grants', () => {
  expect(grantablePaths(toolbox('a', 'only `/root/*`, `/srv/data` (`grantable_paths`)'))).toEqual([
    '/root/*',
    '/srv/data',
  ])
  expect(grantablePaths(toolbox('a', 'no path of this host is granted'))).toEqual([])
})

test('what a toolbox says as data counts, whatever its text says', () => {
  const { report, ...rest } = toolbox('a', 'no path of this host is granted')
  const told = { ...rest, report: { ...report, grantable_paths: ['/srv/way', '/mnt/a'] } }
  expect(grantablePaths(told)).toEqual(['/srv/way', '/mnt/a'])
  expect(grantableOn([told], undefined)).toEqual(['/srv/way', '/mnt/a'])
})

test('a toolbox that says nothing, or something else, is left to decide itself', () => {
  expect(grantablePaths(toolbox('a', undefined))).toBeUndefined()
  expect(grantablePaths(toolbox('a', 'what it is asked'))).toBeUndefined()
  expect(
    grantableOn([toolbox('a', 'only `/srv` (`grantable_paths`)'), toolbox('b', undefined)], undefined),
  ).toBeUndefined()
})

test.each([
  ['/srv/data', ['/srv'], true],
  ['/srv', ['/srv'], true],
  ['/srvdata', ['/srv'], false],
  ['//srv//./data/', ['/srv/'], true],
  ['srv/data', ['/srv'], false],
  ['//etc//hosts', ['/etc'], false],
  ['/home/me', ['/home/me/*'], false],
  ['/home/me/files', ['/home/me/*'], true],
  ['/home/me/.ssh', ['/home/me/*'], false],
  ['/home/me/../you', ['/home/me/*'], false],
  ['/etc', ['/'], false],
  ['/etc/hosts', ['/etc'], false],
  ['/srv', [], false],
])('%s with %j: %s', (path, listed, expected) => {
  expect(isGrantable(path, listed)).toBe(expected)
})

test('only the chosen toolbox counts; without one, any that may take it', () => {
  const both = [
    toolbox('a', 'only `/srv` (`grantable_paths`)'),
    toolbox('b', 'only `/data` (`grantable_paths`)'),
  ]
  expect(grantableOn(both, 'b')).toEqual(['/data'])
  expect(grantableOn(both, undefined)).toEqual(['/srv', '/data'])
})
