/**
 * A real `toolyard serve` of a worker's own, and a client of its API to arrange what a test needs and to change
 * things "elsewhere". The program under test is `TOOLYARD_BINARY`.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import {
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { waitFor } from './wait.ts'

export const ADMIN = { email: 'admin@example.test', password: 'correct-horse-battery' }
export const BOOTSTRAP_KEY = 'ty_bootstrap_0123456789abcdef0123456789abcdef'
export const EVERYTHING = 'io.github.modelcontextprotocol/server-everything'
export const TIME = 'io.github.modelcontextprotocol/server-time'
const REPOSITORY = resolve(import.meta.dirname, '../../..')

/** What the suite reads of a server; the API's own document has the rest. */
export interface Server {
  name: string
  phase: string
  reason: string
  revision: number
  enabled: boolean
  etag: string
  instances: {
    id: string
    pid?: number | null
    phase: string
    restarts: number
    revision: number
    next_attempt_at?: string | null
  }[]
  rollout?: { id: string; state: string; reason: string } | null
}

/** The port the system gives away next. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const address = server.address()
  await new Promise((done) => server.close(done))
  if (address === null || typeof address === 'string') throw new Error('the listener has no port')
  return address.port
}

/** The program under test. */
export function binary(): string {
  const path = resolve(REPOSITORY, process.env.TOOLYARD_BINARY ?? 'target/debug/toolyard')
  if (!existsSync(path)) throw new Error(`no program at ${path}; build it first: cargo build -p toolyard`)
  return path
}

/** Where the suite keeps what later runs can use again: the installed packages. */
export function cacheDir(): string {
  const uid = process.getuid?.() ?? 0
  const dir = join(process.env.TOOLYARD_TEST_DIR ?? join(tmpdir(), `toolyard-test-${uid}`), 'e2e')
  mkdirSync(dir, { recursive: true })
  return dir
}

/** Settings by the names of their variables; `undefined` takes one away that the suite sets. */
export type Settings = Record<string, string | undefined>

export class Toolyard {
  readonly dir: string
  readonly api: Api
  #child: ChildProcess | undefined

  private constructor(
    dir: string,
    readonly port: number,
    private readonly agentPort: number,
    private readonly settings: Settings,
  ) {
    this.dir = dir
    this.api = new Api(this.url, BOOTSTRAP_KEY)
  }

  /** Starts on a copy of `template`, or on an empty data directory, and waits until it is ready. */
  static async start(template?: string, settings: Settings = {}): Promise<Toolyard> {
    const dir = mkdtempSync(join(tmpdir(), 'toolyard-e2e-'))
    if (template !== undefined) {
      // `fs.cp` does not keep owners, and each server has a user id of its own.
      await run('cp', ['-a', template, join(dir, 'data')])
    }
    const toolyard = new Toolyard(dir, await freePort(), await freePort(), settings)
    await toolyard.serve()
    return toolyard
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** Starts the program (again) on the same data and port. */
  async serve(): Promise<void> {
    const log = createWriteStream(join(this.dir, 'toolyard.log'), { flags: 'a' })
    await new Promise((done) => log.once('open', done))
    const env: NodeJS.ProcessEnv = {}
    for (const [name, value] of Object.entries(process.env)) {
      if (!name.startsWith('TOOLYARD_')) env[name] = value
    }
    const child = spawn(
      binary(),
      [
        'serve',
        ...['--data-dir', join(this.dir, 'data')],
        ...['--listen', `127.0.0.1:${this.port}`],
        ...['--agent-listen', `127.0.0.1:${this.agentPort}`],
      ],
      {
        cwd: this.dir,
        env: {
          ...env,
          TOOLYARD_BOOTSTRAP_ADMIN_EMAIL: ADMIN.email,
          TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD: ADMIN.password,
          TOOLYARD_BOOTSTRAP_API_KEY: BOOTSTRAP_KEY,
          TOOLYARD_ORPHAN_GRACE_SECONDS: '3',
          ...this.settings,
        },
        stdio: ['ignore', log, log],
      },
    )
    this.#child = child
    await waitFor('Toolyard is ready', async () => {
      if (child.exitCode !== null) throw new Error(`toolyard ended with ${child.exitCode}\n${this.log()}`)
      return (await fetch(`${this.url}/readyz`)).ok
    })
    log.close()
  }

  /** Waits until the template's servers answer. */
  async waitReady(): Promise<void> {
    for (const name of ['everything', 'time']) {
      await this.api.waitServer(name, (server) => server.phase === 'ready', 60)
    }
  }

  /** What the program wrote. */
  log(): string {
    return readFileSync(join(this.dir, 'toolyard.log'), 'utf8')
  }

  /** The file that the first start left. */
  firstSignIn(): string {
    return readFileSync(join(this.dir, 'data', 'first-sign-in.txt'), 'utf8')
  }

  /** Ends the program: in order, or at once as a crash would. What it runs lives on for the orphan grace. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null) return
    const ended = new Promise((done) => child.once('exit', done))
    child.kill(signal)
    await ended
    this.#child = undefined
  }

  /** Ends the program and every process it started, and removes its data. */
  async dispose(): Promise<void> {
    await this.stop('SIGKILL')
    await waitFor("the servers' processes are gone", async () => {
      const left = this.processes()
      for (const pid of left) {
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It ended by itself between the look and the signal.
        }
      }
      return left.length === 0
    })
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 })
  }

  /** Processes whose command line or environment names this data directory. */
  private processes(): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => pid !== process.pid)
      .filter((pid) =>
        ['cmdline', 'environ'].some((file) => {
          try {
            return readFileSync(`/proc/${pid}/${file}`, 'utf8').includes(this.dir)
          } catch {
            return false
          }
        }),
      )
  }
}

/** A problem that the API answered with. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly body: string,
    request: string,
  ) {
    super(`${request} answered ${status}: ${body}`)
  }
}

/** The public API with a key. */
export class Api {
  constructor(
    readonly url: string,
    private readonly key: string,
  ) {}

  async send<T = unknown>(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<T> {
    const answer = await fetch(`${this.url}/api/v1${path}`, {
      method,
      headers: {
        authorization: `Bearer ${this.key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    if (!answer.ok) throw new ApiError(answer.status, text, `${method} ${path}`)
    // The caller names the type that the API's document promises.
    return (text === '' ? undefined : JSON.parse(text)) as T
  }

  server(name: string): Promise<Server> {
    return this.send<Server>('GET', `/servers/${name}`)
  }

  /** Waits until the server is as `wanted` says, and returns it. */
  async waitServer(name: string, wanted: (server: Server) => boolean, seconds = 90): Promise<Server> {
    let last: Server | undefined
    return waitFor(
      `server ${name}`,
      async () => {
        last = await this.server(name)
        return wanted(last) ? last : false
      },
      { seconds, detail: () => JSON.stringify(last) },
    )
  }

  /** Deploys an entry and waits until it serves. */
  async deploy(entry: string, name: string, more: Record<string, unknown> = {}): Promise<Server> {
    await this.send('POST', '/servers', { entry, name, ...more })
    return this.waitServer(name, (server) => server.phase === 'ready')
  }

  /** Deletes a server if it is there, and waits until it is gone. */
  async remove(name: string): Promise<void> {
    const gone = async () => {
      try {
        await this.server(name)
        return false
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) return true
        throw error
      }
    }
    if (await gone()) return
    await this.send('DELETE', `/servers/${name}`)
    await waitFor(`server ${name} is gone`, gone, { seconds: 60 })
  }

  /** A key of a role, as a secret. */
  async createKey(name: string, role: string): Promise<{ id: string; key: string }> {
    return this.send('POST', '/keys', { name, role })
  }
}

/** The value of a session cookie for the person. */
export async function signIn(
  url: string,
  { email, password }: { email: string; password: string } = ADMIN,
): Promise<{ name: string; value: string }> {
  const answer = await fetch(`${url}/api/v1/session`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email, password }),
  })
  const cookie = answer.headers.getSetCookie()[0]?.split(';')[0]
  if (!answer.ok || cookie === undefined)
    throw new Error(`signing in answered ${answer.status}: ${await answer.text()}`)
  const [name = '', value = ''] = cookie.split('=', 2)
  return { name, value }
}

/**
 * A data directory in which `everything` and `time` are deployed, for workers to copy: their packages are installed
 * once, for all tests and for the next run. Made again when the program under test cannot use it.
 */
export async function makeTemplate(): Promise<string> {
  const template = join(cacheDir(), 'template')
  if (existsSync(template) && (await serves(template))) return template
  rmSync(template, { recursive: true, force: true, maxRetries: 5 })
  const toolyard = await Toolyard.start()
  try {
    await Promise.all([toolyard.api.deploy(EVERYTHING, 'everything'), toolyard.api.deploy(TIME, 'time')])
    await toolyard.stop()
    const made = `${template}-${process.pid}`
    await run('cp', ['-a', join(toolyard.dir, 'data'), made])
    renameSync(made, template)
  } finally {
    await toolyard.dispose()
  }
  return template
}

async function serves(template: string): Promise<boolean> {
  let toolyard: Toolyard | undefined
  try {
    toolyard = await Toolyard.start(template)
    await toolyard.waitReady()
    return true
  } catch {
    return false
  } finally {
    await toolyard?.dispose()
  }
}

async function run(command: string, args: string[]): Promise<void> {
  const child = spawn(command, args, { stdio: 'inherit' })
  const code = await new Promise((done) => child.once('exit', done))
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}`)
}
