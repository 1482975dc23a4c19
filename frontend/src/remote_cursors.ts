// The carets and selections of the other people. Not y-codemirror.next's own plugin: that one writes colours received from
// peers into style attributes, which a strict Content-Security-Policy blocks and a hostile peer could abuse.
import { Annotation, type Extension } from '@codemirror/state'
import { Decoration, EditorView, ViewPlugin, WidgetType, type DecorationSet, type PluginValue, type ViewUpdate } from '@codemirror/view'
import type { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { colourOf, translucent } from './colours'
import { nameOf, presentColours } from './people'

interface RemoteCursor {
  readonly name: string
  readonly colour: string
  readonly from: number
  readonly to: number
  readonly head: number
  readonly place: string
}

const cursorsMoved = Annotation.define<true>()

class CaretWidget extends WidgetType {
  /** `place` is the relative position as text: while it stays the element does, and its name tag fades. */
  constructor(private readonly name: string, private readonly colour: string, private readonly place: string) {
    super()
  }

  override toDOM(): HTMLElement {
    const caret = document.createElement('span')
    caret.className = 'remote-caret'
    caret.style.setProperty('--person', this.colour)
    caret.ariaHidden = 'true'
    const label = caret.appendChild(document.createElement('span'))
    label.className = 'remote-caret-name'
    label.textContent = this.name
    return caret
  }

  override eq(other: CaretWidget): boolean {
    return other.name === this.name && other.colour === this.colour && other.place === this.place
  }

  override ignoreEvent(): boolean {
    return true
  }
}

class RemoteCursors implements PluginValue {
  decorations: DecorationSet = Decoration.none
  private readonly onAwareness: (change: { added: number[]; updated: number[]; removed: number[] }) => void

  constructor(view: EditorView, private readonly text: Y.Text, private readonly awareness: Awareness) {
    this.onAwareness = ({ added, updated, removed }) => {
      const own = this.awareness.clientID
      if ([...added, ...updated, ...removed].some((id) => id !== own)) {
        view.dispatch({ annotations: cursorsMoved.of(true) })
      }
    }
    this.awareness.on('change', this.onAwareness)
    this.decorations = this.draw(view)
  }

  destroy(): void {
    this.awareness.off('change', this.onAwareness)
  }

  update(update: ViewUpdate): void {
    this.publishOwn(update.view)
    const moved = update.transactions.some((transaction) => transaction.annotation(cursorsMoved))
    if (update.docChanged || moved) this.decorations = this.draw(update.view)
  }

  /** Others see where this person writes while the editor has the focus; the last place stays when it is lost. */
  private publishOwn(view: EditorView): void {
    const state = this.awareness.getLocalState()
    if (state === null || !view.hasFocus) return
    const { anchor, head } = view.state.selection.main
    const cursor = {
      anchor: Y.createRelativePositionFromTypeIndex(this.text, anchor),
      head: Y.createRelativePositionFromTypeIndex(this.text, head),
    }
    if (JSON.stringify(state['cursor']) !== JSON.stringify(cursor)) this.awareness.setLocalStateField('cursor', cursor)
  }

  private draw(view: EditorView): DecorationSet {
    const cursors: RemoteCursor[] = []
    const colours = presentColours(this.awareness)
    for (const [client, state] of this.awareness.getStates()) {
      const cursor = client === this.awareness.clientID ? null : this.read(state, colours, view.state.doc.length)
      if (cursor !== null) cursors.push(cursor)
    }
    return decorate(cursors)
  }

  /** A peer may send anything as its cursor: whatever cannot be read is not shown. */
  private read(state: Record<string, unknown>, colours: ReadonlyMap<string, string>, length: number): RemoteCursor | null {
    const cursor = state['cursor'] as { anchor?: unknown; head?: unknown } | null | undefined
    if (cursor?.anchor == null || cursor.head == null) return null
    try {
      const anchor = this.indexOf(cursor.anchor)
      const head = this.indexOf(cursor.head)
      if (anchor === null || head === null || Math.max(anchor, head) > length) return null
      const name = nameOf(state)
      const [from, to] = [Math.min(anchor, head), Math.max(anchor, head)]
      return { name, colour: colours.get(name) ?? colourOf(name), from, to, head, place: JSON.stringify(cursor.head) }
    } catch {
      return null
    }
  }

  private indexOf(position: unknown): number | null {
    const doc = this.text.doc
    if (doc === null) return null
    const absolute = Y.createAbsolutePositionFromRelativePosition(Y.createRelativePositionFromJSON(position), doc)
    return absolute?.type === this.text ? absolute.index : null
  }
}

function decorate(cursors: readonly RemoteCursor[]): DecorationSet {
  const ranges = cursors.flatMap(({ name, colour, from, to, head, place }) => {
    // side: the caret stands outside its own selection.
    const caret = Decoration.widget({ widget: new CaretWidget(name, colour, place), side: head === to && from !== to ? -1 : 1 }).range(head)
    if (from === to) return [caret]
    const style = `background-color: ${translucent(colour)}`
    return [Decoration.mark({ class: 'remote-selection', attributes: { style } }).range(from, to), caret]
  })
  return Decoration.set(ranges, true)
}

export function remoteCursors(text: Y.Text, awareness: Awareness): Extension {
  return ViewPlugin.define((view) => new RemoteCursors(view, text, awareness), { decorations: (plugin) => plugin.decorations })
}
