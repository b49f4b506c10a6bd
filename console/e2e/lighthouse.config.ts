import { defineConfig } from '@playwright/test'

// Playwright asks for a default export here.
export default defineConfig({
  testDir: 'lighthouse',
  testMatch: 'lighthouse.spec.ts',
  outputDir: 'lighthouse/results/tests',
  globalSetup: './support/global-setup.ts',
  forbidOnly: true,
  retries: 0,
  workers: 1,
  timeout: 240_000,
  reporter: 'list',
})
