import { describe, expect, test } from 'vitest'
import { LABELLED, moveBody, placeBody, placeOf, placeProblem, REMOVED } from './place'

describe('where a server runs', () => {
  test('is shown as it is set and sent as it is typed', () => {
    const anywhere = placeOf({ toolbox: null, toolbox_labels: {} })
    expect([anywhere, moveBody(anywhere)]).toEqual([{ toolbox: '', labels: '' }, { any_toolbox: true }])
    expect(placeBody(anywhere)).toEqual({})
    const pinned = placeOf({ toolbox: 'edge', toolbox_labels: {} })
    for (const body of [placeBody, moveBody]) expect(body(pinned)).toEqual({ toolbox: 'edge' })
    const labelled = placeOf({ toolbox: null, toolbox_labels: { zone: 'a', note: 'x=y' } })
    expect(labelled).toEqual({ toolbox: LABELLED, labels: 'zone=a\nnote=x=y' })
    for (const body of [placeBody, moveBody])
      expect(body(labelled)).toEqual({ toolbox_labels: { zone: 'a', note: 'x=y' } })
  })

  test('is no place that can be chosen when its toolbox was removed, and any other is another one', () => {
    const at = '2026-11-29T16:00:00Z'
    for (const toolbox of ['edge', null]) {
      const gone = placeOf({ toolbox, toolbox_labels: {}, toolbox_removed_at: at })
      expect(gone).toEqual({ toolbox: REMOVED, labels: '' })
      expect(moveBody(gone)).toEqual({})
      expect(placeOf({ toolbox: null, toolbox_labels: {} })).not.toEqual(gone)
    }
  })

  test('needs labels that are pairs, and only when they matter', () => {
    expect(placeProblem({ toolbox: LABELLED, labels: ' \n' })).toBe('Give at least one label')
    expect(placeProblem({ toolbox: LABELLED, labels: 'zone' })).toContain('is not name=value')
    expect(placeProblem({ toolbox: LABELLED, labels: 'zone=a\n = b\ngpu' })).toBe('= b is not name=value')
    expect(placeProblem({ toolbox: LABELLED, labels: 'zone=a' })).toBeUndefined()
    expect(placeProblem({ toolbox: 'edge', labels: 'zone' })).toBeUndefined()
  })
})
