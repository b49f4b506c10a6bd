/**
 * Finding elements by role, name, label and text inside a page, for drivers that cannot do it themselves. Follows
 * the rules of accessible names as far as the console's markup needs them; axe checks the names themselves.
 */
export type Wanted = string | { source: string; flags: string }
export type Step =
  | { by: 'role'; role: string; name?: Wanted }
  | { by: 'label'; text: Wanted }
  | { by: 'text'; text: Wanted }
  | { by: 'css'; selector: string }
  | { by: 'containing'; text: Wanted }
  | { by: 'nth'; index: number }

/** Runs in the page, so it may refer to nothing outside itself. */
export function findInPage(steps: Step[]): Element[] {
  const NATIVE: Record<string, string> = {
    alert: '',
    article: 'article',
    banner: 'header',
    button: 'button,input[type=submit],input[type=button],summary',
    cell: 'td',
    checkbox: 'input[type=checkbox]',
    columnheader: 'th',
    combobox: 'select:not([multiple])',
    dialog: 'dialog[open]',
    form: 'form',
    group: 'fieldset',
    heading: 'h1,h2,h3,h4,h5,h6',
    img: 'img',
    link: 'a[href]',
    list: 'ul,ol',
    listitem: 'li',
    main: 'main',
    meter: 'meter',
    navigation: 'nav',
    option: 'option',
    progressbar: 'progress',
    radio: 'input[type=radio]',
    region: 'section[aria-label],section[aria-labelledby]',
    row: 'tr',
    rowheader: 'th[scope=row]',
    searchbox: 'input[type=search]',
    spinbutton: 'input[type=number]',
    status: 'output',
    table: 'table',
    textbox:
      'textarea,input:not([type]),input[type=text],input[type=email],input[type=url],input[type=password],input[type=tel]',
  }
  const squeeze = (text: string) => text.replace(/\s+/g, ' ').trim()
  const matches = (text: string, wanted: Wanted) =>
    typeof wanted === 'string'
      ? squeeze(text).toLowerCase().includes(squeeze(wanted).toLowerCase())
      : new RegExp(wanted.source, wanted.flags).test(squeeze(text))
  const hidden = (element: Element): boolean =>
    element.closest('[aria-hidden=true],[inert]') !== null ||
    !element.checkVisibility({ visibilityProperty: true })
  const content = (node: Node): string => {
    if (node.nodeType === Node.TEXT_NODE) return node.textContent ?? ''
    if (!(node instanceof Element) || node.getAttribute('aria-hidden') === 'true') return ''
    const label = node.getAttribute('aria-label') ?? node.getAttribute('alt')
    if (label) return label
    const inline = getComputedStyle(node).display.startsWith('inline')
    const text = [...node.childNodes].map(content).join('')
    return inline ? text : ` ${text} `
  }
  const name = (element: Element): string => {
    const by = element.getAttribute('aria-labelledby')
    if (by !== null) {
      const texts = by.split(/\s+/).map((id) => document.getElementById(id))
      return texts.map((found) => (found === null ? '' : content(found))).join(' ')
    }
    const label = element.getAttribute('aria-label')
    if (label) return label
    if ('labels' in element && element.labels instanceof NodeList && element.labels.length > 0) {
      return [...element.labels].map(content).join(' ')
    }
    if (element instanceof HTMLFieldSetElement) return element.querySelector('legend')?.textContent ?? ''
    if (element instanceof HTMLTableElement && element.caption !== null)
      return element.caption.textContent ?? ''
    if (/^(?:INPUT|TEXTAREA|SELECT|MAIN|NAV|TABLE|DIALOG|FORM)$/.test(element.tagName)) {
      return element.getAttribute('placeholder') ?? element.getAttribute('title') ?? ''
    }
    const text = content(element)
    return squeeze(text) === '' ? (element.getAttribute('title') ?? '') : text
  }
  const below = (roots: ParentNode[], selector: string): Element[] => {
    const found = new Set(roots.flatMap((root) => [...root.querySelectorAll(selector)]))
    return [...found].sort((a, b) =>
      a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1,
    )
  }
  let found: ParentNode[] = [document]
  for (const step of steps) {
    switch (step.by) {
      case 'role': {
        const native = NATIVE[step.role] ?? ''
        const selector = [
          `[role=${step.role}]`,
          ...(native === '' ? [] : native.split(',').map((it) => `${it}:not([role])`)),
        ]
        const wanted = step.name
        found = below(found, selector.join(',')).filter(
          (element) => !hidden(element) && (wanted === undefined || matches(name(element), wanted)),
        )
        break
      }
      case 'label':
        found = below(found, 'input,textarea,select,button,[role],[aria-label],[aria-labelledby]').filter(
          (element) =>
            (element.hasAttribute('aria-label') ||
              element.hasAttribute('aria-labelledby') ||
              ('labels' in element && element.labels instanceof NodeList && element.labels.length > 0)) &&
            !hidden(element) &&
            matches(name(element), step.text),
        )
        break
      case 'text':
        found = below(found, '*').filter(
          (element) =>
            !/^(?:SCRIPT|STYLE|NOSCRIPT|HEAD|TITLE)$/.test(element.tagName) &&
            matches(element.textContent ?? '', step.text) &&
            ![...element.children].some((child) => matches(child.textContent ?? '', step.text)) &&
            !hidden(element),
        )
        break
      case 'css':
        found = below(found, step.selector)
        break
      case 'containing':
        found = found.filter((element) => matches(element.textContent ?? '', step.text))
        break
      case 'nth': {
        const one = found[step.index]
        found = one === undefined ? [] : [one]
        break
      }
    }
  }
  return found.filter((element) => element instanceof Element)
}
