/** How tabs look: apart from `Tabs`, so that pages whose tabs are links do without its code. */

export const TAB =
  'relative -mb-px inline-flex min-h-control items-center gap-1.5 border-b-2 border-transparent px-0.5 whitespace-nowrap text-muted hover:text-text'
export const LIST = 'flex gap-5 overflow-x-auto overflow-y-hidden border-b'

/** The classes of tabs that are links to child routes: `<nav className={tabListClass}>` with `<PlainLink className={tabClass}>`. */
export const tabListClass = LIST
/** One of them; it looks chosen with `aria-current="page"`, which the router's links set. */
export const tabClass = `${TAB} aria-[current=page]:border-accent aria-[current=page]:font-medium aria-[current=page]:text-text`
