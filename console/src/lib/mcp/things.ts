/** What an MCP server offers, out of what it says. All of it is hostile: a field of the wrong kind is as good as none. */
import { isObject, type JsonObject } from './client'

/** A tool. */
export interface McpTool {
  name: string
  title: string | undefined
  description: string
  inputSchema: JsonObject
  outputSchema: JsonObject | undefined
  /** What the server claims about it: hints, which nobody has checked. */
  hints: ToolHints
  /** Bytes of what a model gets to see of it: name, description and input schema. */
  bytes: number
  raw: JsonObject
}

/** The server's claims about a tool; absent ones are `undefined`. */
export interface ToolHints {
  readOnly: boolean | undefined
  destructive: boolean | undefined
  idempotent: boolean | undefined
  openWorld: boolean | undefined
}

/** A resource, or a template of resources. */
export interface McpResource {
  /** Its URI, or the template's pattern such as `file:///{path}`. */
  uri: string
  template: boolean
  name: string
  title: string | undefined
  description: string
  mimeType: string | undefined
  size: number | undefined
  raw: JsonObject
}

/** A prompt. */
export interface McpPrompt {
  name: string
  title: string | undefined
  description: string
  arguments: Array<{ name: string; description: string; required: boolean }>
  raw: JsonObject
}

/** The tools among what was listed; what has no name is passed over. */
export function toolsOf(items: readonly JsonObject[]): McpTool[] {
  return items.flatMap((raw) => {
    const name = text(raw['name'])
    if (name === undefined || name === '') return []
    const annotations = isObject(raw['annotations']) ? raw['annotations'] : {}
    const inputSchema = isObject(raw['inputSchema']) ? raw['inputSchema'] : {}
    const description = text(raw['description']) ?? ''
    return [
      {
        name,
        title: text(raw['title']) ?? text(annotations['title']),
        description,
        inputSchema,
        outputSchema: isObject(raw['outputSchema']) ? raw['outputSchema'] : undefined,
        hints: {
          readOnly: flag(annotations['readOnlyHint']),
          destructive: flag(annotations['destructiveHint']),
          idempotent: flag(annotations['idempotentHint']),
          openWorld: flag(annotations['openWorldHint']),
        },
        bytes: bytesOf(JSON.stringify({ name, description, input_schema: inputSchema })),
        raw,
      },
    ]
  })
}

/** The resources or templates among what was listed. */
export function resourcesOf(items: readonly JsonObject[]): McpResource[] {
  return items.flatMap((raw) => {
    const template = text(raw['uriTemplate'])
    const uri = template ?? text(raw['uri'])
    if (uri === undefined || uri === '') return []
    const size = raw['size']
    return [
      {
        uri,
        template: template !== undefined,
        name: text(raw['name']) ?? uri,
        title: text(raw['title']),
        description: text(raw['description']) ?? '',
        mimeType: text(raw['mimeType']),
        size: typeof size === 'number' && size >= 0 ? size : undefined,
        raw,
      },
    ]
  })
}

/** The prompts among what was listed. */
export function promptsOf(items: readonly JsonObject[]): McpPrompt[] {
  return items.flatMap((raw) => {
    const name = text(raw['name'])
    if (name === undefined || name === '') return []
    const args = Array.isArray(raw['arguments']) ? raw['arguments'].filter(isObject) : []
    return [
      {
        name,
        title: text(raw['title']),
        description: text(raw['description']) ?? '',
        arguments: args.slice(0, 100).flatMap((one) => {
          const argument = text(one['name'])
          if (argument === undefined || argument === '') return []
          const described = text(one['description']) ?? ''
          return [{ name: argument, description: described, required: one['required'] === true }]
        }),
        raw,
      },
    ]
  })
}

/** What so many bytes cost in a model's context: an estimate, four bytes a token. Label it as one. */
export function tokensOf(bytes: number): number {
  return Math.ceil(bytes / 4)
}

/** Bytes of a text in UTF-8. */
export function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length
}

/** The variables of a URI template (RFC 6570), without their operators and modifiers, each once. */
export function templateVariables(template: string): string[] {
  const found = [...template.matchAll(/\{[+#./;?&]?([^{}]{1,200})\}/g)].flatMap((match) =>
    (match[1] ?? '').split(',').map((name) => name.replace(/(\*|:\d+)$/, '').trim()),
  )
  return [...new Set(found)].filter((name) => name !== '').slice(0, 50)
}

/** A URI template with its variables filled in: simple and reserved expansion, paths and queries. */
export function fillTemplate(template: string, values: Readonly<Record<string, string>>): string {
  return template.replace(/\{([+#./;?&]?)([^{}]{1,200})\}/g, (_, operator: string, names: string) => {
    const keep = operator === '+' || operator === '#'
    const named = operator === '?' || operator === '&' || operator === ';'
    const parts = names.split(',').flatMap((one) => {
      const name = one.replace(/(\*|:\d+)$/, '').trim()
      const value = values[name]
      if (value === undefined || value === '') return []
      const encoded = keep ? encodeURI(value) : encodeURIComponent(value)
      return [named ? `${name}=${encoded}` : encoded]
    })
    if (parts.length === 0) return ''
    const joint = { '': ',', '+': ',', '#': ',', '.': '.', '/': '/', ';': ';', '?': '&', '&': '&' }[operator]
    return `${operator === '+' ? '' : operator}${parts.join(joint)}`
  })
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function flag(value: unknown): boolean | undefined {
  return typeof value === 'boolean' ? value : undefined
}
