// @vitest-environment happy-dom
import { expect, test } from 'vitest'
import { focusInstead } from './focus-after'

const settled = () =>
  new Promise<void>((done) => {
    let frames = 0
    const next = () => {
      frames += 1
      if (frames > 8) done()
      else requestAnimationFrame(next)
    }
    requestAnimationFrame(next)
  })

test('the focus goes on where there is something when what had it is gone, and else stays', async () => {
  document.body.innerHTML =
    '<main><h1 tabindex="-1">Page</h1></main><button id="save">Save</button><button id="stays">Other</button>'
  const save = document.querySelector<HTMLElement>('#save')
  save?.focus()
  focusInstead(() => save?.remove())
  await settled()
  expect(document.activeElement?.tagName).toBe('H1')

  document.querySelector<HTMLElement>('#stays')?.focus()
  focusInstead(() => undefined)
  await settled()
  expect(document.activeElement?.id).toBe('stays')
})
