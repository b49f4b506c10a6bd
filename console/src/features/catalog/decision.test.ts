import { expect, test } from 'vitest'
import { decisionMeanwhile } from './decision'

test('what somebody else decided meanwhile is said with its reason, and nothing while it waits', () => {
  expect(decisionMeanwhile({ review: 'submitted' })).toBeUndefined()
  expect(decisionMeanwhile(undefined)).toBeUndefined()
  expect(decisionMeanwhile({ review: 'rejected', review_reason: 'no source' })).toBe(
    'Somebody else rejected it meanwhile: no source',
  )
  expect(decisionMeanwhile({ review: 'approved' })).toContain('approved it meanwhile')
  expect(decisionMeanwhile(undefined, true)).toContain('withdrawn')
})
