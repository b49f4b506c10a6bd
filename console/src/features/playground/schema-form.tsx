import { Plus, X } from 'lucide-react'
import { type ReactNode, useId, useState } from 'react'
import { isObject } from '@/lib/mcp/client'
import { t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Button, IconButton } from '@/ui/button'
import { NumberInput, Textarea, TextInput } from '@/ui/inputs'
import { Select } from '@/ui/select'
import { Checkbox } from '@/ui/toggles'
import { initialOf, limitsText, type Node, pathTo, problemsOf, sameJson, Unparsed } from './schema'

interface ValueProps {
  node: Node
  /** What it is called, from the server. */
  name: string
  path: string
  required: boolean
  value: unknown
  onChange: (value: unknown) => void
  problems: Readonly<Record<string, string>>
}

/** The fields of an object's properties; those of a tool's input at the top. */
export function SchemaFields({
  node,
  value,
  onChange,
  problems,
  path = '',
}: {
  node: Node
  value: unknown
  onChange: (value: unknown) => void
  problems: Readonly<Record<string, string>>
  path?: string
}) {
  if (node.shape.kind !== 'object') {
    return (
      <ValueField
        node={node}
        name={t('Input')}
        path={path}
        required
        value={value}
        onChange={onChange}
        problems={problems}
      />
    )
  }
  const object = isObject(value) ? value : {}
  return (
    <div className="flex flex-col gap-4">
      {node.shape.properties.map((property) => (
        <ValueField
          key={property.name}
          node={property.node}
          name={property.name}
          path={pathTo(path, property.name)}
          required={property.required}
          value={Object.hasOwn(object, property.name) ? object[property.name] : undefined}
          onChange={(next) => {
            const { [property.name]: _, ...rest } = object
            onChange(next === undefined ? rest : { ...rest, [property.name]: next })
          }}
          problems={problems}
        />
      ))}
    </div>
  )
}

function ValueField(props: ValueProps) {
  const { node, value, onChange, required } = props
  const { shape } = node
  const common = useCommon(props)
  switch (shape.kind) {
    case 'text':
      return <TextField {...props} />
    case 'number':
      return (
        <NumberInput
          {...common}
          value={value instanceof Unparsed ? value.text : value === undefined ? '' : String(value)}
          onValueChange={(text) => {
            const number = Number(text)
            if (text.trim() === '') onChange(undefined)
            // What would read differently is kept as typed: `1.` and `-` may be on the way to a number.
            else
              onChange(
                String(number) === text.trim() && Number.isFinite(number) ? number : new Unparsed(text),
              )
          }}
        />
      )
    case 'boolean':
      return required ? (
        <Checkbox
          id={common.id}
          label={common.label}
          hint={common.hint}
          error={common.error}
          value={value === true}
          onValueChange={onChange}
        />
      ) : (
        <Select
          {...common}
          value={typeof value === 'boolean' ? (value ? 'yes' : 'no') : ''}
          options={[
            { value: '', label: t('Not set') },
            { value: 'yes', label: t('Yes') },
            { value: 'no', label: t('No') },
          ]}
          onValueChange={(next) => onChange(next === '' ? undefined : next === 'yes')}
        />
      )
    case 'choice': {
      const chosen = shape.choices.findIndex((one) => sameJson(one.value, value))
      return (
        <Select
          {...common}
          value={chosen < 0 ? '' : String(chosen)}
          options={[
            { value: '', label: required ? t('Choose') : t('Not set') },
            ...shape.choices.map((one, at) => ({ value: String(at), label: oneLine(one.label, 120) })),
          ]}
          onValueChange={(next) => onChange(next === '' ? undefined : shape.choices[Number(next)]?.value)}
        />
      )
    }
    case 'constant':
      return (
        <TextInput
          {...common}
          value={JSON.stringify(shape.value) ?? ''}
          onValueChange={() => undefined}
          readOnly
          mono
        />
      )
    case 'object':
      return (
        <Group {...props}>
          <SchemaFields
            node={node}
            value={value}
            path={props.path}
            // An object that is not asked for goes away when its last value does.
            onChange={(next) =>
              onChange(!required && isObject(next) && Object.keys(next).length === 0 ? undefined : next)
            }
            problems={props.problems}
          />
        </Group>
      )
    case 'list':
      return <ListField {...props} item={shape.item} />
    case 'variants':
      return <VariantsField {...props} />
    case 'json':
      return <JsonText {...common} value={value} onChange={onChange} />
  }
}

function useCommon({ node, name, required, path, problems }: ValueProps) {
  const id = useId()
  const description = plainText(node.description, 600)
  const limits = limitsText(node)
  const hint = [description, limits].filter(Boolean).join(description.endsWith('.') ? ' ' : ' · ')
  return {
    id,
    label: (
      <>
        <span className="id">{oneLine(name, 100)}</span>
        {node.title !== undefined && node.title !== name && (
          <span className="font-normal text-muted"> {oneLine(node.title, 100)}</span>
        )}
      </>
    ),
    required,
    error: problems[path],
    ...(hint === '' ? {} : { hint }),
  }
}

const TYPES: Readonly<Record<string, string>> = { date: 'date', time: 'time', email: 'email', uri: 'url' }

function TextField(props: ValueProps) {
  const common = useCommon(props)
  const { node, value, onChange, required } = props
  const { format, long } = node.shape.kind === 'text' ? node.shape : { format: undefined, long: false }
  const text = typeof value === 'string' ? value : value === undefined ? '' : JSON.stringify(value)
  const [wide, setWide] = useState(long || text.includes('\n'))
  // An empty text and none look the same: it is none, and the JSON can say otherwise.
  const change = (next: string) => onChange(next === '' ? undefined : next)
  const aside =
    format === undefined && !long ? (
      <button
        type="button"
        aria-pressed={wide}
        onClick={() => setWide(!wide)}
        className="ml-auto min-h-6 rounded text-xs text-muted hover:text-text"
      >
        {t('Several lines')}
      </button>
    ) : undefined
  const more = aside === undefined ? common : { ...common, aside }
  if (wide) return <Textarea {...more} value={text} onValueChange={change} rows={4} />
  const placeholder =
    format === 'date-time' ? '2026-01-31T12:00:00Z' : format === undefined ? undefined : format
  return (
    <TextInput
      {...more}
      type={TYPES[format ?? ''] ?? 'text'}
      {...(placeholder === undefined ? {} : { placeholder })}
      value={text}
      onValueChange={change}
      aria-required={required || undefined}
      autoComplete="off"
    />
  )
}

function Group({ node, name, required, children }: ValueProps & { children: ReactNode }) {
  const description = plainText(node.description, 600)
  return (
    <fieldset className="min-w-0 rounded-md border p-3">
      <legend className="px-1 text-sm font-medium">
        <span className="id">{oneLine(name, 100)}</span>
        {!required && <span className="text-xs font-normal text-faint"> {t('optional')}</span>}
      </legend>
      {description !== '' && <p className="mb-3 text-sm text-muted">{description}</p>}
      {children}
    </fieldset>
  )
}

function ListField(props: ValueProps & { item: Node }) {
  const { item, value, onChange, path, problems, name } = props
  const items: unknown[] = Array.isArray(value) ? value : []
  const change = (next: unknown[]) => onChange(next.length === 0 && !props.required ? undefined : next)
  return (
    <Group {...props}>
      <div className="flex flex-col gap-3">
        {items.slice(0, 200).map((one, at) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: an item is its place in the list.
          <div key={at} className="flex items-start gap-2">
            <div className="min-w-0 flex-1">
              <ValueField
                node={item}
                name={`${at + 1}`}
                path={pathTo(path, at)}
                required
                value={one === null ? undefined : one}
                onChange={(next) => change(items.with(at, next ?? emptyOf(item)))}
                problems={problems}
              />
            </div>
            <IconButton
              icon={X}
              label={t('Take item {number} out of {name}', { number: at + 1, name: oneLine(name, 60) })}
              onClick={() => change(items.toSpliced(at, 1))}
              className="mt-6"
            />
          </div>
        ))}
        {problems[path] !== undefined && <p className="text-sm text-bad">{problems[path]}</p>}
        <Button
          size="small"
          icon={Plus}
          className="w-fit"
          onClick={() => change([...items, initialOf(item) ?? emptyOf(item)])}
        >
          {t('Add an item')}
        </Button>
      </div>
    </Group>
  )
}

/** What an item of a list is before anything was entered. */
function emptyOf(node: Node): unknown {
  switch (node.shape.kind) {
    case 'text':
      return ''
    case 'boolean':
      return false
    case 'object':
      return {}
    case 'list':
      return []
    default:
      return null
  }
}

function VariantsField(props: ValueProps) {
  const { node, value, onChange, problems, path } = props
  const common = useCommon(props)
  const variants = node.shape.kind === 'variants' ? node.shape.variants : []
  const [chosen, setChosen] = useState(() =>
    Math.max(
      0,
      variants.findIndex(
        (one) => value !== undefined && Object.keys(problemsOf(one.node, value)).length === 0,
      ),
    ),
  )
  const variant = variants[chosen]
  return (
    <Group {...props}>
      <div className="flex flex-col gap-3">
        <Select
          id={common.id}
          label={t('Shape')}
          value={String(chosen)}
          options={variants.map((one, at) => ({ value: String(at), label: oneLine(one.label, 80) }))}
          onValueChange={(next) => {
            setChosen(Number(next))
            const one = variants[Number(next)]
            onChange(one === undefined ? undefined : initialOf(one.node))
          }}
        />
        {variant !== undefined && (
          <ValueField
            key={chosen}
            node={variant.node}
            name={props.name}
            path={path}
            required={props.required}
            value={value}
            onChange={onChange}
            problems={problems}
          />
        )}
      </div>
    </Group>
  )
}

/** A value as JSON text, kept as it is typed while it means the same. */
export function JsonText({
  value,
  onChange,
  rows = 3,
  ...field
}: {
  id: string
  label: ReactNode
  required?: boolean
  error?: string | undefined
  hint?: ReactNode
  hideLabel?: boolean
  value: unknown
  onChange: (value: unknown) => void
  rows?: number
}) {
  const [typed, setTyped] = useState('')
  const shown =
    value instanceof Unparsed
      ? value.text
      : value === undefined
        ? ''
        : sameJson(parsed(typed), value)
          ? typed
          : JSON.stringify(value, null, 2)
  return (
    <Textarea
      {...field}
      mono
      rows={rows}
      // It grows with its text, also from less than `rows`.
      style={{ minHeight: `${rows * 1.25 + 1}rem` }}
      value={shown}
      onValueChange={(text) => {
        setTyped(text)
        const read = parsed(text)
        onChange(text.trim() === '' ? undefined : read === undefined ? new Unparsed(text) : read)
      }}
    />
  )
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
