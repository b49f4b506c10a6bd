import { defineConfig } from '@playwright/test'
import type { Engine } from './support/page.ts'

// Playwright asks for a default export here.
export default defineConfig<object, { engine: Engine }>({
  testDir: 'tests',
  outputDir: 'results',
  globalSetup: './support/global-setup.ts',
  forbidOnly: true,
  fullyParallel: false,
  // Whatever passes only at the second time is named in the report.
  retries: 1,
  workers: Number(process.env.TOOLYARD_E2E_WORKERS ?? 2),
  timeout: 60_000,
  expect: { timeout: 10_000 },
  reporter: [['list'], ['./support/report.ts']],
  projects: [
    { name: 'chromium', use: { engine: 'chromium' }, testIgnore: '**/*.others.spec.ts' },
    { name: 'firefox', use: { engine: 'firefox' }, testIgnore: '**/*.chromium.spec.ts', grep: /@main/ },
    { name: 'webkit', use: { engine: 'webkit' }, testIgnore: '**/*.chromium.spec.ts', grep: /@main/ },
  ],
})
