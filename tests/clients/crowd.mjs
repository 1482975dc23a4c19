// A crowd of people for the fault, load and soak runs: many documents, each with some writers on the stock WebsocketProvider.
// Every counted edit puts a token of its own into the array "seen"; what another person's document shows is noted exactly.
// crowd.py is the only caller. Documents keep their state over reconnects; a reload begins anew under a fresh client id.
import { WebSocket } from 'ws'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'
import { serve } from './commands.mjs'
import { contentOf } from './content.mjs'
import { rootOf } from './edits.mjs'
import { editAtRandom, randomFrom } from './random_edits.mjs'

const OTHER_TYPES = { t: 'text', m: 'map', x: 'xml' }
const TYPES = { seen: 'array', ...OTHER_TYPES }
const POLL_MS = 50
/** What a step is, by share: the rest puts a token in. */
const SHARES = { reload: 0.001, drop: 0.004, remove: 0.05, random: 0.1 }

const rooms = new Map()
let closeCodes = {}

class Room {
  constructor(name) {
    this.name = name
    this.people = []
    this.userOf = {} // client id → user, of all documents that were ever open here
    this.seen = new Set()
    this.news = []
  }

  saw(person, token) {
    if (this.userOf[token.slice(0, token.indexOf('.'))] === person.user || this.seen.has(token)) return
    this.seen.add(token)
    this.news.push(token)
  }
}

class Person {
  constructor(room, { user, headers }, { url, seed, interval_ms, max_backoff_ms }) {
    Object.assign(this, { room, user, headers, url, intervalMs: interval_ms, maxBackoffMs: max_backoff_ms })
    this.random = randomFrom(seed)
    this.made = 0
    this.#open()
    this.#wait()
  }

  #open() {
    this.doc = new Y.Doc()
    this.room.userOf[this.doc.clientID] = this.user
    for (const name of Object.keys(TYPES)) rootOf(this.doc, TYPES, name)
    this.tokens = this.doc.getArray('seen')
    this.tokens.observe((event, transaction) => {
      if (transaction.local) return
      for (const { insert = [] } of event.changes.delta) for (const token of insert) this.room.saw(this, token)
    })
    const { headers, doc } = this
    let connections = 0
    this.provider = new WebsocketProvider(this.url, encodeURIComponent(this.room.name), this.doc, {
      disableBc: true, maxBackoffTime: this.maxBackoffMs,
      WebSocketPolyfill: class extends WebSocket {
        /** Says whose connection it is: the log's sessions keep it, so that whoever judges the log knows. */
        constructor(address, protocols) {
          const agent = `crowd ${doc.clientID} ${++connections}`
          super(address, protocols, { headers: { ...headers, 'User-Agent': agent }, perMessageDeflate: false })
        }
      },
    })
    this.provider.on('connection-close', (event) => {
      if (event !== null) closeCodes[event.code] = (closeCodes[event.code] ?? 0) + 1
    })
  }

  #wait() {
    this.timer = setTimeout(() => { this.#step(); this.#wait() }, -Math.log(1 - this.random()) * this.intervalMs)
  }

  #step() {
    const { tokens, doc, random } = this
    let at = random()
    const is = (share) => (at -= share) < 0
    if (is(SHARES.reload)) this.#reload()
    else if (is(SHARES.drop)) this.provider.ws?.terminate()
    else if (is(SHARES.remove) && tokens.length > 0) tokens.delete(Math.floor(random() * tokens.length), 1)
    else if (is(SHARES.random)) editAtRandom(doc, OTHER_TYPES, random)
    else tokens.insert(Math.floor(random() * (tokens.length + 1)), [`${doc.clientID}.${this.made++}`])
  }

  /** What was not sent is gone with the page, as in a browser. */
  #reload() {
    this.close()
    this.#open()
  }

  stop() {
    clearTimeout(this.timer)
  }

  close() {
    this.provider.destroy()
    this.provider.awareness.destroy()
    this.doc.destroy()
  }

  get settled() {
    return this.provider.synced && this.doc.store.pendingStructs === null && this.doc.store.pendingDs === null
  }

  get held() {
    const { pendingStructs, pendingDs, clients } = this.doc.store
    const pending = [pendingStructs && 'structs', pendingDs && 'deletes'].filter(Boolean).join(' and ') || 'nothing'
    const clocks = Object.fromEntries([...clients.keys()].sort().map((id) => [id, Y.getState(this.doc.store, id)]))
    return `${this.doc.clientID} of user ${this.user}: synced ${this.provider.synced}, pending ${pending}, clocks ${JSON.stringify(clocks)}`
  }
}

function roomOf(name) {
  const room = rooms.get(name)
  if (room === undefined) throw new Error(`no room "${name}"`)
  return room
}

const vectorOf = (doc) => JSON.stringify([...Y.decodeStateVector(Y.encodeStateVector(doc))].sort())

/** The one content of all who are in a room, or undefined while they differ. */
function agreed({ people }) {
  if (!people.every(({ settled }) => settled)) return undefined
  if (new Set(people.map(({ doc }) => vectorOf(doc))).size > 1) return undefined
  const contents = people.map(({ doc }) => contentOf(doc, TYPES))
  if (new Set(contents.map(({ content_hash }) => content_hash)).size > 1) return undefined
  return contents[0].content_hash
}

const COMMANDS = {
  /** People come into a room and edit until it is finished, each about once in `interval_ms`. */
  open({ room: name, people, ...options }) {
    const room = new Room(name)
    rooms.set(name, room)
    people.forEach((person, place) => room.people.push(new Person(room, person, { ...options, seed: options.seed + place })))
  },
  /** What was seen since this was last asked, by room: tokens, and the user of each client id. */
  news() {
    const found = {}
    for (const [name, room] of rooms) {
      found[name] = { tokens: room.news, users: room.userOf }
      room.news = []
    }
    return found
  },
  closes() {
    return closeCodes
  },
  /** Nobody edits any more. */
  stop({ rooms: names }) {
    for (const name of names) for (const person of roomOf(name).people) person.stop()
  },
  /** Waits until all who are in a stopped room hold the same; answers with its content's hash. */
  async agree({ room: name, timeout_seconds }) {
    const room = roomOf(name)
    const deadline = Date.now() + timeout_seconds * 1000
    while (Date.now() < deadline) {
      const hash = agreed(room)
      if (hash !== undefined) return hash
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
    throw new Error(`no agreement in "${name}" after ${timeout_seconds} s:\n${room.people.map(({ held }) => held).join('\n')}`)
  },
  /** All leave; what was seen must have been asked for before. */
  close({ room: name }) {
    for (const person of roomOf(name).people) { person.stop(); person.close() }
    rooms.delete(name)
  },
  /** The content of an update as Yjs reads it, pending parts named: for a fold of the log. */
  content({ update }) {
    const doc = new Y.Doc()
    Y.applyUpdate(doc, Buffer.from(update, 'hex'))
    if (doc.store.pendingStructs !== null || doc.store.pendingDs !== null) throw new Error('the update leaves something pending')
    return contentOf(doc, TYPES).content_hash
  },
}

serve(COMMANDS)
