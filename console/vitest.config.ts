import { defineConfig } from 'vitest/config'

// Its own file: unit tests need neither the router's plugin nor the styles. One that renders asks for its environment.
export default defineConfig({
  resolve: { alias: { '@': `${import.meta.dirname}/src` } },
  test: { include: ['src/**/*.test.{ts,tsx}'], environment: 'node' },
})
