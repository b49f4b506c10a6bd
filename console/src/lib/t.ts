/**
 * Every text that people read goes through {@link t} or {@link plural}. A message is known by its English text, so a
 * missing translation reads as English. A translation registers its messages with {@link setMessages} before the
 * first render; nothing is switched while the page is shown.
 */
type Values = Record<string, string | number>

let messages: Readonly<Record<string, string>> = {}
let language = 'en'

/** Uses another language's messages. Plural forms are `text|form`, such as `{count} servers|few`. */
export function setMessages(locale: string, table: Readonly<Record<string, string>>): void {
  language = locale
  messages = table
}

/** A text in the reader's language; `{name}` takes the value of that name. */
export function t(text: string, values?: Values): string {
  return fill(messages[text] ?? text, values)
}

/** A text that depends on a number: `plural(3, '{count} server', '{count} servers')`. */
export function plural(count: number, one: string, other: string, values?: Values): string {
  const form = new Intl.PluralRules(language).select(count)
  const text = messages[`${other}|${form}`] ?? (form === 'one' ? one : other)
  return fill(text, { count: count.toLocaleString(locale()), ...values })
}

/** The locale of numbers and times: the browser's; English where the browser names none that `Intl` knows, such as `C`. */
export function locale(): string {
  known ??= knownLocale()
  return known
}

let known: string | undefined

function knownLocale(): string {
  try {
    return Intl.getCanonicalLocales(navigator.language)[0] ?? 'en'
  } catch {
    return 'en'
  }
}

function fill(text: string, values: Values | undefined): string {
  if (values === undefined) return text
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name]
    return value === undefined ? whole : String(value)
  })
}
