// The state of the connection in words that are true. y-websocket has no acknowledgement, so the page never says "saved".
import type { WebsocketProvider } from 'y-websocket'

export type ConnectionState =
  | { readonly kind: 'connecting' }
  | { readonly kind: 'connected' }
  | { readonly kind: 'offline'; readonly everSynced: boolean }
  /** The server closed for good (44xx): the provider does not come back by itself. */
  | { readonly kind: 'closed'; readonly code: number }

const MESSAGE_AUTH = 2

export function watchConnection(provider: WebsocketProvider, tell: (state: ConnectionState) => void): void {
  let everSynced = false
  provider.on('sync', (synced) => {
    everSynced ||= synced
    if (synced) tell({ kind: 'connected' })
  })
  // Each failed attempt closes too; the provider's "connecting" between two attempts is no news to a reader.
  provider.on('connection-close', () => tell({ kind: 'offline', everSynced }))
  provider.on('closed', ({ code }) => tell({ kind: 'closed', code }))
  tell({ kind: 'connecting' })
}

/**
 * Shows this person to the others again after each reconnection.
 *
 * The provider repeats its state with an unchanged clock, which peers that lost the connection at the same time ignore:
 * they would miss this person until the next renewal, up to 15 s. Setting the state again raises the clock.
 */
export function announcePresence(provider: WebsocketProvider): void {
  provider.on('sync', (synced) => {
    if (synced) provider.awareness.setLocalState(provider.awareness.getLocalState())
  })
}

/** Calls `denied` when the server refuses an edit of this session: it was not stored and nobody else has it. */
export function watchRefusals(provider: WebsocketProvider, denied: () => void): void {
  const standard = provider.messageHandlers[MESSAGE_AUTH]
  provider.messageHandlers[MESSAGE_AUTH] = (...received) => {
    standard?.(...received)
    denied()
  }
}

/** Asks before the page is left while it alone holds edits. */
export function guardUnsentEdits(provider: WebsocketProvider): void {
  let unsent = false
  provider.doc.on('update', (_update: Uint8Array, origin: unknown) => {
    if (origin !== provider && !provider.synced) unsent = true
  })
  provider.on('sync', (synced) => {
    // What the server lacked went out in answer to its own SyncStep1, which stands before its SyncStep2.
    if (synced) unsent = false
  })
  window.addEventListener('beforeunload', (event) => {
    if (unsent) event.preventDefault()
  })
}

export function connectionWords(state: ConnectionState, mayWrite: boolean): string {
  switch (state.kind) {
    case 'connecting':
      return 'Connecting…'
    case 'connected':
      return 'Connected'
    case 'offline':
      if (!state.everSynced) return 'Offline – trying again'
      return mayWrite ? 'Offline – your edits are kept and sent when the connection returns' : 'Offline – trying again'
    case 'closed':
      return 'No access'
  }
}

/** What a reader should know or do beyond the words "No access". */
export function closeExplanation(code: number, everSynced: boolean): string {
  const seen = everSynced ? ' What you see is the last that reached you.' : ''
  switch (code) {
    case 4401:
      return `You are signed out. Sign in again to go on.${seen}`
    case 4403:
      return `You may not open this document${everSynced ? ' any more' : ''}.${seen}`
    case 4404:
      return `There is no such document, or you may not see it.${seen}`
    default:
      return 'The server ended this connection for good. Reload the page to try again.'
  }
}
