import { t } from '@/lib/t'

/** A key or a value, as the server takes them. */
const LABEL = /^[A-Za-z0-9._/-]{0,63}$/
const MOST = 20

/** One label as typed. */
interface Pair {
  /** The whole of it. */
  text: string
  /** What is before the first `=`; `undefined` without one. */
  key: string | undefined
  value: string
}

/** The `key=value` pairs of a text, in their order; what is empty is left out. */
export function pairsOf(text: string, separator: string | RegExp): Pair[] {
  return text
    .split(separator)
    .map((piece) => piece.trim())
    .filter((piece) => piece !== '')
    .map((piece) => {
      const at = piece.indexOf('=')
      return at < 0
        ? { text: piece, key: undefined, value: '' }
        : { text: piece, key: piece.slice(0, at).trim(), value: piece.slice(at + 1).trim() }
    })
}

/** Labels as typed: `zone=a, gpu=yes`. Throws nothing; what cannot be read is the problem. */
export function readLabels(text: string): { labels: Record<string, string> } | { problem: string } {
  const labels: Record<string, string> = {}
  for (const { key, value } of pairsOf(text, /[,\n]/)) {
    if (key === undefined) return { problem: t('Written as zone=a, gpu=yes') }
    if (key === '' || !LABEL.test(key) || !LABEL.test(value))
      return { problem: t('Only letters, digits, ., _, / and - in labels, at most 63 each') }
    if (key in labels) return { problem: t('{key} is there twice', { key }) }
    labels[key] = value
  }
  if (Object.keys(labels).length > MOST) return { problem: t('At most {count} labels', { count: MOST }) }
  return { labels }
}
