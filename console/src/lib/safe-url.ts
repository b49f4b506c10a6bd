const SCHEMES = new Set(['http:', 'https:', 'mailto:'])

/**
 * The address, if it may be a link: only `http`, `https` and `mailto`. Anything else (`javascript:`, `data:`,
 * relative, garbage) is `undefined`, and is shown as text.
 */
export function safeUrl(text: string | null | undefined): string | undefined {
  if (text === null || text === undefined || text.length > 2048) return undefined
  try {
    const url = new URL(text.trim())
    if (!SCHEMES.has(url.protocol)) return undefined
    // A name in front of the host makes `https://bank.example@evil.example` read like the bank.
    if (url.username !== '' || url.password !== '') return undefined
    return url.href
  } catch {
    return undefined
  }
}

/** A path of this console that sign-in may return to; `/` for anything that could lead elsewhere. */
export function safeReturnPath(text: string | null | undefined): string {
  if (text === null || text === undefined || text.length > 2048) return '/'
  // A backslash is a slash to browsers, and control characters vanish from addresses.
  const plain = /^\/(?![/\\])[^\\]*$/.test(text) && ![...text].some((one) => one < ' ')
  return plain && !text.startsWith('/sign-in') ? text : '/'
}
