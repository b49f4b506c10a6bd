/** One WebKitGTK MiniBrowser under a virtual screen of its own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { Builder, Capabilities, type WebDriver } from 'selenium-webdriver'
import { freePort } from './toolyard.ts'
import { waitFor } from './wait.ts'

export interface WebKit {
  driver: WebDriver
  version: string
  close(): Promise<void>
}

export async function startWebKit(): Promise<WebKit> {
  const screen = spawn('Xvfb', ['-displayfd', '3', '-screen', '0', '2700x1700x24', '-nolisten', 'tcp'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  })
  const display = await new Promise<string>((found, failed) => {
    const output = screen.stdio[3]
    if (output === null || output === undefined || !('on' in output))
      throw new Error('Xvfb has no third output')
    output.on('data', (bytes: Buffer) => found(`:${bytes.toString().trim()}`))
    screen.once('error', failed)
    screen.once('exit', (code) => failed(new Error(`Xvfb ended with ${code}`)))
  })
  const port = await freePort()
  const service = spawn('WebKitWebDriver', [`--port=${port}`, '--host=127.0.0.1'], {
    env: { ...process.env, DISPLAY: display, GDK_BACKEND: 'x11' },
    stdio: 'ignore',
  })
  const url = `http://127.0.0.1:${port}`
  await waitFor('WebKitWebDriver answers', async () => (await fetch(`${url}/status`)).ok, { seconds: 20 })
  const driver = await new Builder()
    .usingServer(url)
    .withCapabilities(
      new Capabilities({
        browserName: 'MiniBrowser',
        'webkitgtk:browserOptions': { binary: miniBrowser(), args: ['--automation'] },
      }),
    )
    .build()
  await driver.manage().setTimeouts({ script: 30_000, pageLoad: 30_000 })
  const capabilities = await driver.getCapabilities()
  return {
    driver,
    version: capabilities.getBrowserVersion() ?? 'unknown',
    close: async () => {
      await driver.quit()
      for (const child of [service, screen]) await end(child)
    },
  }
}

function miniBrowser(): string {
  const library = '/usr/lib'
  for (const architecture of readdirSync(library)) {
    const path = `${library}/${architecture}/webkit2gtk-4.1/MiniBrowser`
    if (existsSync(path)) return path
  }
  throw new Error('no MiniBrowser; on Debian: apt-get install webkit2gtk-driver')
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((done) => child.once('exit', done))
  child.kill()
  await ended
}
