// A reader of the server's differences (docs/protocol.md, Changes), written from the description alone: puts one on a Yjs
// document, or takes it off again by what it says of before.
import * as Y from './yjs.mjs'

/** Makes of what a document said before what it says after. @param {(name: string) => Y.AbstractType} rootOf */
export function putOn(rootOf, changes) {
  for (const [name, nodes] of Object.entries(changes)) for (const node of nodes) edit(at(rootOf(name), node.path), node)
}

/** Makes of what a document said after what it said before. */
export function takeOff(rootOf, changes) {
  for (const [name, nodes] of Object.entries(changes)) {
    for (const node of [...nodes].reverse()) edit(at(rootOf(name), node.path), inverse(node))
  }
}

function at(node, path) {
  for (const step of path) {
    if (node instanceof Y.Map) node = node.get(step)
    else if (node instanceof Y.Text) node = embedAt(node, step)
    else node = node.toArray()[step]
  }
  if (!(node instanceof Y.AbstractType)) throw new Error(`nothing shared at ${JSON.stringify(path)}`)
  return node
}

function embedAt(text, offset) {
  let before = 0
  for (const { insert } of text.toDelta()) {
    if (before === offset && typeof insert !== 'string') return insert
    before += typeof insert === 'string' ? insert.length : 1
  }
}

const TYPES = [[Y.XmlText, 'xmltext'], [Y.Text, 'text'], [Y.Array, 'array'], [Y.Map, 'map'], [Y.XmlElement, 'element'], [Y.XmlFragment, 'fragment']]

function edit(target, { path, type, spans = [], keys = {} }) {
  const is = TYPES.find(([constructor]) => target instanceof constructor)[1]
  if (is !== type) throw new Error(`at ${JSON.stringify(path)} is ${is}, not ${type}`)
  if (target instanceof Y.Text) target.applyDelta(spans.map(deltaStep))
  else editItems(target, spans)
  for (const [key, change] of Object.entries(keys)) editKey(target, key, change)
}

function deltaStep({ retain, insert, delete: deleted, attributes }) {
  if (insert !== undefined) return { insert: shared(insert), attributes }
  if (deleted !== undefined) return { delete: deleted }
  return attributes === undefined ? { retain } : { retain, attributes }
}

function editItems(target, spans) {
  let index = 0
  for (const { retain, insert, delete: deleted } of spans) {
    if (insert !== undefined) target.insert(index, insert.map(shared))
    if (deleted !== undefined) target.delete(index, deleted)
    else index += insert === undefined ? retain : insert.length
  }
  if (index > target.length) throw new Error('a difference reaches past the end')
}

/** A key that came has no old value, one that went no new one. */
function editKey(target, key, change) {
  const had = target instanceof Y.Map ? target.has(key) : target.getAttributes()[key] !== undefined
  if (had !== 'old' in change) throw new Error(`${key} ${had ? 'was' : 'was not'} there`)
  if (target instanceof Y.Map) 'new' in change ? target.set(key, shared(change.new)) : target.delete(key)
  else 'new' in change ? target.setAttribute(key, plain(change.new)) : target.removeAttribute(key)
}

function inverse({ path, type, spans = [], keys = {} }) {
  return {
    path,
    type,
    spans: spans.flatMap(inverseSpan),
    keys: Object.fromEntries(Object.entries(keys).map(([key, change]) => [key, swapped(change)])),
  }
}

function inverseSpan(span) {
  if ('insert' in span) return [{ delete: typeof span.insert === 'string' || Array.isArray(span.insert) ? span.insert.length : 1 }]
  if ('delete' in span) return span.was.length > 0 && isRun(span.was[0]) ? span.was : [{ insert: span.was }]
  return 'attributes' in span ? [{ retain: span.retain, attributes: span.was }] : [span]
}

const isRun = (item) => item !== null && typeof item === 'object' && 'insert' in item && 'attributes' in item

const swapped = (change) => ({ ...('new' in change && { old: change.new }), ...('old' in change && { new: change.old }) })

/** A tree of the server's as the shared type or the plain value that it tells of. */
function shared(tree) {
  switch (tree?.type) {
    case 'text': return textOf(new Y.Text(), tree)
    case 'xmltext': return withAttributes(textOf(new Y.XmlText(), tree), tree)
    case 'array': return Y.Array.from(tree.items.map(shared))
    case 'map': return new Y.Map(Object.entries(tree.entries).map(([key, item]) => [key, shared(item)]))
    case 'fragment': return withChildren(new Y.XmlFragment(), tree)
    case 'element': return withAttributes(withChildren(new Y.XmlElement(tree.tag), tree), tree)
    case 'json': return plain(tree.value)
    default: return plain(tree)
  }
}

function textOf(text, { delta }) {
  text.applyDelta(delta.map(({ insert, attributes }) => ({ insert: shared(insert), attributes })))
  return text
}

function withChildren(node, { children }) {
  node.insert(0, children.map(shared))
  return node
}

function withAttributes(node, { attributes }) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, plain(value))
  return node
}

function plain(value) {
  if (Array.isArray(value)) return value.map(plain)
  if (value === null || typeof value !== 'object') return value
  if ('$bytes' in value) return new Uint8Array(Buffer.from(value.$bytes, 'base64'))
  if ('$number' in value) return Number(value.$number.replace('inf', 'Infinity'))
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]))
}
