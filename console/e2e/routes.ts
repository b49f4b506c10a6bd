/**
 * Every page of the console, for the tests that look at all of them. `tests/pages.spec.ts` fails when a route file
 * has no line here.
 */
export interface Route {
  /** The page's name in reports. */
  name: string
  /** The route file's path, as the router names it. */
  route: string
  /** A path that shows it, on a Toolyard made by `arrange`. */
  path: string
  /** Whether it is for administrators only. */
  administration?: true
  /** Whether it is shown to people who have not signed in. */
  open?: true
}

export const ROUTES: Route[] = [
  { name: 'Sign in', route: '/sign-in', path: '/sign-in', open: true },
  { name: 'Overview', route: '/', path: '/' },
]
