// The canonical reading of a document: two clients that hold the same document get equal JSON here, whatever order the
// updates came in. Keys are sorted and neighbouring delta parts with equal attributes are joined.
import { createHash } from 'node:crypto'
import * as Y from 'yjs'

export const hexOf = (bytes) => Buffer.from(bytes).toString('hex')
const sha256 = (data) => createHash('sha256').update(data).digest('hex')

/** @param {Y.Doc} doc @param {Record<string, 'text'|'array'|'map'|'xml'>} types */
export function contentOf(doc, types) {
  const roots = {}
  for (const name of Object.keys(types).sort()) roots[name] = READERS[types[name]](doc, name)
  const stateVector = hexOf(Y.encodeStateVector(doc))
  return {
    roots,
    state_vector: stateVector,
    content_hash: sha256(JSON.stringify([roots, stateVector])),
    // Equal bytes are not promised between converged clients: merges of neighbouring structs depend on their order of arrival.
    state_hash: sha256(Y.encodeStateAsUpdate(doc)),
  }
}

const READERS = {
  text: (doc, name) => ({ kind: 'text', string: doc.getText(name).toString(), delta: deltaOf(doc.getText(name)) }),
  array: (doc, name) => ({ kind: 'array', json: sorted(doc.getArray(name).toJSON()), tree: treeOf(doc.getArray(name)) }),
  map: (doc, name) => ({ kind: 'map', json: sorted(doc.getMap(name).toJSON()), tree: treeOf(doc.getMap(name)) }),
  xml: (doc, name) => ({ kind: 'xml', string: doc.getXmlFragment(name).toString(), tree: treeOf(doc.getXmlFragment(name)) }),
}

/** Nested types keep their kind: {$text: delta}, {$array: […]}, {$map: {…}}, {name, attributes, children} for elements. */
export function treeOf(value) {
  if (value instanceof Y.XmlElement) {
    return { name: value.nodeName, attributes: sorted(value.getAttributes()), children: value.toArray().map(treeOf) }
  }
  if (value instanceof Y.XmlFragment) return value.toArray().map(treeOf)
  if (value instanceof Y.Text) return { $text: deltaOf(value) }
  if (value instanceof Y.Array) return { $array: value.toArray().map(treeOf) }
  if (value instanceof Y.Map) return { $map: Object.fromEntries(sortedEntries(value.entries()).map(([k, v]) => [k, treeOf(v)])) }
  return sorted(value)
}

export function deltaOf(text) {
  const parts = []
  for (const part of text.toDelta()) {
    const attributes = part.attributes === undefined ? {} : sorted(part.attributes)
    const last = parts.at(-1)
    const joins = last !== undefined && typeof last.insert === 'string' && typeof part.insert === 'string' &&
      JSON.stringify(last.attributes) === JSON.stringify(attributes)
    if (joins) last.insert += part.insert
    else parts.push({ insert: typeof part.insert === 'string' ? part.insert : treeOf(part.insert), attributes })
  }
  return parts.map(({ insert, attributes }) => (Object.keys(attributes).length > 0 ? { insert, attributes } : { insert }))
}

const sortedEntries = (entries) => [...entries].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))

function sorted(value) {
  if (value instanceof Uint8Array) return { $bytes: hexOf(value) }
  if (typeof value === 'bigint') return { $bigint: String(value) }
  if (Array.isArray(value)) return value.map(sorted)
  if (value === null || typeof value !== 'object') return value === undefined ? null : value
  return Object.fromEntries(sortedEntries(Object.entries(value)).map(([key, item]) => [key, sorted(item)]))
}
