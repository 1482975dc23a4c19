// The plain writing page: one shared text, who is here, and what the connection truly is.
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'
import { colourOf, translucent } from './colours'
import {
  announcePresence, closeExplanation, connectionWords, guardUnsentEdits, watchConnection, watchRefusals, type ConnectionState,
} from './connection'
import { openEditor, type PageEditor } from './editor'
import { providerAddress, readPageFacts } from './facts'
import { showPeople } from './people'

function element(id: string): HTMLElement {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`The page lacks #${id}`)
  return found
}

function start(): void {
  const facts = readPageFacts()
  const doc = new Y.Doc()
  const text = doc.getText('content')
  const { server, room } = providerAddress(facts.roomUrl, window.location)
  // No BroadcastChannel: another window of this browser must see an edit only after the server has stored it.
  const provider = new WebsocketProvider(server, room, doc, { disableBc: true, connect: false })
  provider.awareness.setLocalStateField('user', {
    name: facts.userName,
    // What other editors show; this page's own screens compute it.
    color: colourOf(facts.userName),
    colorLight: translucent(colourOf(facts.userName)),
    since: Date.now(),
  })
  const editor = openEditor({
    host: element('editor'), text, awareness: provider.awareness, label: element('page-title').textContent ?? '',
  })
  showPeople(provider.awareness, element('people'))
  announcePresence(provider)
  guardUnsentEdits(provider)
  joinUndoButtons(editor.undoManager)
  followConnection(provider, editor, facts.role !== 'viewer')
  provider.connect()
}

function followConnection(provider: WebsocketProvider, editor: PageEditor, roleMayWrite: boolean): void {
  let mayWrite = roleMayWrite
  let everSynced = false
  const show = (state: ConnectionState): void => {
    everSynced ||= state.kind === 'connected'
    const status = element('connection')
    status.dataset['kind'] = state.kind
    element('connection-words').textContent = connectionWords(state, mayWrite)
    if (state.kind === 'closed') showNotice(closeExplanation(state.code, everSynced))
    editor.setPlaceholder(state.kind !== 'connected' ? '' : mayWrite ? 'Write here…' : 'Nothing is written here yet.')
    // Before the first sync the text is unknown, not empty; after a final close nothing typed would ever arrive.
    const writable = mayWrite && everSynced && state.kind !== 'closed'
    editor.setWritable(writable)
    element('undo-buttons').hidden = !mayWrite || state.kind === 'closed'
    element('read-only').hidden = mayWrite
  }
  watchConnection(provider, show)
  provider.once('sync', () => {
    // Never taken from a control that the person has reached meanwhile; a reader's caret would only be noise to others.
    if (roleMayWrite && document.activeElement === document.body) editor.focus()
  })
  watchRefusals(provider, () => {
    if (!mayWrite) return
    mayWrite = false
    showNotice('You may read this document, not change it. Your last edit was not accepted: reload the page to see what others see.')
    show(provider.synced ? { kind: 'connected' } : { kind: 'offline', everSynced })
  })
}

function showNotice(words: string): void {
  const notice = element('notice')
  notice.textContent = words
  notice.hidden = false
}

function joinUndoButtons(undoManager: Y.UndoManager): void {
  const undo = element('undo') as HTMLButtonElement
  const redo = element('redo') as HTMLButtonElement
  undo.addEventListener('click', () => undoManager.undo())
  redo.addEventListener('click', () => undoManager.redo())
  const show = (): void => {
    undo.disabled = !undoManager.canUndo()
    redo.disabled = !undoManager.canRedo()
  }
  undoManager.on('stack-item-added', show)
  undoManager.on('stack-item-popped', show)
  undoManager.on('stack-cleared', show)
  show()
}

start()
