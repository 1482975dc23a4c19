// Named edits, one per action: {root, path?, do, …}. Indexes and lengths are UTF-16 units, as everywhere in Yjs.
import * as Y from 'yjs'

/** @param {Y.Doc} doc @param {Record<string, string>} types @param {Array<object>} actions in one transaction */
export function applyActions(doc, types, actions) {
  doc.transact(() => {
    for (const action of actions) perform(targetOf(doc, types, action), action)
  }, 'edit')
}

export function rootOf(doc, types, name) {
  switch (types[name]) {
    case 'text': return doc.getText(name)
    case 'array': return doc.getArray(name)
    case 'map': return doc.getMap(name)
    case 'xml': return doc.getXmlFragment(name)
    default: throw new Error(`no root "${name}" among ${JSON.stringify(types)}`)
  }
}

/** Steps of `path` from the root: a number goes into an array or an XML node, a string into a map. */
function targetOf(doc, types, { root, path = [] }) {
  let target = rootOf(doc, types, root)
  for (const step of path) {
    target = target.get(step)
    if (!(target instanceof Y.AbstractType)) throw new Error(`nothing shared at ${JSON.stringify([root, ...path])}`)
  }
  return target
}

function perform(target, action) {
  const kind = kindOf(target)
  const act = ACTIONS[kind][action.do]
  if (act === undefined) throw new Error(`no action "${action.do}" on ${kind}; there are ${Object.keys(ACTIONS[kind])}`)
  act(target, action)
}

function kindOf(target) {
  if (target instanceof Y.Text) return 'text'
  if (target instanceof Y.XmlFragment) return 'xml'
  if (target instanceof Y.Array) return 'array'
  return 'map'
}

const ACTIONS = {
  text: {
    // No attributes means none: without the empty object Yjs inherits those to the left.
    insert: (text, { index, text: inserted, attributes }) => text.insert(index, inserted, attributes ?? {}),
    append: (text, { text: inserted, attributes }) => text.insert(text.length, inserted, attributes ?? {}),
    delete: (text, { index, length }) => text.delete(index, length),
    format: (text, { index, length, attributes }) => text.format(index, length, attributes),
    // Nobody's edit comes between the look and the edit: `where` is from 0 to 1, and of the ASCII letters behind it at
    // most `letters` go.
    type_over: (text, { where, letters, text: inserted }) => {
      const characters = [...text.toString()]
      const start = Math.round(where * characters.length)
      const index = characters.slice(0, start).join('').length
      let length = 0
      while (length < letters && /[a-z]/.test(characters[start + length] ?? '')) length += 1
      text.delete(index, length)
      text.insert(index, inserted, {})
    },
    embed: (text, { index, embed, attributes }) => text.insertEmbed(index, embed, attributes ?? {}),
  },
  array: {
    insert: (array, { index, values }) => array.insert(index, values.map(sharedFrom)),
    push: (array, { values }) => array.push(values.map(sharedFrom)),
    delete: (array, { index, length = 1 }) => array.delete(index, length),
  },
  map: {
    set: (map, { key, value }) => map.set(key, sharedFrom(value)),
    delete: (map, { key }) => map.delete(key),
  },
  xml: {
    insert: (xml, { index, nodes }) => xml.insert(index, nodes.map(nodeFrom)),
    push: (xml, { nodes }) => xml.insert(xml.length, nodes.map(nodeFrom)),
    delete: (xml, { index, length = 1 }) => xml.delete(index, length),
    set_attribute: (xml, { name, value }) => xml.setAttribute(name, value),
    remove_attribute: (xml, { name }) => xml.removeAttribute(name),
  },
}

/** JSON stays JSON; {$array: […]}, {$map: {…}} and {$text: "…" or a delta} become nested shared types. */
export function sharedFrom(value) {
  if (value === null || typeof value !== 'object') return value
  if ('$array' in value) return Y.Array.from(value.$array.map(sharedFrom))
  if ('$map' in value) return new Y.Map(Object.entries(value.$map).map(([key, item]) => [key, sharedFrom(item)]))
  if ('$text' in value) return textFrom(new Y.Text(), value.$text)
  return value
}

/** {text: "…" or a delta} is a Y.XmlText; {name, attributes?, children?} a Y.XmlElement. */
export function nodeFrom(node) {
  if ('text' in node) return textFrom(new Y.XmlText(), node.text)
  const element = new Y.XmlElement(node.name)
  for (const [name, value] of Object.entries(node.attributes ?? {})) element.setAttribute(name, value)
  if (node.children !== undefined) element.insert(0, node.children.map(nodeFrom))
  return element
}

function textFrom(text, content) {
  if (typeof content === 'string') text.insert(0, content)
  else text.applyDelta(content)
  return text
}
