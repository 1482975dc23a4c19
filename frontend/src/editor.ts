// The CodeMirror editor over one shared text. It lives in a shadow root: there CodeMirror puts its rules into constructed
// style sheets, which `style-src 'self'` allows, where a <style> element would need a nonce.
import { defaultKeymap } from '@codemirror/commands'
import { highlightSelectionMatches, search, searchKeymap } from '@codemirror/search'
import { Compartment, EditorState } from '@codemirror/state'
import { drawSelection, dropCursor, EditorView, highlightSpecialChars, keymap, placeholder } from '@codemirror/view'
import { yCollab, ySyncAnnotation, yUndoManagerKeymap } from 'y-codemirror.next'
import type { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { remoteCursors } from './remote_cursors'
import { wholeCharacters } from './whole_characters'

export interface PageEditor {
  readonly undoManager: Y.UndoManager
  setWritable(writable: boolean): void
  setPlaceholder(words: string): void
  focus(): void
}

function barHeight(): number {
  return document.querySelector<HTMLElement>('.bar')?.offsetHeight ?? 0
}

const theme = EditorView.theme({
  '&': { color: 'var(--ink)', backgroundColor: 'transparent', fontSize: 'var(--text-size)' },
  '&.cm-focused': { outline: 'none' },
  '.cm-scroller': { fontFamily: 'var(--text-font)', lineHeight: '1.7', overflow: 'visible' },
  '.cm-content': { padding: '2rem 0 40vh', caretColor: 'var(--accent)' },
  '.cm-line': { padding: '0 2px' },
  '.cm-cursor, .cm-dropCursor': { borderLeft: '2px solid var(--accent)', marginLeft: '-1px' },
  '.cm-placeholder': { color: 'var(--faint)', fontStyle: 'italic' },
  '&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground': {
    background: 'var(--selection)',
  },
  '.cm-selectionMatch': { backgroundColor: 'var(--match)' },
  '.cm-searchMatch': { backgroundColor: 'var(--match)', outline: '1px solid var(--line)' },
  '.cm-panels': { backgroundColor: 'var(--raised)', color: 'var(--ink)', borderColor: 'var(--line)', fontFamily: 'var(--ui-font)' },
  '.cm-textfield, .cm-button': {
    background: 'var(--paper)', color: 'var(--ink)', border: '1px solid var(--line)', borderRadius: '4px',
  },
  '.remote-selection': { borderRadius: '2px' },
  '.remote-caret': {
    position: 'relative', borderLeft: '2px solid var(--person-line)', marginLeft: '-1px', marginRight: '-1px',
    '--person-line': 'color-mix(in srgb, var(--person) var(--person-share), white)',
  },
  '.remote-caret-name': {
    position: 'absolute', left: '-2px', bottom: '100%', padding: '1px 6px', borderRadius: '4px 4px 4px 0',
    font: '600 0.6875rem/1.4 var(--ui-font)', color: 'white', backgroundColor: 'var(--person)', whiteSpace: 'nowrap',
    pointerEvents: 'none', userSelect: 'none', zIndex: '5', maxWidth: '12rem', overflow: 'hidden', textOverflow: 'ellipsis',
    animation: 'remote-name 5s ease-out forwards',
  },
  '.remote-caret::after': { content: '""', position: 'absolute', inset: '0 -5px' },
  '.remote-caret:hover > .remote-caret-name': { animation: 'none' },
  // Seen while its owner moves; at rest it would hide the line above.
  '@keyframes remote-name': { '0%, 70%': { opacity: '1' }, '100%': { opacity: '0' } },
  // On the first line the name would cover the header's edge: it stands below the caret there.
  '.cm-line:first-child .remote-caret-name': { bottom: 'auto', top: '100%', borderRadius: '0 4px 4px 4px' },
})

export function openEditor(options: { host: HTMLElement; text: Y.Text; awareness: Awareness; label: string }): PageEditor {
  const { host, text, awareness, label } = options
  const root = host.attachShadow({ mode: 'open', delegatesFocus: true })
  const undoManager = new Y.UndoManager(text, { trackedOrigins: new Set() })
  const writing = new Compartment()
  const hint = new Compartment()
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: text.toString(),
      extensions: [
        // "\r" stays a character: were it a line break, positions here and in the shared text would differ.
        EditorState.lineSeparator.of('\n'),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({
          'aria-label': label, spellcheck: 'true', autocorrect: 'on', autocapitalize: 'sentences', tabindex: '0',
        }),
        highlightSpecialChars(),
        drawSelection(),
        dropCursor(),
        highlightSelectionMatches(),
        search(),
        // The page scrolls, not the editor: what is scrolled to must not end under the sticky bar.
        EditorView.scrollMargins.of(() => ({ top: barHeight() + 8 })),
        keymap.of([...yUndoManagerKeymap, ...searchKeymap, ...defaultKeymap]),
        // Without awareness yCollab brings text and undo, and leaves the cursors to the next line.
        yCollab(text, null, { undoManager }),
        remoteCursors(text, awareness),
        wholeCharacters((transaction) => transaction.annotation(ySyncAnnotation) !== undefined),
        writing.of(writability(false)),
        hint.of(placeholder('')),
        theme,
      ],
    }),
  })
  return {
    undoManager,
    setWritable: (writable) => view.dispatch({ effects: writing.reconfigure(writability(writable)) }),
    setPlaceholder: (words) => view.dispatch({ effects: hint.reconfigure(placeholder(words)) }),
    focus: () => view.focus(),
  }
}

function writability(writable: boolean) {
  return [EditorState.readOnly.of(!writable), EditorView.editable.of(writable)]
}
