import { describe, expect, test } from 'vitest'
import { cliCommand, curlCommand, quoted } from './commands'

describe('commands to copy', () => {
  test('what a server calls its tool does not become a command', () => {
    expect(quoted("a'; rm -rf ~ #")).toBe(`'a'\\''; rm -rf ~ #'`)
    expect(cliCommand('time', { kind: 'tool', name: '$(x)', input: { a: "it's" } })).toBe(
      `toolyard call time '$(x)' '{"a":"it'\\''s"}'`,
    )
    expect(cliCommand('time', { kind: 'resource', uri: 'a:b', listed: 'a:b', input: {} })).toBeUndefined()
  })

  test('curl carries what the protocol asks for', () => {
    const command = curlCommand('http://localhost/mcp', { kind: 'prompt', name: 'zeit‽', input: {} })
    expect(command).toContain("-H 'Mcp-Method: prompts/get'")
    expect(command).toContain("-H 'Mcp-Name: =?base64?")
    expect(command).toContain('"name":"zeit‽"')
  })
})
