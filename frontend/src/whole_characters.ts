// Keeps every local edit on whole characters. CodeMirror's reading of the DOM compares UTF-16 units, so replacing 😀 by 😁
// may become an edit of half a character, which Yjs turns into U+FFFD for good.
import { EditorState, type ChangeSpec, type Extension, type Text } from '@codemirror/state'

const isHigh = (unit: number): boolean => unit >= 0xd800 && unit < 0xdc00
const isLow = (unit: number): boolean => unit >= 0xdc00 && unit < 0xe000

/** True where `at` lies between the two units of one surrogate pair. */
function splitsPair(doc: Text, at: number): boolean {
  if (at <= 0 || at >= doc.length) return false
  const around = doc.sliceString(at - 1, at + 1)
  return isHigh(around.charCodeAt(0)) && isLow(around.charCodeAt(1))
}

/** Widens the changes of the person's own edits, never those that arrive from others. */
export function wholeCharacters(isRemote: (transaction: Parameters<Parameters<typeof EditorState.transactionFilter.of>[0]>[0]) => boolean): Extension {
  return EditorState.transactionFilter.of((transaction) => {
    if (!transaction.docChanged || isRemote(transaction)) return transaction
    const before = transaction.startState.doc
    const changes: ChangeSpec[] = []
    let widened = false
    transaction.changes.iterChanges((fromA, toA, _fromB, _toB, inserted) => {
      const from = splitsPair(before, fromA) ? fromA - 1 : fromA
      const to = splitsPair(before, toA) ? toA + 1 : toA
      widened ||= from !== fromA || to !== toA
      const insert = before.sliceString(from, fromA) + inserted.sliceString(0) + before.sliceString(toA, to)
      changes.push({ from, to, insert })
    }, true)
    if (!widened) return transaction
    return [{
      changes,
      selection: transaction.newSelection,
      effects: transaction.effects,
      scrollIntoView: transaction.scrollIntoView,
    }]
  })
}
