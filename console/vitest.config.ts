import { defineConfig } from 'vitest/config'

// Its own file: unit tests are of pure logic and need neither the router's plugin nor the styles.
export default defineConfig({
  resolve: { alias: { '@': `${import.meta.dirname}/src` } },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
})
