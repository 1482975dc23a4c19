// The stock Hocuspocus providers, three majors of them, each in the shape that client.mjs knows of y-websocket's.
import * as decoding from 'lib0/decoding'
import * as provider2 from 'provider2'
import * as provider3 from 'provider3'
import * as provider4 from 'provider4'

const MAJORS = { 2: provider2, 3: provider3, 4: provider4 }
const SYNC = 0
const AWARENESS = 1
const SYNC_UPDATE = 2
const SYNC_STATUS = 8

/** Sockets that several documents share, by major and name. */
const sockets = new Map()

/**
 * One document of one socket. `socket` names one that is shared with others; `tokens` are given one after the other, the
 * last of them again and again; `session` asks for an address of its own (4 alone).
 */
export class Hocuspocus {
  constructor({ url, room, doc, polyfill, max_backoff_ms, major, socket = null, tokens = [null], session = false,
    force_sync_ms = false, flush_delay_ms = false, awareness = true }, tell) {
    const { HocuspocusProvider } = MAJORS[major]
    this.tokens = [...tokens]
    this.socket = socketOf(major, socket, { url, polyfill, max_backoff_ms })
    this.socket.documents++
    const token = () => (this.tokens.length > 1 ? this.tokens.shift() : this.tokens[0])
    this.stock = new HocuspocusProvider({
      websocketProvider: this.socket.stock, name: room, document: doc, broadcast: false, quiet: true,
      // 2.15 sends no token at all where it is given none, and an empty one where a function gives it that.
      token: tokens[0] === null ? null : token,
      sessionAwareness: session, forceSyncInterval: force_sync_ms, flushDelay: flush_delay_ms,
      ...(awareness ? {} : { awareness: null }),
    })
    this.#record(tell, doc.clientID)
    this.stock.attach?.()
  }

  #record(tell, clientID) {
    const { stock, socket } = this
    socket.stock.on('status', ({ status }) => tell({ kind: 'status', status }))
    socket.stock.on('close', ({ event }) => tell({ kind: 'close', code: event?.code ?? null, reason: event?.reason ?? null }))
    stock.on('synced', ({ state }) => tell({ kind: 'sync', synced: state }))
    stock.on('authenticated', ({ scope } = {}) => tell({ kind: 'authenticated', scope: scope ?? stock.authorizedScope }))
    stock.on('authenticationFailed', ({ reason }) => tell({ kind: 'denied', reason }))
    stock.on('stateless', ({ payload }) => tell({ kind: 'stateless', payload }))
    stock.on('unsyncedChanges', (told) => tell({ kind: 'unsynced', number: told.number ?? told }))
    // The socket's close comes to each of its documents too, as an event of `ws`; a document's own is a plain object.
    stock.on('close', ({ event }) => {
      if (event?.constructor === Object && event.code === 1000) tell({ kind: 'left', reason: event.reason })
    })
    stock.on('message', ({ event }) => {
      const body = decoding.createDecoder(new Uint8Array(event.data))
      decoding.readVarString(body)
      const type = decoding.readVarUint(body)
      if (type === SYNC && decoding.readVarUint(body) === SYNC_UPDATE) tell({ kind: 'update' })
      if (type === SYNC_STATUS) tell({ kind: 'status of sync', applied: decoding.readVarInt(body) === 1 })
      if (type === AWARENESS && clientsIn(decoding.readVarUint8Array(body)).includes(clientID)) tell({ kind: 'echo' })
    })
  }

  get awareness() { return this.stock.awareness }
  get synced() { return this.stock.synced }
  get ws() { return this.socket.stock.webSocket }
  get unsynced() { return this.stock.unsyncedChanges }

  connect() { return this.socket.stock.connect() }
  disconnect() { this.socket.stock.disconnect() }

  destroy() {
    this.stock.destroy()
    if (--this.socket.documents === 0) {
      this.socket.stock.destroy()
      sockets.delete(this.socket.key)
    }
  }
}

function socketOf(major, name, { url, polyfill, max_backoff_ms }) {
  const key = name === null ? Symbol('of one document') : `${major} ${name}`
  if (!sockets.has(key)) {
    const stock = new MAJORS[major].HocuspocusProviderWebsocket({
      url, WebSocketPolyfill: polyfill, delay: 50, minDelay: 50, maxDelay: max_backoff_ms,
    })
    sockets.set(key, { key, stock, documents: 0 })
  }
  return sockets.get(key)
}

/** The client ids that an awareness update speaks of. */
export function clientsIn(update) {
  const decoder = decoding.createDecoder(update)
  return Array.from({ length: decoding.readVarUint(decoder) }, () => {
    const clientID = decoding.readVarUint(decoder)
    decoding.readVarUint(decoder)
    decoding.readVarString(decoder)
    return clientID
  })
}
