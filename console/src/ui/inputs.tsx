import { Eye, EyeOff } from 'lucide-react'
import { type InputHTMLAttributes, type Ref, type TextareaHTMLAttributes, useState } from 'react'
import { cx } from '@/lib/cx'
import { t } from '@/lib/t'
import { type ControlProps, described, Field, fieldOf } from './field'

type Own = keyof ControlProps | 'value' | 'onChange' | 'onValueChange'

export type TextInputProps = ControlProps &
  Omit<InputHTMLAttributes<HTMLInputElement>, Own> & {
    value: string
    onValueChange: (value: string) => void
    /** In the monospaced face: names, ids, addresses. */
    mono?: boolean
    ref?: Ref<HTMLInputElement>
  }

/** One line of text: `<TextInput label={t('Name')} {...form.field('name')} />`. */
export function TextInput(props: TextInputProps) {
  const [field, { value, onValueChange, mono, ...rest }] = fieldOf(props)
  return (
    <Field {...field}>
      <input
        type="text"
        spellCheck={mono ? false : undefined}
        autoCapitalize={mono ? 'none' : undefined}
        {...rest}
        {...described(field)}
        value={value}
        onChange={(event) => onValueChange(event.target.value)}
        className={cx('control', mono && 'id')}
      />
    </Field>
  )
}

/** A password or another secret, with a button that shows it. */
export function PasswordInput(props: Omit<TextInputProps, 'type' | 'mono'>) {
  const [field, { value, onValueChange, ...rest }] = fieldOf(props)
  const [shown, setShown] = useState(false)
  const Icon = shown ? EyeOff : Eye
  return (
    <Field {...field}>
      <div className="relative">
        <input
          autoComplete="off"
          {...rest}
          {...described(field)}
          type={shown ? 'text' : 'password'}
          spellCheck={false}
          autoCapitalize="none"
          value={value}
          onChange={(event) => onValueChange(event.target.value)}
          className={cx('control pr-[calc(var(--control)+4px)]', shown && 'id')}
        />
        <button
          type="button"
          aria-pressed={shown}
          aria-label={t('Show what is typed')}
          onClick={() => setShown(!shown)}
          className="absolute inset-y-0 right-0 flex w-control items-center justify-center rounded-md text-muted hover:text-text"
        >
          <Icon aria-hidden="true" className="size-4" />
        </button>
      </div>
    </Field>
  )
}

export type NumberInputProps = ControlProps &
  Omit<InputHTMLAttributes<HTMLInputElement>, Own> & {
    /** The text as typed: a form checks it (`v.pipe(v.string(), v.toNumber())`). */
    value: string
    onValueChange: (value: string) => void
    unit?: string
  }

/** A number, with its unit inside. The value is what was typed, so that nothing is changed under the fingers. */
export function NumberInput(props: NumberInputProps) {
  const [field, { value, onValueChange, unit, ...rest }] = fieldOf(props)
  return (
    <Field {...field}>
      <div className="relative">
        <input
          {...rest}
          {...described(field)}
          type="text"
          inputMode="decimal"
          autoComplete="off"
          value={value}
          onChange={(event) => onValueChange(event.target.value)}
          className={cx('control tabular', unit !== undefined && 'pr-14')}
        />
        {unit !== undefined && (
          <span className="pointer-events-none absolute inset-y-0 right-3 flex items-center text-sm text-muted">
            {unit}
          </span>
        )}
      </div>
    </Field>
  )
}

export type TextareaProps = ControlProps &
  Omit<TextareaHTMLAttributes<HTMLTextAreaElement>, Own> & {
    value: string
    onValueChange: (value: string) => void
    mono?: boolean
  }

/** Several lines of text; grows with them. */
export function Textarea(props: TextareaProps) {
  const [field, { value, onValueChange, mono, rows = 3, ...rest }] = fieldOf(props)
  return (
    <Field {...field}>
      <textarea
        spellCheck={mono ? false : undefined}
        {...rest}
        {...described(field)}
        rows={rows}
        value={value}
        onChange={(event) => onValueChange(event.target.value)}
        className={cx('control field-sizing-content max-h-96 resize-y py-1.5', mono && 'id')}
      />
    </Field>
  )
}
