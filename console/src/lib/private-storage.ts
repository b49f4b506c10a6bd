/**
 * What this browser remembers for the person who is signed in, such as what they ran. Another person's is taken away
 * as soon as anything is read or written, and everything at sign-out.
 */
const PREFIX = 'toolyard.private.'

export const privateStorage = {
  /** What this person stored under a name. */
  get(name: string, person: string): string | undefined {
    return attempt(() => {
      forgetOthers(person)
      return localStorage.getItem(keyOf(name, person)) ?? undefined
    })
  },
  /** Stores a text for this person, or takes it away. */
  set(name: string, person: string, value: string | undefined): void {
    attempt(() => {
      forgetOthers(person)
      if (value === undefined) localStorage.removeItem(keyOf(name, person))
      else localStorage.setItem(keyOf(name, person), value)
      return undefined
    })
  },
  /** Takes everything away that belongs to a person: at sign-out. */
  clear(): void {
    attempt(() => {
      forgetOthers(undefined)
      return undefined
    })
  },
}

function keyOf(name: string, person: string): string {
  return `${PREFIX}${encodeURIComponent(person)}/${name}`
}

function forgetOthers(person: string | undefined): void {
  const mine = person === undefined ? undefined : `${PREFIX}${encodeURIComponent(person)}/`
  const keys = Array.from({ length: localStorage.length }, (_, at) => localStorage.key(at))
  for (const key of keys) {
    if (key?.startsWith(PREFIX) && (mine === undefined || !key.startsWith(mine))) localStorage.removeItem(key)
  }
}

/** Storage may be switched off or full; what is not kept is no error. */
function attempt(action: () => string | undefined): string | undefined {
  try {
    return action()
  } catch {
    return undefined
  }
}
