import { SignIn } from '../pages/sign-in.ts'
import { expect, test } from '../support/test.ts'
import { ADMIN } from '../support/toolyard.ts'

test('a person signs in with e-mail address and password and sees the overview', { tag: '@main' }, async ({
  visitor,
}) => {
  const signIn = new SignIn(visitor)
  await visitor.goto('/')
  await expect.poll(() => visitor.path()).toMatch(/^\/sign-in/)
  await signIn.as(ADMIN.email, ADMIN.password)
  await expect.poll(() => visitor.path()).toBe('/')
  await visitor.byRole('main').byRole('heading', /./).first().waitFor()
})
