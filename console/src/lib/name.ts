import * as v from 'valibot'
import { t } from './t'

/** The longest name of a server, toolset, toolbox or credential. */
export const LONGEST_NAME = 40

/** What is wrong with a name of ours, as the server would say; `undefined` when nothing is. */
export function nameProblem(name: string): string | undefined {
  if (name === '') return t('Give it a name')
  if (name.length > LONGEST_NAME) return t('At most {count} characters', { count: LONGEST_NAME })
  if (/[A-Z]/.test(name)) return t('Only small letters')
  if (!/^[a-z0-9-]+$/.test(name)) return t('Only a to z, 0 to 9 and -')
  if (name.startsWith('-') || name.endsWith('-')) return t('It begins and ends with a letter or digit')
  if (name.includes('--')) return t('Not two - in a row')
  return undefined
}

/** The name of a server, toolset, toolbox or credential, for forms. */
export const nameSchema = v.pipe(
  v.string(),
  v.trim(),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return
    const message = nameProblem(dataset.value)
    if (message !== undefined) addIssue({ message })
  }),
)
