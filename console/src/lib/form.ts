/**
 * A form: its values mirror the screen, a valibot schema says what is wrong with them, and `submit` turns them into
 * the API's shape. What the server finds wrong is shown at the fields it names, the rest above the buttons.
 */
import { type FormEvent, useEffect, useId, useRef, useState } from 'react'
import { flushSync } from 'react-dom'
import * as v from 'valibot'
import { t } from './t'

/** An error of the server, as far as a form looks at it. */
interface Refusal {
  detail?: unknown
  errors?: unknown
}

/** What a control needs to be part of a form: spread it, as in `<TextInput {...form.field('email')} />`. */
export interface FieldProps<Value> {
  id: string
  name: string
  value: Value
  onValueChange: (value: Value) => void
  error: string | undefined
}

/** What {@link useForm} gives. */
export interface Form<Values extends object> {
  values: Values
  /** Changes some values; their errors go away, or only those at `paths`, such as `environment.API_KEY`. */
  set: (changes: Partial<Values>, paths?: readonly string[]) => void
  /** Another starting point: after saving, or when the thing was changed elsewhere and nothing was typed. */
  reset: (values?: Values) => void
  field: <Name extends keyof Values & string>(name: Name) => FieldProps<Values[Name]>
  /** The error at a path, such as `environment.API_KEY`. */
  errorAt: (path: string) => string | undefined
  /** What went wrong with the whole: give it to `<FormError>`. */
  submitError: unknown
  submitting: boolean
  /** Whether anything differs from the start. */
  dirty: boolean
  /** Give it to `<form noValidate onSubmit>`. */
  onSubmit: (event?: FormEvent<HTMLFormElement>) => void
}

/** Something that would be lost. */
export interface Unsaved {
  /** What is said to who leaves it, where it was not merely typed. */
  lost?: string | undefined
  /** It is being saved: the page may go on by itself, and a window waits for what it is answered. */
  saving?: boolean
}

const unsaved = new Map<string, Unsaved>()
const watchers = new Set<() => void>()

function keep(id: string, one: Unsaved | undefined): void {
  if (one === undefined) unsaved.delete(id)
  else unsaved.set(id, one)
  for (const watcher of watchers) watcher()
}

/** Calls `watcher` when something begins or ceases to be unsaved. Gives the function that ends it. */
export function watchUnsaved(watcher: () => void): () => void {
  watchers.add(watcher)
  return () => void watchers.delete(watcher)
}

/** Whether something of this page would be lost with it: typed and not saved, or shown once and not copied. */
export function hasUnsaved(): boolean {
  return unsaved.size > 0
}

/** What would be lost with the page, by a key for each. */
export function allUnsaved(): ReadonlyMap<string, Unsaved> {
  return unsaved
}

/** While `is`, something would be lost with the page. */
export function useUnsaved(is: boolean, { lost, saving = false }: Unsaved = {}): void {
  const id = useId()
  useEffect(() => {
    if (!is) return
    keep(id, { lost, saving })
    return () => keep(id, undefined)
  }, [is, id, lost, saving])
}

/** Makes a form. `submit` gets the schema's output; what it throws is shown. */
export function useForm<Values extends object, Output>(options: {
  initial: Values
  schema: v.GenericSchema<unknown, Output>
  submit: (output: Output, values: Values) => Promise<unknown> | undefined
  /** The form's field for a field of the API, where they differ. */
  fieldOf?: (apiField: string, values: Values) => string | undefined
}): Form<Values> {
  const prefix = useId()
  const [initial, setInitial] = useState(options.initial)
  const [values, setValues] = useState(options.initial)
  const [errors, setErrors] = useState<Readonly<Record<string, string>>>({})
  const [submitError, setSubmitError] = useState<unknown>()
  const [submitting, setSubmitting] = useState(false)
  const busy = useRef(false)
  const dirty = !same(values, initial)
  useUnsaved(dirty || submitting, { saving: submitting })

  const forget = (names: readonly string[]) =>
    setErrors((before) =>
      Object.fromEntries(
        Object.entries(before).filter(
          ([path]) => !names.some((name) => path === name || path.startsWith(`${name}.`)),
        ),
      ),
    )
  const set = (changes: Partial<Values>, paths: readonly string[] = Object.keys(changes)) => {
    setValues((before) => ({ ...before, ...changes }))
    forget(paths)
  }
  const show = (found: Record<string, string>, whole: unknown, form: HTMLFormElement | undefined) => {
    flushSync(() => {
      setErrors(found)
      setSubmitError(whole)
    })
    const nowhere = whole === undefined && form !== undefined && form.querySelector(INVALID) === null
    // An error at a field that is not on the page now would be seen by nobody. Where another is seen, that one comes first.
    if (nowhere && Object.keys(found).length > 0)
      flushSync(() =>
        setSubmitError({
          title: t('It cannot be taken as it is'),
          detail: Object.entries(found)
            .map(([path, message]) => `${path}: ${message}`)
            .join('; '),
        }),
      )
    if (form !== undefined) goToProblem(form)
  }

  const onSubmit = (event?: FormEvent<HTMLFormElement>) => {
    event?.preventDefault()
    if (busy.current) return
    const form = event?.currentTarget
    const parsed = v.safeParse(options.schema, values)
    if (!parsed.success) {
      show(issuesByPath(parsed.issues), undefined, form)
      return
    }
    busy.current = true
    setSubmitting(true)
    setSubmitError(undefined)
    setErrors({})
    Promise.resolve(options.submit(parsed.output, values))
      .catch((error: unknown) => {
        const fieldOf = options.fieldOf
        const { fields, rest } = sortRefusal(
          error,
          Object.keys(values),
          fieldOf === undefined ? undefined : (field) => fieldOf(field, values),
        )
        show(fields, rest ? error : undefined, form)
      })
      .finally(() => {
        busy.current = false
        setSubmitting(false)
      })
  }

  return {
    values,
    set,
    reset: (next = initial) => {
      setInitial(next)
      setValues(next)
      setErrors({})
      setSubmitError(undefined)
    },
    field: (name) => ({
      id: `${prefix}${name}`,
      name,
      value: values[name],
      onValueChange: (value) => set({ [name]: value } as unknown as Partial<Values>), // as: one known name with its own type
      error: errors[name],
    }),
    errorAt: (path) => errors[path],
    submitError,
    submitting,
    dirty,
    onSubmit,
  }
}

/** What a control, or a list, has that is wrong. */
const INVALID = '[aria-invalid="true"], [data-invalid]'

/** Opens what hides an error, each time anew, and gives the focus to the first one. */
function goToProblem(form: HTMLFormElement): void {
  for (const wrong of form.querySelectorAll(INVALID)) {
    for (let at = wrong.closest('details'); at !== null; at = at.parentElement?.closest('details') ?? null)
      at.open = true
  }
  const first = form.querySelector<HTMLElement>(`${INVALID}, [role="alert"] [tabindex]`)
  // A group of choices takes no focus itself.
  const control =
    first instanceof HTMLFieldSetElement
      ? (first.querySelector<HTMLElement>('input:checked:not([disabled])') ??
        first.querySelector<HTMLElement>('input:not([disabled])'))
      : first
  control?.focus()
}

function issuesByPath(issues: readonly v.BaseIssue<unknown>[]): Record<string, string> {
  const found: Record<string, string> = {}
  for (const issue of issues) found[v.getDotPath(issue) ?? ''] ??= issue.message
  return found
}

/** Which field errors of a refusal the form can show, and whether something is left to say. */
export function sortRefusal(
  error: unknown,
  names: string[],
  fieldOf: (apiField: string) => string | undefined = (field) => field,
): { fields: Record<string, string>; rest: boolean } {
  const fields: Record<string, string> = {}
  const said = typeof error === 'object' && error !== null ? (error as Refusal).errors : undefined // as: only looks whether it is there
  let rest = !Array.isArray(said) || said.length === 0
  for (const one of Array.isArray(said) ? said : []) {
    const { field, message } = one as { field?: unknown; message?: unknown } // as: both are checked on the next line
    const path = typeof field === 'string' ? fieldOf(field) : undefined
    const known = path !== undefined && names.some((name) => path === name || path.startsWith(`${name}.`))
    // The server says `is wrong` of the field that it names; here it stands below the field.
    if (known && typeof message === 'string')
      fields[path] ??= /^(?:is|are|must|may|has|does|needs|belongs|can|cannot)\b/.test(message)
        ? t('It {message}', { message })
        : message
    else rest = true
  }
  return { fields, rest }
}

/**
 * Puts the server's "there is one already", which names no field, to the field that it is about:
 * `call(createKey, ...).catch(takenAt('name', t('There is a key of this name')))`.
 */
export function takenAt(field: string, message: string): (error: unknown) => never {
  return (error) => {
    const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined
    throw code === 'already_exists'
      ? Object.assign(new Error(message), { errors: [{ field, message }] })
      : error
  }
}

/** Whether two values of a form are the same, looking into lists and objects. */
export function same(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) return true
  if (typeof one !== 'object' || typeof other !== 'object' || one === null || other === null) return false
  if (Array.isArray(one) !== Array.isArray(other)) return false
  const keys = Object.keys(one)
  if (keys.length !== Object.keys(other).length) return false
  // as: both are objects, and only their own keys are read.
  return keys.every((key) =>
    same((one as Record<string, unknown>)[key], (other as Record<string, unknown>)[key]),
  )
}
