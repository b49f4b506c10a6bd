/** The API's texts with the key in place of its placeholder. */
import type { ConnectLink } from '@/api/generated/types'

/** Programs that a link may open. */
const SCHEMES = ['cursor://', 'vscode:', 'vscode-insiders:']

/** A text with the key in place of the placeholder. A key is letters, digits and `_`: it needs no quoting. */
export function filled(text: string, placeholder: string, key: string): string {
  return /^\w+$/.test(key) ? text.replaceAll(placeholder, key) : text
}

/** The link that opens a client with the key in it; `undefined` when it is none that this console would open. */
export function clientLink(link: ConnectLink, placeholder: string, key: string): string | undefined {
  if (!SCHEMES.some((scheme) => link.prefix.startsWith(scheme))) return undefined
  const payload = filled(link.payload, placeholder, key)
  if (link.encoding === 'percent') return `${link.prefix}${encodeURIComponent(payload)}`
  if (link.encoding !== 'base64') return undefined
  const bytes = new TextEncoder().encode(payload)
  return `${link.prefix}${encodeURIComponent(btoa(String.fromCharCode(...bytes)))}`
}
