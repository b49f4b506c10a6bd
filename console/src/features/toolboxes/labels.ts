import { t } from '@/lib/t'

/** A key or a value, as the server takes them. */
const LABEL = /^[A-Za-z0-9._/-]{0,63}$/
const MOST = 20

/** Labels as typed: `zone=a, gpu=yes`. Throws nothing; what cannot be read is the problem. */
export function readLabels(text: string): { labels: Record<string, string> } | { problem: string } {
  const labels: Record<string, string> = {}
  for (const piece of text.split(/[,\n]/)) {
    const one = piece.trim()
    if (one === '') continue
    const at = one.indexOf('=')
    const key = (at < 0 ? one : one.slice(0, at)).trim()
    const value = at < 0 ? '' : one.slice(at + 1).trim()
    if (at < 0) return { problem: t('Written as zone=a, gpu=yes') }
    if (key === '' || !LABEL.test(key) || !LABEL.test(value))
      return { problem: t('Only letters, digits, ., _, / and - in labels, at most 63 each') }
    if (key in labels) return { problem: t('{key} is there twice', { key }) }
    labels[key] = value
  }
  if (Object.keys(labels).length > MOST) return { problem: t('At most {count} labels', { count: MOST }) }
  return { labels }
}
