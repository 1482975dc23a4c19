// Real Yjs for the fuzz: records what people's editors send, and judges what the server let through. One JSON object a
// line in, {result} or {error} a line out, in the same order.
import { createInterface } from 'node:readline'
import { putOn, takeOff } from '../clients/changes.mjs'
import { randomFrom, editAtRandom } from '../clients/random_edits.mjs'
import * as Y from '../clients/yjs.mjs'

console.log = console.info = console.warn = console.error // stdout belongs to the answers

const ROOTS = { t: 'text', a: 'array', m: 'map', x: 'xml' }
// ---- recording ----

/** Histories of several people on all kinds of roots; each is the rows in the order in which a server would get them. */
function record({ seed, histories, edits }) {
  return Array.from({ length: histories }, (_, number) => recordOne(randomFrom(seed * 1000 + number), edits, number))
}

function recordOne(random, edits, number) {
  const below = (limit) => Math.floor(random() * limit)
  const splits = number % 8 === 7
  const people = Array.from({ length: 2 + below(3) }, () => person(below, number % 3 === 0))
  const rows = []
  const say = (update) => rows.push(Buffer.from(update).toString('hex'))
  for (let made = 0; made < edits; made++) {
    const who = people[below(people.length)]
    if (!who.offline) catchUp(who, rows)
    edit(who, random, below, splits)
    if (who.offline ? random() < 0.15 : random() < 0.05) {
      // Home again: one SyncStep2 with all that was written meanwhile, or the first half of a tab's life offline.
      if (who.offline) {
        say(Y.encodeStateAsUpdate(who.doc, who.sent))
        who.outbox.length = 0
      }
      who.offline = !who.offline
    }
    if (!who.offline) {
      for (const update of who.outbox.splice(0)) say(update)
      who.sent = Y.encodeStateVector(who.doc)
    }
  }
  for (const who of people) for (const update of who.outbox.splice(0)) say(update)
  return { rows, splits }
}

function person(below, keepsDeleted) {
  const doc = new Y.Doc({ gc: !keepsDeleted })
  doc.clientID = below(4) === 0 ? 1 + below(1000) : below(2 ** 32)
  const types = [doc.getText('t'), doc.getArray('a'), doc.getMap('m'), doc.getXmlFragment('x'), doc.getArray('oddA'), doc.getMap('oddM')]
  const undo = new Y.UndoManager(types, { captureTimeout: 0, trackedOrigins: new Set(['random', null]) })
  const who = { doc, undo, outbox: [], seen: 0, offline: false, sent: Y.encodeStateVector(doc) }
  doc.on('update', (update, origin) => origin !== 'server' && who.outbox.push(update))
  return who
}

function catchUp(who, rows) {
  for (; who.seen < rows.length; who.seen++) Y.applyUpdate(who.doc, Buffer.from(rows[who.seen], 'hex'), 'server')
}

function edit(who, random, below, splits) {
  const choice = random()
  if (choice < 0.08) who.undo.undo()
  else if (choice < 0.12) who.undo.redo()
  else if (choice < 0.3) who.doc.transact(() => unusual(who.doc, below, splits))
  else editAtRandom(who.doc, ROOTS, random)
}

/** What the random person of the client tests does not do: odd values, types in odd places, split emoji, long runs. */
function unusual(doc, below, splits) {
  const text = doc.getText('t')
  const array = doc.getArray('oddA') // the random person of the client tests expects no XML in its own
  const map = doc.getMap('oddM')
  const xml = doc.getXmlFragment('x')
  switch (below(splits ? 12 : 10)) {
    case 0: return array.insert(below(array.length + 1), [new Uint8Array([1, 2, 255]), 1.5, -7, 2 ** 40, { u: undefined, big: 12345678901n, deep: [[{}]] }])
    case 1: return map.set(`k${below(8)}`, new Y.XmlElement('p'))
    case 2: return text.insertEmbed(0, new Y.Map([['e', below(9)]]), { bold: true })
    case 3: return xml.insert(0, [nested(below, 4)])
    case 4: return array.insert(0, [new Y.Array(), new Y.XmlText('in an array'), new Y.XmlFragment()])
    case 5: return map.set('sub', new Y.Text('nested text'))
    case 6: return map.get('sub') instanceof Y.Text ? map.get('sub').insert(0, 'more ', { italic: true }) : undefined
    case 7: return text.insert(0, 'a long run of text that others will cut in many places ')
    case 8: return array.delete(0, array.length)
    case 9: return text.applyDelta([{ retain: Math.min(3, text.length) }, { insert: 'Δ', attributes: { link: { href: '/b' } } }])
    default: {
      const at = text.toString().indexOf('\ud83d')
      if (at < 0) return text.insert(0, '😀😁')
      return below(2) === 0 ? text.delete(at + 1, 1) : text.insert(at + 1, '!')
    }
  }
}

function nested(below, depth) {
  const element = new Y.XmlElement(['ul', 'li', 'p'][below(3)])
  element.setAttribute('level', String(below(4)))
  element.insert(0, depth > 0 && below(4) > 0 ? [nested(below, depth - 1)] : [new Y.XmlText('leaf')])
  return element
}

// ---- judging ----

// Yjs takes format marks out that mark nothing any more as soon as it hears of a change, and says so to the server as an
// edit of its own. Here nobody would hear it: the documents are compared as they were told, so it must not tidy up.
let judging = false
const formatted = new WeakSet()
Object.defineProperty(Y.Text.prototype, '_hasFormatting', {
  get() { return !judging && formatted.has(this) },
  set(has) { has ? formatted.add(this) : formatted.delete(this) },
})

/** What Yjs makes of each episode: as told row by row, and as loaded from the server's snapshot. */
function judge({ episodes }) {
  judging = true
  const judged = episodes.map(judgeOne)
  judging = false
  return judged
}

function judgeOne({ rows, snapshot, kinds }) {
  try {
    const live = documentOf(rows)
    const loaded = documentOf([snapshot])
    return { live: reading(live, kinds), loaded: reading(loaded, kinds) }
  } catch (error) {
    return { error: String(error?.stack ?? error) }
  }
}

function documentOf(updates) {
  const doc = new Y.Doc()
  for (const update of updates) Y.applyUpdate(doc, Buffer.from(update, 'hex'))
  if (doc.store.pendingStructs !== null || doc.store.pendingDs !== null) throw new Error('something is pending')
  return doc
}

function reading(doc, kinds) {
  const trees = {}
  for (const [name, kind] of Object.entries(kinds)) {
    const tree = treeOf(GETTERS[kind](doc, name))
    if (Object.values(tree).some((part) => typeof part === 'object' && Object.keys(part).length > 0)) trees[name] = tree
  }
  return { trees, state_vector: Buffer.from(Y.encodeStateVector(doc)).toString('hex') }
}

const GETTERS = {
  text: (doc, name) => doc.getText(name),
  array: (doc, name) => doc.getArray(name),
  map: (doc, name) => doc.getMap(name),
  xml: (doc, name) => doc.getXmlFragment(name),
}

/** The tree of `history.crdt.content`. */
function treeOf(value) {
  if (value instanceof Y.XmlText) return { type: 'xmltext', delta: deltaOf(value), attributes: plain(value.getAttributes()) }
  if (value instanceof Y.Text) return { type: 'text', delta: deltaOf(value) }
  if (value instanceof Y.Array) return { type: 'array', items: value.toArray().map(treeOf) }
  if (value instanceof Y.Map) return { type: 'map', entries: Object.fromEntries([...value.entries()].map(([k, v]) => [k, treeOf(v)])) }
  if (value instanceof Y.XmlElement) {
    return { type: 'element', tag: value.nodeName, attributes: plain(value.getAttributes()), children: value.toArray().map(treeOf) }
  }
  if (value instanceof Y.XmlFragment) return { type: 'fragment', children: value.toArray().map(treeOf) }
  const isPlain = value !== null && typeof value === 'object' && !(value instanceof Uint8Array)
  return isPlain ? { type: 'json', value: plain(value) } : plain(value)
}

function deltaOf(text) {
  return text.toDelta().map(({ insert, attributes = {} }) => ({ insert: treeOf(insert), attributes: plain(attributes) }))
}

/** Numbers go as what they are, with their 64 bits, since JSON has several ways to write one. */
function plain(value) {
  if (typeof value === 'number') return numberOf(value)
  if (typeof value === 'bigint') return numberOf(Number(value))
  if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString('base64') }
  if (value instanceof Y.AbstractType) return { $unreadable: 'type' }
  if (Array.isArray(value)) return value.map(plain)
  if (value === null || value === undefined || typeof value !== 'object') return value ?? null
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]))
}

function numberOf(value) {
  const bits = Buffer.alloc(8)
  bits.writeDoubleBE(Number.isNaN(value) ? NaN : value + 0)
  return { $number: bits.toString('hex') }
}

// ---- differences ----

/** What each difference makes of the content of before, and taken off again of that of after, beside both as they are. */
function change({ differences }) {
  judging = true
  const changed = differences.map(changeOne)
  judging = false
  return changed
}

function changeOne({ before, after, kinds, changes }) {
  const said = (updates, edit) => {
    const doc = documentOf(updates)
    edit?.((name) => GETTERS[kinds[name]](doc, name), changes)
    return reading(doc, kinds).trees
  }
  try {
    return { before: said(before), after: said(after), put_on: said(before, putOn), taken_off: said(after, takeOff) }
  } catch (error) {
    return { error: String(error?.stack ?? error) }
  }
}

// ---- the conversation ----

const OPS = { record, judge, change }

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const { op, ...fields } = JSON.parse(line)
  let answer
  try {
    answer = { result: OPS[op](fields) }
  } catch (error) {
    answer = { error: String(error?.stack ?? error) }
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
