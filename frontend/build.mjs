// Writes the two files that the page loads, and nothing else: no source maps, no chunks, no licence file beside them.
import { readdirSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const outdir = fileURLToPath(new URL('../realtime/static/realtime/', import.meta.url))

await build({
  absWorkingDir: fileURLToPath(new URL('.', import.meta.url)),
  entryPoints: { page: 'src/page.ts' },
  outdir,
  bundle: true,
  minify: true,
  format: 'iife',
  target: ['es2022', 'chrome111', 'firefox113', 'safari16.4'],
  charset: 'utf8',
  legalComments: 'none',
  define: { 'process.env.NODE_ENV': '"production"' },
  logLevel: 'warning',
})
await build({
  absWorkingDir: fileURLToPath(new URL('.', import.meta.url)),
  entryPoints: { page: 'src/page.css' },
  outdir,
  bundle: true,
  minify: true,
  charset: 'utf8',
  target: ['chrome111', 'firefox113', 'safari16.4'],
  logLevel: 'warning',
})
for (const name of readdirSync(outdir)) {
  process.stdout.write(`${name} ${statSync(outdir + name).size} bytes\n`)
}
