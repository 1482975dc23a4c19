// A seeded person who edits every root without a plan. Inserts and deletes stand on code point boundaries, so no surrogate
// pair is ever split; the same seed on the same document makes the same edits.
import * as Y from 'yjs'
import { nodeFrom, rootOf, sharedFrom } from './edits.mjs'

const SNIPPETS = ['a', 'e', ' ', 'the ', 'quill', '\n', 'ß', 'ø', '漢字', '😀', '👩‍👩‍👧', 'e\u0301', '𝔘', 'x', 'yz', '. ']
const FORMATS = [{ bold: true }, { bold: null }, { italic: true }, { italic: null }, { link: { href: '/a' } }, { link: null }]
const UNITS_KEPT_MAX = 400
const ITEMS_KEPT_MAX = 24

/** Numbers in [0, 1) from a 32-bit seed (mulberry32). */
export function randomFrom(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** One random edit of one of the roots, in one transaction. */
export function editAtRandom(doc, types, random) {
  const pick = picker(random)
  const name = pick.of(Object.keys(types).sort())
  doc.transact(() => EDITORS[types[name]](rootOf(doc, types, name), pick), 'random')
}

function picker(random) {
  const below = (limit) => Math.floor(random() * limit)
  return { below, of: (list) => list[below(list.length)], chance: (share) => random() < share }
}

/** UTF-16 offsets of the code points of a text and its end; an embed counts one. */
function boundariesOf(text) {
  const offsets = [0]
  let at = 0
  for (const { insert } of text.toDelta()) {
    for (const unit of typeof insert === 'string' ? insert : ['embed']) {
      at += typeof insert === 'string' ? unit.length : 1
      offsets.push(at)
    }
  }
  return offsets
}

function rangeIn(offsets, pick, codePointsMax) {
  const first = pick.below(offsets.length)
  const last = Math.min(offsets.length - 1, first + 1 + pick.below(codePointsMax))
  return { index: offsets[first], length: offsets[last] - offsets[first] }
}

function editText(text, pick) {
  const offsets = boundariesOf(text)
  const full = text.length > UNITS_KEPT_MAX
  if (full || (text.length > 0 && pick.chance(0.25))) {
    const { index, length } = rangeIn(offsets, pick, full ? 80 : 6)
    if (length > 0) text.delete(index, length)
  } else if (text.length > 0 && pick.chance(0.2)) {
    const { index, length } = rangeIn(offsets, pick, 10)
    if (length > 0) text.format(index, length, pick.of(FORMATS))
  } else if (pick.chance(0.05)) {
    text.insertEmbed(pick.of(offsets), { image: `/${pick.below(9)}.png` })
  } else {
    text.insert(pick.of(offsets), pick.of(SNIPPETS), pick.chance(0.2) ? { bold: true } : {})
  }
}

function value(pick, depth = 0) {
  switch (pick.below(depth > 1 ? 5 : 8)) {
    case 0: return pick.below(1000)
    case 1: return pick.of(SNIPPETS)
    case 2: return pick.chance(0.5)
    case 3: return null
    case 4: return { plain: [pick.below(9), pick.of(SNIPPETS)] }
    case 5: return { $array: [value(pick, depth + 1)] }
    case 6: return { $map: { [`k${pick.below(4)}`]: value(pick, depth + 1) } }
    default: return { $text: pick.of(SNIPPETS) }
  }
}

function editNested(values, pick) {
  const nested = values.filter((item) => item instanceof Y.AbstractType)
  if (nested.length === 0 || !pick.chance(0.4)) return false
  const target = pick.of(nested)
  if (target instanceof Y.Text) editText(target, pick)
  else if (target instanceof Y.Array) editArray(target, pick)
  else editMap(target, pick)
  return true
}

function editArray(array, pick) {
  if (editNested(array.toArray(), pick)) return
  if (array.length > ITEMS_KEPT_MAX || (array.length > 0 && pick.chance(0.3))) {
    const index = pick.below(array.length)
    array.delete(index, Math.min(array.length - index, 1 + pick.below(3)))
  } else {
    array.insert(pick.below(array.length + 1), [sharedFrom(value(pick))])
  }
}

function editMap(map, pick) {
  if (editNested([...map.values()], pick)) return
  const key = `k${pick.below(8)}`
  if (map.has(key) && pick.chance(0.3)) map.delete(key)
  else map.set(key, sharedFrom(value(pick)))
}

function block(pick) {
  const heading = pick.chance(0.25)
  return {
    name: heading ? 'heading' : 'paragraph',
    attributes: heading ? { level: String(1 + pick.below(3)) } : pick.chance(0.3) ? { align: 'center' } : {},
    children: [{ text: pick.of(SNIPPETS) + pick.of(SNIPPETS) }],
  }
}

/** What rich-text editors do to their document: type in a block, format, split, retype, remove and add blocks. */
function editXml(fragment, pick) {
  const blocks = fragment.toArray()
  if (blocks.length === 0 || (blocks.length < ITEMS_KEPT_MAX && pick.chance(0.15))) {
    fragment.insert(pick.below(blocks.length + 1), [nodeFrom(block(pick))])
    return
  }
  const index = pick.below(blocks.length)
  const chosen = blocks[index]
  if (blocks.length >= ITEMS_KEPT_MAX || pick.chance(0.12)) fragment.delete(index, 1)
  else if (pick.chance(0.12)) chosen.setAttribute(pick.of(['align', 'level', 'id']), String(pick.below(5)))
  else if (pick.chance(0.05)) chosen.removeAttribute('align')
  else editBlock(fragment, index, chosen, pick)
}

function editBlock(fragment, index, chosen, pick) {
  const text = chosen.toArray().find((child) => child instanceof Y.XmlText)
  if (text === undefined) {
    chosen.insert(0, [nodeFrom({ text: pick.of(SNIPPETS) })])
  } else if (text.length > 1 && pick.chance(0.1)) {
    splitBlock(fragment, index, chosen, text, pick.of(boundariesOf(text)))
  } else {
    editText(text, pick)
  }
}

function splitBlock(fragment, index, chosen, text, at) {
  const tail = text.clone()
  if (at > 0) tail.delete(0, at)
  const next = new Y.XmlElement(chosen.nodeName)
  next.insert(0, [tail])
  if (at < text.length) text.delete(at, text.length - at)
  fragment.insert(index + 1, [next])
}

const EDITORS = { text: editText, array: editArray, map: editMap, xml: editXml }
