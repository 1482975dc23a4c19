// Hosts real Yjs clients for the tests: the stock WebsocketProvider, or a stock HocuspocusProvider, over `ws`; one JSON
// command per line on stdin, one JSON answer per line on stdout. driver.py is the only caller and mirrors COMMANDS one to
// one. Ends when stdin does.
import { isDeepStrictEqual } from 'node:util'
import * as decoding from 'lib0/decoding'
import { encodeAwarenessUpdate } from 'y-protocols/awareness'
import { WebSocket } from 'ws'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'
import { serve } from './commands.mjs'
import { contentOf, hexOf } from './content.mjs'
import { applyActions, rootOf } from './edits.mjs'
import { editEmojiAtRandom } from './emoji_edits.mjs'
import { clientsIn, Hocuspocus } from './hocuspocus.mjs'
import { editAtRandom, randomFrom } from './random_edits.mjs'

const DEFAULT_TYPES = { t: 'text', a: 'array', m: 'map', x: 'xml' }
const MESSAGE_SYNC = 0
const MESSAGE_AWARENESS = 1
const MESSAGE_AUTH = 2
const SYNC_UPDATE = 2

class Client {
  constructor({ url, room, params = {}, headers = {}, protocols = [], connect = true, types = DEFAULT_TYPES, client_id, gc = true,
    max_backoff_ms = 2500, hocuspocus = null }) {
    this.doc = new Y.Doc({ gc })
    if (client_id !== undefined && client_id !== null) this.doc.clientID = client_id
    this.types = types
    for (const name of Object.keys(types)) rootOf(this.doc, types, name)
    this.events = []
    this.updates = []
    this.updateMessages = 0
    this.listeners = new Set()
    this.destroyed = false
    if (hocuspocus === null) this.#openYWebsocket({ url, room, params, protocols, headers, max_backoff_ms, connect })
    else this.#openHocuspocus({ ...hocuspocus, url, room, headers, max_backoff_ms })
    this.doc.on('update', (update, origin) => {
      this.updates.push({ at_ms: Date.now(), remote: origin === this.remote, update })
      this.#changed()
    })
    this.provider.awareness?.on('update', () => this.#changed())
  }

  #openHocuspocus({ headers, ...options }) {
    this.provider = new Hocuspocus({ ...options, doc: this.doc, polyfill: socketWith(headers) }, (event) => {
      if (event.kind === 'update') this.updateMessages++
      this.#event(event)
    })
    this.remote = this.provider.stock
  }

  #openYWebsocket({ url, room, params, protocols, headers, max_backoff_ms, connect }) {
    const { doc } = this
    const provider = new WebsocketProvider(url, room.split('/').map(encodeURIComponent).join('/'), doc, {
      connect: false, params, protocols, disableBc: true, maxBackoffTime: max_backoff_ms,
      WebSocketPolyfill: socketWith(headers),
    })
    this.provider = this.remote = provider
    provider.on('status', ({ status }) => this.#event({ kind: 'status', status }))
    provider.on('sync', (synced) => this.#event({ kind: 'sync', synced }))
    provider.on('connection-close', (event) => this.#event({ kind: 'close', code: event?.code ?? null, reason: event?.reason ?? null }))
    provider.on('closed', ({ code, reason }) => this.#event({ kind: 'closed', code, reason }))
    provider.on('connection-error', (event) => this.#event({ kind: 'error', message: String(event.message ?? event.type) }))
    // The standard handler only warns on the console and keeps the reason to itself.
    this.#before(MESSAGE_AUTH, (body) => {
      decoding.readVarUint(body)
      this.#event({ kind: 'denied', reason: decoding.readVarString(body) })
    })
    this.#before(MESSAGE_SYNC, (body) => {
      // Counted on the wire: a document that is told the same twice says nothing of it.
      if (decoding.readVarUint(body) === SYNC_UPDATE) this.updateMessages++
    })
    this.#before(MESSAGE_AWARENESS, (body) => {
      if (clientsIn(decoding.readVarUint8Array(body)).includes(doc.clientID)) this.#event({ kind: 'echo' })
    })
    if (connect) provider.connect()
  }

  /** Reads each message of a type on a decoder of its own, then leaves it to the provider's handler. */
  #before(type, read) {
    const handlers = this.provider.messageHandlers
    const standard = handlers[type]
    handlers[type] = (encoder, decoder, ...rest) => {
      read(decoding.createDecoder(decoder.arr.subarray(decoder.pos)))
      standard(encoder, decoder, ...rest)
    }
  }

  #event(event) {
    this.events.push({ at_ms: Date.now(), ...event })
    this.#changed()
  }

  #changed() {
    for (const listener of [...this.listeners]) listener()
  }

  get received() {
    return this.updates.filter(({ remote }) => remote).length
  }

  destroy() {
    this.destroyed = true
    this.provider.destroy()
    this.provider.awareness?.destroy()
    this.doc.destroy()
    this.#changed()
  }
}

/** The stock `ws` socket with request headers (cookies, Origin), which browsers send by themselves. */
function socketWith(headers) {
  return class extends WebSocket {
    constructor(address, protocols) {
      super(address, protocols, { headers, perMessageDeflate: false })
      this.on('error', () => {}) // Hocuspocus' provider 3 closes sockets that still connect, and listens to them no more
    }
  }
}

const clients = new Map()

function find(name) {
  const client = clients.get(name)
  if (client === undefined) throw new Error(`no client "${name}"; open are ${[...clients.keys()].join(', ') || 'none'}`)
  return client
}

/** Resolves with `probe()` as soon as it is not undefined; looks again at each event of any of the clients. */
function until(watched, timeout_seconds, what, probe) {
  return new Promise((resolve, reject) => {
    const finish = (settle, value) => {
      clearTimeout(timer)
      for (const client of watched) client.listeners.delete(look)
      settle(value)
    }
    const look = () => {
      try {
        const found = probe()
        if (found !== undefined) finish(resolve, found)
        else if (watched.some(({ destroyed }) => destroyed)) finish(reject, new Error(`destroyed while waiting for ${what}`))
      } catch (error) {
        finish(reject, error)
      }
    }
    const timer = setTimeout(() => {
      const events = watched.map((client) => JSON.stringify(client.events.slice(-5))).join('\n')
      const held = watched.map(heldBy).join('\n')
      finish(reject, new Error(`after ${timeout_seconds} s still no ${what}; last events:\n${events}\nand what is held:\n${held}`))
    }, timeout_seconds * 1000)
    for (const client of watched) client.listeners.add(look)
    look()
  })
}

/** What tells two documents apart, in a line: own client id, clocks, what waits for other updates, the content's hash. */
function heldBy({ doc, types, provider }) {
  const { pendingStructs, pendingDs } = doc.store
  const pending = [pendingStructs && 'structs', pendingDs && 'deletes'].filter(Boolean).join(' and ') || 'nothing'
  const hash = contentOf(doc, types).content_hash.slice(0, 12)
  return `${doc.clientID}: clocks ${JSON.stringify(clocksOf(doc))}, synced ${provider.synced}, pending ${pending}, content ${hash}`
}

/** Whether all that is wanted is there, and beside it whatever else: a server may write who somebody is into a state. */
const shows = (state, wanted) => wanted === null || typeof wanted !== 'object' || Array.isArray(wanted)
  ? isDeepStrictEqual(state, wanted)
  : state != null && Object.entries(wanted).every(([key, value]) => shows(state[key], value))

const holds = (condition) => (condition ? true : undefined)
const pause = (ms) => new Promise((resolve) => (ms > 0 ? setTimeout(resolve, ms) : setImmediate(resolve)))
const clocksOf = (doc) => Object.fromEntries(Y.decodeStateVector(Y.encodeStateVector(doc)))

async function repeat(client, count, interval_ms, step) {
  let performed = 0
  client.stopped = false
  while (performed < count && !client.destroyed && !client.stopped) {
    step(performed)
    performed++
    await pause(interval_ms)
  }
  return { performed }
}

const COMMANDS = {
  open({ client, ...options }) {
    if (clients.has(client)) throw new Error(`client "${client}" is open already`)
    clients.set(client, new Client(options))
    return { client_id: clients.get(client).doc.clientID }
  },
  destroy({ client }) {
    find(client).destroy()
    clients.delete(client)
  },
  connect: ({ client }) => find(client).provider.connect(),
  disconnect: ({ client }) => find(client).provider.disconnect(),
  /** The network goes without a close frame; the provider reconnects by itself. */
  drop: ({ client }) => { find(client).provider.ws?.terminate() },
  client_id: ({ client }) => find(client).doc.clientID,

  edit({ client, actions }) {
    const { doc, types } = find(client)
    applyActions(doc, types, actions)
  },
  random({ client, seed, count, interval_ms = 0 }) {
    const found = find(client)
    const random = randomFrom(seed)
    return repeat(found, count, interval_ms, () => editAtRandom(found.doc, found.types, random))
  },
  /** Cuts emoji in two, as editors do that know of strings alone. */
  random_emoji({ client, seed, count, interval_ms = 0 }) {
    const found = find(client)
    const random = randomFrom(seed)
    return repeat(found, count, interval_ms, () => editEmojiAtRandom(found.doc.getText('t'), random, { mayBreak: false }))
  },
  /** Types at the end of a text root, one code point per transaction. */
  type({ client, root = 't', text, interval_ms = 0 }) {
    const found = find(client)
    const letters = [...text]
    return repeat(found, letters.length, interval_ms, (i) => {
      applyActions(found.doc, found.types, [{ root, do: 'append', text: letters[i] }])
    })
  },
  /** Ends `random` and `type` under way. */
  stop({ client }) {
    find(client).stopped = true
  },
  apply({ client, update }) {
    Y.applyUpdate(find(client).doc, Buffer.from(update, 'hex'), 'apply')
  },
  /** Bytes straight onto the socket, past the provider. */
  send_raw({ client, frame }) {
    find(client).provider.ws.send(Buffer.from(frame, 'hex'))
  },

  /** The next frames that the provider sends never arrive. */
  lose_frames({ client, count }) {
    const { ws } = find(client).provider
    const send = ws.send
    ws.send = (...frame) => { if (count-- <= 0) send.apply(ws, frame) }
  },
  send_text({ client, text }) {
    find(client).provider.ws.send(text)
  },

  content({ client }) {
    const { doc, types } = find(client)
    return contentOf(doc, types)
  },
  update: ({ client, state_vector = null }) =>
    hexOf(Y.encodeStateAsUpdate(find(client).doc, state_vector === null ? undefined : Buffer.from(state_vector, 'hex'))),
  state_vector: ({ client }) => hexOf(Y.encodeStateVector(find(client).doc)),
  seen_structs: ({ client }) => clocksOf(find(client).doc),
  seen({ client, root = 't' }) {
    const { doc, types } = find(client)
    return rootOf(doc, types, root).toString()
  },
  updates: ({ client }) =>
    find(client).updates.map(({ at_ms, remote, update }) => ({ at_ms, remote, update: hexOf(update) })),
  update_messages: ({ client }) => find(client).updateMessages,
  events: ({ client }) => find(client).events,

  // Of Hocuspocus providers alone.
  unsynced: ({ client }) => find(client).provider.unsynced,
  /** At one moment: what the provider takes to be unsaved, and how much its own document's writer has written. */
  saved_and_written({ client }) {
    const { provider, doc } = find(client)
    return { unsynced: provider.unsynced, written: clocksOf(doc)[doc.clientID] ?? 0 }
  },
  set_tokens({ client, tokens }) {
    find(client).provider.tokens = tokens
  },
  send_stateless: ({ client, payload }) => find(client).provider.stock.sendStateless(payload),
  force_sync: ({ client }) => find(client).provider.stock.forceSync(),
  attach: ({ client }) => find(client).provider.stock.attach(),
  detach: ({ client }) => find(client).provider.stock.detach(),
  wait_unsynced({ client, number, timeout_seconds }) {
    const found = find(client)
    return until([found], timeout_seconds, `${number} unsynced changes on "${client}"`, () =>
      holds(found.provider.unsynced === number))
  },

  set_awareness: ({ client, state }) => find(client).provider.awareness.setLocalState(state),
  awareness: ({ client }) => Object.fromEntries(find(client).provider.awareness.getStates()),
  awareness_update({ client }) {
    const { awareness } = find(client).provider
    return hexOf(encodeAwarenessUpdate(awareness, [awareness.clientID]))
  },

  wait_synced({ client, timeout_seconds }) {
    const found = find(client)
    return until([found], timeout_seconds, `sync of "${client}"`, () => holds(found.provider.synced))
  },
  wait_event({ client, match, after = 0, timeout_seconds }) {
    const found = find(client)
    const fits = (event) => Object.entries(match).every(([key, value]) => event[key] === value)
    return until([found], timeout_seconds, `event ${JSON.stringify(match)} on "${client}"`, () => found.events.slice(after).find(fits))
  },
  watch({ client, root = 't', contains, timeout_seconds }) {
    const found = find(client)
    const target = rootOf(found.doc, found.types, root)
    return until([found], timeout_seconds, `${JSON.stringify(contains)} in "${root}" of "${client}"`, () =>
      holds(target.toString().includes(contains)))
  },
  wait_seen({ client, root = 't', equals, timeout_seconds }) {
    const found = find(client)
    const target = rootOf(found.doc, found.types, root)
    return until([found], timeout_seconds, `"${root}" of "${client}" being ${JSON.stringify(equals)}`, () =>
      holds(target.toString() === equals))
  },
  wait_update_count({ client, count, timeout_seconds }) {
    const found = find(client)
    return until([found], timeout_seconds, `${count} received updates on "${client}"`, () =>
      found.received >= count ? found.received : undefined)
  },
  wait_structs({ client, clocks, timeout_seconds }) {
    const found = find(client)
    return until([found], timeout_seconds, `structs ${JSON.stringify(clocks)} on "${client}"`, () => {
      const seen = clocksOf(found.doc)
      return holds(Object.entries(clocks).every(([id, clock]) => (seen[id] ?? 0) >= clock))
    })
  },
  wait_awareness({ client, client_id, present, state = null, timeout_seconds }) {
    const found = find(client)
    const states = found.provider.awareness.getStates()
    const fits = () => state === null || shows(states.get(client_id), state)
    return until([found], timeout_seconds, `awareness of ${client_id} ${present ? 'seen' : 'gone'} on "${client}"`, () =>
      holds(states.has(client_id) === present && fits()))
  },
  wait_converged({ clients: names, timeout_seconds }) {
    const found = names.map(find)
    return until(found, timeout_seconds, `convergence of ${names.join(', ')}`, () => {
      if (found.some(({ provider, doc }) => !provider.synced || doc.store.pendingStructs !== null)) return undefined
      const vectors = new Set(found.map(({ doc }) => hexOf(Y.encodeStateVector(doc))))
      if (vectors.size > 1) return undefined
      const hashes = new Set(found.map(({ doc, types }) => contentOf(doc, types).content_hash))
      return hashes.size === 1 ? [...hashes][0] : undefined
    })
  },
}

serve(COMMANDS)
