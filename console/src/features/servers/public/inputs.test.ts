import { describe, expect, test } from 'vitest'
import type { ServerJson } from '@/api/generated/types'
import { declaredInputs, freeName, inputIssue, nameFrom, offers } from './inputs'

const document = (parts: Partial<ServerJson>): ServerJson => ({ name: 'a.b/c', ...parts })

function inputsOf(parts: Partial<ServerJson>) {
  const [offer] = offers(document(parts))
  return offer === undefined ? [] : declaredInputs(offer)
}

describe('the offers of an entry', () => {
  test('the first stdio package of each kind runs, in the order in which the server chooses', () => {
    const all = offers(
      document({
        remotes: [
          { type: 'sse', url: 'https://a.example/sse' },
          { type: 'streamable-http', url: 'https://a.example/mcp' },
        ],
        packages: [
          { registryType: 'oci', identifier: 'image', transport: { type: 'stdio' } },
          { registryType: 'npm', identifier: 'http', transport: { type: 'streamable-http' } },
          { registryType: 'npm', identifier: 'first', transport: { type: 'stdio' } },
          { registryType: 'npm', identifier: 'second' },
          { registryType: 'nuget', identifier: 'other' },
        ],
      }),
    )
    const runs = all.filter((offer) => offer.runs)
    expect(runs.map((offer) => offer.package?.identifier ?? offer.remote?.url)).toEqual([
      'first',
      'image',
      'https://a.example/mcp',
    ])
    expect(all.filter((offer) => !offer.runs).every((offer) => offer.why !== '')).toBe(true)
  })

  test('what speaks HTTP runs when nothing of its kind is over stdio, and comes after an address', () => {
    const http = { registryType: 'oci', identifier: 'http', transport: { type: 'streamable-http' } }
    const remotes = [{ type: 'streamable-http', url: 'https://a.example/mcp' }]
    const [first, second] = offers(document({ packages: [http], remotes }))
    expect([first?.kind, second?.package?.identifier, second?.runs]).toEqual(['remote', 'http', true])
    const stdio = { registryType: 'oci', identifier: 'stdio', transport: { type: 'stdio' } }
    const taken = offers(document({ packages: [http, stdio] })).filter((offer) => offer.runs)
    expect(taken.map((offer) => offer.package?.identifier)).toEqual(['stdio'])
    const npm = { ...http, registryType: 'npm', identifier: 'package' }
    const all = offers(document({ packages: [http, npm], remotes })).filter((offer) => offer.runs)
    expect(all.map((offer) => offer.package?.identifier)).toEqual([undefined, 'package', 'http'])
  })

  test('the headers and the address of what speaks HTTP are inputs', () => {
    const fields = inputsOf({
      packages: [
        {
          registryType: 'npm',
          identifier: 'package',
          transport: {
            type: 'streamable-http',
            url: 'http://localhost:{port}/mcp',
            variables: { port: { default: '3001' } },
            headers: [{ name: 'Authorization', isRequired: true, isSecret: true }],
          },
        },
      ],
    })
    expect(fields.map((one) => [one.key, one.origin, one.required])).toEqual([
      ['Authorization', 'header', true],
      ['port', 'address', false],
    ])
  })
})

describe('the inputs of a package', () => {
  test('have the names that the server takes them by', () => {
    const fields = inputsOf({
      packages: [
        {
          registryType: 'npm',
          packageArguments: [
            { type: 'named', name: '--port=', format: 'number' },
            { type: 'positional', valueHint: 'directory', isRepeated: true, isRequired: true },
            { type: 'positional', value: '--headless' },
          ],
          environmentVariables: [
            { name: 'API_KEY', isSecret: true, isRequired: true },
            { name: 'FIXED', value: 'x' },
          ],
        },
      ],
    })
    expect(fields.map((field) => field.key)).toEqual(['API_KEY', 'directory', '--port'])
    expect(fields.find((field) => field.key === 'directory')?.repeated).toBe(true)
  })

  test('are the variables inside of fixed values, also of variables', () => {
    const fields = inputsOf({
      remotes: [
        {
          type: 'streamable-http',
          url: 'https://{region}.example/mcp',
          variables: { region: { choices: ['eu', 'us'] } },
          headers: [
            {
              name: 'Authorization',
              value: 'Bearer {token}',
              variables: {
                token: { isSecret: true, value: '{inner}', variables: { inner: { isRequired: true } } },
              },
            },
          ],
        },
      ],
    })
    expect(fields.map((field) => field.key)).toEqual(['inner', 'region'])
    expect(fields.find((field) => field.key === 'region')?.required).toBe(true)
  })

  test('that are paths of the host have only what a person gives, and show what the entry suggests', () => {
    const path = { name: 'DIR', format: 'filepath', default: '/srv/data' }
    const [field] = inputsOf({ packages: [{ registryType: 'npm', environmentVariables: [path] }] })
    expect([field?.initial, field?.suggestion]).toEqual(['', '/srv/data'])
    const [inImage] = inputsOf({ packages: [{ registryType: 'oci', environmentVariables: [path] }] })
    expect([inImage?.initial, inImage?.suggestion]).toEqual(['/srv/data', ''])
  })

  test('that two places ask for are asked for once', () => {
    const fields = inputsOf({
      packages: [
        {
          registryType: 'npm',
          environmentVariables: [
            { name: 'A', description: 'first' },
            { name: 'A', description: 'second' },
          ],
        },
      ],
    })
    expect(fields.map((field) => field.description)).toEqual(['first'])
  })
})

describe('a value', () => {
  const [field] = inputsOf({ packages: [{ registryType: 'npm', environmentVariables: [{ name: 'A' }] }] })
  const check = (changes: object, value: string) =>
    field === undefined ? undefined : inputIssue({ ...field, ...changes }, value)

  test('must be one of the choices', () => {
    expect(check({ choices: ['a', 'b'] }, 'b')).toBeUndefined()
    expect(check({ choices: ['a', 'b'] }, 'c')).toBeDefined()
  })

  test('must have its format', () => {
    expect(check({ format: 'number' }, '1.5')).toBeUndefined()
    expect(check({ format: 'number' }, '1,5')).toBeDefined()
    expect(check({ format: 'boolean' }, 'yes')).toBeDefined()
    expect(check({ format: 'filepath' }, 'relative')).toBeDefined()
    expect(check({ format: 'filepath' }, '/srv/data')).toBeUndefined()
  })
})

describe('a suggested name', () => {
  test('is valid whatever it is made of', () => {
    expect(nameFrom('Server Everything!')).toBe('server-everything')
    expect(nameFrom('___')).toBe('')
    expect(nameFrom('x'.repeat(80))).toHaveLength(40)
  })

  test('gets a number when it is taken, and stays within its length', () => {
    const long = 'x'.repeat(40)
    expect(freeName('time', new Set(['time', 'time-2']))).toBe('time-3')
    expect(freeName(long, new Set([long]))).toBe(`${'x'.repeat(38)}-2`)
  })
})
