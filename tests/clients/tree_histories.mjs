// Random histories of people who move blocks of a tree about and undo, as Yjs has them. One JSON line for each question:
// {first_seed, count} → [[update (hex), …], …]: the updates in the order in which a server gets them;
// {rows: [update (hex), …]} → {grown, loaded}: what a document says that took these one by one, and one that loads it then.
import { createInterface } from 'node:readline'
import * as Y from 'yjs'
import { hexOf } from './content.mjs'
import { randomFrom } from './random_edits.mjs'

const EDITS = 120

class Person {
  constructor(user, seed) {
    this.doc = new Y.Doc({ gc: seed % 2 === 0 })
    this.doc.clientID = user
    this.root = this.doc.getXmlFragment('x')
    this.undo = new Y.UndoManager(this.root, { trackedOrigins: new Set(['mine']), captureTimeout: 0 })
    this.unsent = []
    this.seen = 0
    this.doc.on('update', (update, origin) => { if (origin !== 'server') this.unsent.push(update) })
  }

  read(rows) {
    for (const row of rows.slice(this.seen)) Y.applyUpdate(this.doc, row, 'server')
    this.seen = rows.length
  }

  edit(random) {
    const below = (number) => Math.floor(random() * number)
    const parents = [this.root]
    for (const parent of parents) parents.push(...parent.toArray())
    this.doc.transact(() => {
      for (let change = below(3); change >= 0; change--) {
        const parent = parents[below(parents.length)]
        if (parent._item?.deleted) continue
        if (random() < 0.65 || parent.length === 0) parent.insert(below(parent.length + 1), [new Y.XmlElement('p')])
        else parent.delete(below(parent.length), 1)
      }
    }, 'mine')
  }
}

function history(seed) {
  const random = randomFrom(seed)
  const people = [1, 2].map((user) => new Person(user, seed))
  const rows = []
  for (let edit = 0; edit < EDITS; edit++) {
    const person = people[Math.floor(random() * people.length)]
    const chosen = random()
    if (chosen < 0.6) person.edit(random)
    else if (chosen < 0.8) person.undo.undo()
    else if (chosen < 0.9) person.undo.redo()
    else person.read(rows)
    rows.push(...person.unsent.splice(0))
  }
  return rows.map(hexOf)
}

function reading(rows) {
  const grown = new Y.Doc()
  for (const row of rows) Y.applyUpdate(grown, Buffer.from(row, 'hex'))
  const loaded = new Y.Doc()
  Y.applyUpdate(loaded, Y.encodeStateAsUpdate(grown))
  return { grown: grown.getXmlFragment('x').toString(), loaded: loaded.getXmlFragment('x').toString() }
}

createInterface({ input: process.stdin }).on('line', (line) => {
  const asked = JSON.parse(line)
  const answer = asked.rows ? reading(asked.rows) : Array.from({ length: asked.count }, (_, place) => history(asked.first_seed + place))
  process.stdout.write(JSON.stringify(answer) + '\n')
})
