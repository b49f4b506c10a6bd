import { expect, test } from 'vitest'
import { changeBody, changeIssues, USUAL_CHANGE } from './change'

test('a usual change asks for nothing', () => {
  expect(changeIssues(USUAL_CHANGE)).toEqual([])
  expect(changeBody(USUAL_CHANGE)).toEqual({})
})

test('a canary takes a share of the calls, or those of clients alone', () => {
  const canary = { ...USUAL_CHANGE, canary: true }
  expect(changeBody({ ...canary, promoteAfter: '60', acceptLost: true })).toEqual({
    accept_lost_tools: true,
    canary: { weight: 10, clients: [], promote_after_seconds: 60 },
  })
  expect(changeIssues({ ...canary, weight: '0' }).map((issue) => issue.path)).toEqual([['weight']])
  expect(changeIssues({ ...canary, weight: '0', clients: 'ci\n' })).toEqual([])
  expect(changeBody({ ...canary, weight: '0', clients: ' ci \n\n' })).toEqual({
    canary: { weight: 0, clients: ['ci'] },
  })
})
