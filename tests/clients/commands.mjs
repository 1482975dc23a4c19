// One JSON command per line on stdin, one JSON answer per line on stdout; driver.py is at the other end. Ends when stdin does.
import { createInterface } from 'node:readline'

// stdout belongs to the answers; the provider warns on the console.
console.log = console.info = console.warn = console.error

/** @param {Record<string, (input: object) => any>} commands by op; each gets the fields of its line */
export function serve(commands) {
  createInterface({ input: process.stdin, crlfDelay: Infinity })
    .on('line', (line) => { if (line.trim() !== '') void handle(commands, line) })
    .on('close', () => process.exit(0))
}

function answer(message) {
  process.stdout.write(JSON.stringify(message) + '\n')
}

async function handle(commands, line) {
  const { id, op, ...input } = JSON.parse(line)
  try {
    if (!Object.hasOwn(commands, op)) throw new Error(`unknown op "${op}"`)
    answer({ id, ok: true, result: (await commands[op](input)) ?? null })
  } catch (error) {
    answer({ id, ok: false, error: error instanceof Error ? error.message : String(error) })
  }
}
