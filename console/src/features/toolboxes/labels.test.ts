import { expect, test } from 'vitest'
import { readLabels } from './labels'

test('labels are read as they are written', () => {
  expect(readLabels(' zone=a, gpu = yes,\n')).toEqual({ labels: { zone: 'a', gpu: 'yes' } })
  expect(readLabels('')).toEqual({ labels: {} })
  expect(readLabels('zone=')).toEqual({ labels: { zone: '' } })
})

test('what is no label is a problem', () => {
  expect(readLabels('zone')).toHaveProperty('problem')
  expect(readLabels('=a')).toHaveProperty('problem')
  expect(readLabels('image=a=b')).toHaveProperty('problem')
  expect(readLabels('zone=ä')).toHaveProperty('problem')
  expect(readLabels('zone=a,zone=b')).toHaveProperty('problem')
})
