// Random histories of people who edit emoji carelessly, as Yjs has them: `node emoji_histories.mjs <first seed> <how many>`
// writes one JSON line for each, {seed, rows: [{user, update, text, delta, clocks}]}: the updates (hex) in the order in which
// a server gets them, and what a Yjs document says that has taken the rows so far.
import * as Y from 'yjs'
import { deltaOf, hexOf } from './content.mjs'
import { editEmojiAtRandom } from './emoji_edits.mjs'
import { randomFrom } from './random_edits.mjs'

const EDITS = 40

class Person {
  constructor(user, seed) {
    this.user = user
    this.doc = new Y.Doc({ gc: seed % 2 === 0 })
    this.doc.clientID = user
    this.text = this.doc.getText('t')
    this.undo = new Y.UndoManager(this.text, { trackedOrigins: new Set([null]), captureTimeout: 0 })
    this.unsent = []
    this.seen = 0
    this.offline = false
    this.doc.on('update', (update, origin) => { if (origin !== 'server') this.unsent.push(update) })
  }

  read(rows) {
    for (const row of rows.slice(this.seen)) Y.applyUpdate(this.doc, row.update, 'server')
    this.seen = rows.length
  }

  /** What goes to the server: each edit, or all of a burst in one. */
  send(random) {
    const updates = this.unsent.length > 1 && random() < 0.5 ? [Y.mergeUpdates(this.unsent)] : this.unsent
    this.unsent = []
    return updates.map((update) => ({ user: this.user, update }))
  }
}

function history(seed) {
  const random = randomFrom(seed)
  const people = [1, 2, 3].map((user) => new Person(user, seed))
  const rows = []
  for (let edit = 0; edit < EDITS; edit++) {
    const person = people[Math.floor(random() * people.length)]
    if (random() < 0.15) person.offline = !person.offline
    if (!person.offline && random() < 0.7) person.read(rows)
    if (random() < 0.12 && person.undo.canUndo()) person.undo.undo()
    else editEmojiAtRandom(person.text, random, { mayBreak: true })
    if (!person.offline) rows.push(...person.send(random))
  }
  for (const person of people) rows.push(...person.send(random))
  return rows
}

const [first, count] = process.argv.slice(2).map(Number)
for (let seed = first; seed < first + count; seed++) {
  const yjs = new Y.Doc()
  const rows = history(seed).map(({ user, update }) => {
    Y.applyUpdate(yjs, update)
    const clocks = Object.fromEntries(Y.decodeStateVector(Y.encodeStateVector(yjs)))
    return { user, update: hexOf(update), text: yjs.getText('t').toString(), delta: deltaOf(yjs.getText('t')), clocks }
  })
  process.stdout.write(JSON.stringify({ seed, rows }) + '\n')
}
