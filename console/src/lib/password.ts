import * as v from 'valibot'
import { t } from './t'

const SHORTEST = 12
const LONGEST = 128

/** A password as the server takes it. */
export const passwordSchema = v.pipe(
  v.string(),
  v.check(
    (password) => [...password].length >= SHORTEST && [...password].length <= LONGEST,
    t('{shortest} to {longest} characters', { shortest: SHORTEST, longest: LONGEST }),
  ),
)
