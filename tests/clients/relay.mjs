// The smallest y-websocket server that keeps a document per path in memory: what the driver's own tests run against, so
// that they say something about the driver alone. Prints its port, serves on loopback, ends when stdin does.
// A room whose name starts with "closed-<code>" is accepted and closed with that code; "denied" answers each edit so.
import { createServer } from 'node:http'
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import { WebSocketServer } from 'ws'
import { applyAwarenessUpdate, Awareness, encodeAwarenessUpdate, removeAwarenessStates } from 'y-protocols/awareness'
import { writePermissionDenied } from 'y-protocols/auth'
import { messageYjsSyncStep1, readSyncMessage, writeSyncStep1, writeUpdate } from 'y-protocols/sync'
import * as Y from 'yjs'

const SYNC = 0
const AWARENESS = 1
const AUTH = 2

const rooms = new Map()

function frame(type, write) {
  const encoder = encoding.createEncoder()
  encoding.writeVarUint(encoder, type)
  write(encoder)
  return encoding.toUint8Array(encoder)
}

function roomOf(name) {
  if (rooms.has(name)) return rooms.get(name)
  const doc = new Y.Doc()
  const awareness = new Awareness(doc)
  awareness.setLocalState(null)
  const room = { name, doc, awareness, sockets: new Map() }
  const broadcast = (bytes, except) => {
    for (const socket of room.sockets.keys()) if (socket !== except) socket.send(bytes)
  }
  doc.on('update', (update, origin) => broadcast(frame(SYNC, (encoder) => writeUpdate(encoder, update)), origin))
  awareness.on('update', ({ added, updated, removed }, origin) => {
    room.sockets.get(origin)?.push(...added)
    const changed = [...added, ...updated, ...removed]
    broadcast(frame(AWARENESS, (encoder) => encoding.writeVarUint8Array(encoder, encodeAwarenessUpdate(awareness, changed))))
  })
  rooms.set(name, room)
  return room
}

function receive(room, socket, data) {
  const decoder = decoding.createDecoder(new Uint8Array(data))
  const type = decoding.readVarUint(decoder)
  if (type === AWARENESS) {
    applyAwarenessUpdate(room.awareness, decoding.readVarUint8Array(decoder), socket)
  } else if (type === SYNC) {
    const isEdit = decoding.clone(decoder)
    if (room.name.startsWith('denied') && decoding.readVarUint(isEdit) !== messageYjsSyncStep1) {
      socket.send(frame(AUTH, (encoder) => writePermissionDenied(encoder, 'read only')))
      return
    }
    const reply = frame(SYNC, (encoder) => readSyncMessage(decoder, encoder, room.doc, socket))
    if (reply.length > 1) socket.send(reply)
  }
}

function join(room, socket) {
  room.sockets.set(socket, [])
  socket.on('message', (data) => receive(room, socket, data))
  socket.on('close', () => {
    const present = room.sockets.get(socket)
    room.sockets.delete(socket)
    removeAwarenessStates(room.awareness, present, null)
  })
  socket.send(frame(SYNC, (encoder) => writeSyncStep1(encoder, room.doc)))
  const known = [...room.awareness.getStates().keys()]
  if (known.length > 0) {
    socket.send(frame(AWARENESS, (encoder) => encoding.writeVarUint8Array(encoder, encodeAwarenessUpdate(room.awareness, known))))
  }
}

const server = createServer((request, response) => {
  // What the last handshakes looked like, for tests of headers, parameters and names.
  response.end(JSON.stringify(handshakes))
})
const handshakes = []
new WebSocketServer({ server }).on('connection', (socket, request) => {
  const url = new URL(request.url, 'http://relay')
  const name = decodeURIComponent(url.pathname).replace(/^\/ws\//, '')
  handshakes.push({ name, query: url.search, cookie: request.headers.cookie ?? null })
  const refused = /^closed-(\d+)/.exec(name)
  if (refused) socket.close(Number(refused[1]), 'refused')
  else join(roomOf(name), socket)
})
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => process.stdout.write(`${server.address().port}\n`))
process.stdin.resume().on('end', () => process.exit(0))
