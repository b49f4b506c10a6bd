/** What a result is made of, out of what a server said. */
import { isObject, type JsonObject } from '@/lib/mcp/client'

/** One part of a result. */
export type Content =
  | { kind: 'text'; text: string; role?: string }
  | { kind: 'image'; mimeType: string; data: string; role?: string }
  | { kind: 'audio'; mimeType: string; data: string; role?: string }
  | { kind: 'link'; uri: string; name: string; description: string; mimeType: string; role?: string }
  | { kind: 'resource'; uri: string; mimeType: string; text: string; role?: string }
  | { kind: 'file'; uri: string; mimeType: string; data: string; role?: string }
  | { kind: 'unknown'; value: unknown; role?: string }

/** More parts than this are only in the raw answer. */
export const MOST_PARTS = 200
/** Larger Base64 (in characters) is saved, not read. */
const MOST_DECODED = 4_000_000

/** The parts of a tool's result, a resource's contents or a prompt's messages. */
export function contentOf(result: JsonObject): Content[] {
  const { content, contents, messages } = result
  if (Array.isArray(content)) return content.slice(0, MOST_PARTS).map((part) => partOf(part))
  if (Array.isArray(contents)) return contents.slice(0, MOST_PARTS).map(resourceOf)
  if (Array.isArray(messages)) {
    return messages
      .filter(isObject)
      .slice(0, MOST_PARTS)
      .map((message) => ({ ...partOf(message['content']), role: text(message['role']) }))
  }
  return []
}

function partOf(part: unknown): Content {
  if (!isObject(part)) return { kind: 'unknown', value: part }
  const [data, mimeType] = [text(part['data']), text(part['mimeType'])]
  switch (part['type']) {
    case 'text':
      return { kind: 'text', text: text(part['text']) }
    case 'image':
      return { kind: 'image', mimeType, data }
    case 'audio':
      return { kind: 'audio', mimeType, data }
    case 'resource':
      return resourceOf(part['resource'])
    case 'resource_link':
      return {
        kind: 'link',
        uri: text(part['uri']),
        name: text(part['title']) || text(part['name']),
        description: text(part['description']),
        mimeType,
      }
    default:
      return { kind: 'unknown', value: part }
  }
}

function resourceOf(resource: unknown): Content {
  if (!isObject(resource)) return { kind: 'unknown', value: resource }
  const [uri, mimeType] = [text(resource['uri']), text(resource['mimeType'])]
  const data = text(resource['blob'])
  if (data !== '') {
    const words = /^(text\/|application\/(json|xml|yaml)\b)/.test(mimeType) ? wordsOf(data) : undefined
    if (words !== undefined) return { kind: 'resource', uri, mimeType, text: words }
    return isPicture(mimeType) ? { kind: 'image', mimeType, data } : { kind: 'file', uri, mimeType, data }
  }
  return { kind: 'resource', uri, mimeType, text: text(resource['text']) }
}

const PICTURES = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif'])

/** Whether a type is one of the pictures that are shown. SVG is not: it may hold anything. */
export function isPicture(mimeType: string): boolean {
  return PICTURES.has(mimeType)
}

/** Bytes of Base64; `undefined` when it is none. */
export function bytesOfBase64(data: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    const binary = atob(data.replace(/\s+/g, ''))
    return Uint8Array.from(binary, (character) => character.charCodeAt(0))
  } catch {
    return undefined
  }
}

/** The text that Base64 holds; `undefined` when it holds none. */
function wordsOf(data: string): string | undefined {
  const bytes = data.length > MOST_DECODED ? undefined : bytesOfBase64(data)
  try {
    return bytes && new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return undefined
  }
}

/** A name for what is saved: from the address if it has one, with an ending that fits the type. */
export function fileName(uri: string, mimeType: string): string {
  const last = uri.split(/[?#]/)[0]?.split('/').at(-1) ?? ''
  const safe = last
    .replace(/[^\w.-]+/g, '-')
    .replace(/^[.-]+/, '')
    .slice(0, 80)
  if (/\.\w{1,8}$/.test(safe)) return safe
  const ending = /^[\w.-]+\/(?:x-)?([a-z0-9]{1,8})\b/.exec(mimeType)?.[1] ?? 'bin'
  return `${safe === '' ? 'result' : safe}.${ending === 'plain' ? 'txt' : ending}`
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
