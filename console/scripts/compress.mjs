// Writes a .br and a .gz beside each file of dist that is worth it; the server sends them as they are.
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'

const dist = join(import.meta.dirname, '../dist')
const COMPRESSIBLE = new Set(['.html', '.js', '.css', '.svg', '.json', '.webmanifest', '.txt'])
// Below this the headers weigh more than what is saved.
const SMALLEST_BYTES = 256

let files = 0
let raw = 0
let small = 0
for (const entry of await readdir(dist, { recursive: true, withFileTypes: true })) {
  const path = join(entry.parentPath, entry.name)
  if (!entry.isFile() || ['.br', '.gz'].includes(extname(path))) continue
  if (!COMPRESSIBLE.has(extname(path))) continue
  const bytes = await readFile(path)
  if (bytes.length < SMALLEST_BYTES) continue
  const brotli = brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
  })
  await write(`${path}.br`, brotli, bytes)
  await write(`${path}.gz`, gzipSync(bytes, { level: 9 }), bytes)
  files += 1
  raw += bytes.length
  small += brotli.length
}
console.log(`compressed ${files} files: ${raw} bytes, ${small} as brotli`)

async function write(path, compressed, bytes) {
  if (compressed.length < bytes.length) await writeFile(path, compressed)
  else await rm(path, { force: true })
}
