import { expect, test } from 'vitest'
import { nameProblem } from './name'

test('takes the names that the server takes', () => {
  for (const name of ['a', '0', 'everything', 'a-b-c', 'x'.repeat(40)])
    expect(nameProblem(name)).toBeUndefined()
})

test('says what is wrong with a name', () => {
  for (const name of ['', 'A', 'a_b', 'a--b', '-a', 'a-', 'ä', 'a b', 'x'.repeat(41)])
    expect(nameProblem(name), name).toBeDefined()
})
