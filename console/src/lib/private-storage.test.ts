import { beforeEach, describe, expect, test, vi } from 'vitest'
import { privateStorage } from './private-storage'

beforeEach(() => {
  const kept = new Map<string, string>()
  vi.stubGlobal('localStorage', {
    get length() {
      return kept.size
    },
    key: (at: number) => [...kept.keys()][at] ?? null,
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => kept.set(key, value),
    removeItem: (key: string) => kept.delete(key),
  })
  localStorage.setItem('toolyard.theme', 'dark')
})

describe('what is private to a person', () => {
  test('is gone as soon as somebody else reads or writes', () => {
    privateStorage.set('runs', 'ada', 'x')
    expect(privateStorage.get('runs', 'ada')).toBe('x')
    expect(privateStorage.get('runs', 'ada.lovelace')).toBeUndefined()
    expect(privateStorage.get('runs', 'ada')).toBeUndefined()
  })

  test('is gone after sign-out, and preferences stay', () => {
    privateStorage.set('runs', 'ada', 'x')
    privateStorage.clear()
    expect(privateStorage.get('runs', 'ada')).toBeUndefined()
    expect(localStorage.getItem('toolyard.theme')).toBe('dark')
  })

  test('without storage nothing is kept and nothing breaks', () => {
    vi.stubGlobal('localStorage', undefined)
    privateStorage.set('runs', 'ada', 'x')
    expect(privateStorage.get('runs', 'ada')).toBeUndefined()
  })
})
