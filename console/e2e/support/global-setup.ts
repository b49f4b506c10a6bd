/** Installs the real MCP servers once, before the workers start. */
import { makeTemplate } from './toolyard.ts'

// Playwright asks for a default export here.
export default async function globalSetup(): Promise<void> {
  process.env.TOOLYARD_E2E_TEMPLATE = await makeTemplate()
}
