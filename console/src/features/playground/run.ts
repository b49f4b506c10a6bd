import { useEffect, useRef, useState } from 'react'
import { mcpClient } from '@/api/mcp'
import type { Answer, JsonObject, Progress, RequestOptions } from '@/lib/mcp/client'

/** What is run: a tool called, a resource read, a prompt filled in. */
export type Request =
  | { kind: 'tool'; name: string; input: JsonObject }
  | { kind: 'resource'; uri: string; listed: string; input: Record<string, string> }
  | { kind: 'prompt'; name: string; input: Record<string, string> }

/** Where a run is. */
export type RunState =
  | { state: 'none' }
  | { state: 'running'; since: number; progress: Progress | undefined }
  | { state: 'answered'; answer: Answer; took: number }
  | { state: 'failed'; error: unknown; took: number }
  | { state: 'cancelled'; took: number }

/** Runs one request at a time; leaving the page cancels it. `onEnd` hears how it went. */
export function useRun(mcpPath: string, onEnd: (request: Request, end: RunState & { took: number }) => void) {
  const [run, setRun] = useState<RunState>({ state: 'none' })
  const current = useRef<AbortController>(undefined)
  useEffect(() => () => current.current?.abort(), [])

  const start = async (request: Request): Promise<void> => {
    if (current.current !== undefined) return
    const stop = new AbortController()
    current.current = stop
    const since = Date.now()
    setRun({ state: 'running', since, progress: undefined })
    const end = await settled(mcpPath, request, {
      signal: stop.signal,
      onProgress: (progress) => setRun({ state: 'running', since, progress }),
    })
    current.current = undefined
    const ended = { ...end, took: Date.now() - since }
    setRun(ended)
    onEnd(request, ended)
  }
  return { run, start, cancel: () => current.current?.abort() }
}

type End =
  | { state: 'answered'; answer: Answer }
  | { state: 'failed'; error: unknown }
  | { state: 'cancelled' }

async function settled(mcpPath: string, request: Request, options: RequestOptions): Promise<End> {
  try {
    return { state: 'answered', answer: await send(mcpPath, request, options) }
  } catch (error) {
    return options.signal?.aborted ? { state: 'cancelled' } : { state: 'failed', error }
  }
}

function send(mcpPath: string, request: Request, options: RequestOptions): Promise<Answer> {
  const client = mcpClient(mcpPath)
  switch (request.kind) {
    case 'tool':
      return client.callTool(request.name, request.input, options)
    case 'resource':
      return client.readResource(request.uri, options)
    case 'prompt':
      return client.getPrompt(request.name, request.input, options)
  }
}
