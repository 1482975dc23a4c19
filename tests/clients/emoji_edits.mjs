// Careless edits of a text full of emoji: offsets are UTF-16 units of any kind, so that surrogate pairs are cut in two, as
// editors do that put a plain difference of two strings into Yjs. The same seed on the same text makes the same edits.
const EMOJI = ['😀', '😁', '🙂', '👩‍👩‍👧', '𝔘', '🇩🇪', 'a', 'ß', '漢', 'e\u0301', '😀😁']
const FORMATS = [{ bold: true }, { bold: null }, { italic: true }]
const UNITS_KEPT_MAX = 60

/** One random edit of a Y.Text, in one transaction. Only where `mayBreak` are there edits that Yjs shows to nobody but who
    makes them: lone surrogates, and formats that change nothing and still cut the writer's own copy. */
export function editEmojiAtRandom(text, random, { mayBreak }) {
  const below = (limit) => Math.floor(random() * limit)
  const said = text.toString()
  const choice = random()
  if (said.length > UNITS_KEPT_MAX) text.delete(below(said.length - 20), 20)
  else if (said.length < 4 || choice < 0.35) text.insert(below(said.length + 1), EMOJI[below(EMOJI.length)])
  else if (choice < 0.55) text.delete(below(said.length), 1)
  else if (choice < 0.65) text.format(below(said.length - 1), 1 + below(2), mayBreak ? FORMATS[below(FORMATS.length)] : { mark: below(2 ** 30) })
  else replace(text, said, anotherEmojiIn(said, below), mayBreak)
}

function anotherEmojiIn(said, below) {
  const letters = [...said]
  letters[below(letters.length)] = EMOJI[below(EMOJI.length)]
  return letters.join('')
}

/** The naive difference: what two strings share at both ends, counted in UTF-16 units, stays. */
function replace(text, before, after, mayBreak) {
  const shared = Math.min(before.length, after.length)
  let start = 0
  while (start < shared && before[start] === after[start]) start++
  let end = 0
  while (end < shared - start && before[before.length - 1 - end] === after[after.length - 1 - end]) end++
  const inserted = after.slice(start, after.length - end)
  text.doc.transact(() => {
    if (before.length - end > start) text.delete(start, before.length - end - start)
    if (inserted !== '') text.insert(start, mayBreak ? inserted : inserted.toWellFormed())
  })
}
