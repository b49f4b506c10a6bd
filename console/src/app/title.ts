/** The browser's title of a page; route files use it: `head: () => pageTitle(t('Servers'))`. */
export function pageTitle(title: string): { meta: Array<{ title: string }> } {
  return { meta: [{ title: `${title} · Toolyard` }] }
}
