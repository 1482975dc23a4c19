// Prints, as JSON, every frame that the stock Hocuspocus providers of three majors write in one scene: what
// tests/unit/protocols/golden_hocuspocus_frames.json holds. `node hocuspocus_recorder.mjs > …` makes it anew.
// Opposite them sits no server, but a script: frames that it writes make a provider say each thing that it can say.
import { once } from 'node:events'
import * as encoding from 'lib0/encoding'
import { WebSocket, WebSocketServer } from 'ws'
import { writeSyncStep1 } from 'y-protocols/sync'
import * as Y from 'yjs'
import * as provider2 from 'provider2'
import * as provider3 from 'provider3'
import * as provider4 from 'provider4'

console.warn = () => {}

const CLIENT_ID = 4294967295
const NAME = 'Grüße/1'
const PROVIDERS = {
  2: { ...provider2, options: {} },
  3: { ...provider3, options: {} },
  4: { ...provider4, options: {} },
  '4, of a session': { ...provider4, options: { sessionAwareness: true }, sessionId: 'k3j2h1' },
}

/** Does one thing at a time, and keeps what came meanwhile under its name. */
class Scene {
  frames = []
  recorded = {}

  constructor(socket) {
    this.socket = socket
    socket.on('message', (data) => this.frames.push(data.toString('hex')))
  }

  async record(what, count, act) {
    await act()
    while (this.frames.length < count) await once(this.socket, 'message', { signal: AbortSignal.timeout(5000) })
    if (this.frames.length !== count) throw new Error(`${what}: ${this.frames.length} frames, not ${count}`)
    this.recorded[what] = this.frames.splice(0)
  }

  say(address, ...write) {
    const encoder = encoding.createEncoder()
    encoding.writeVarString(encoder, address)
    for (const part of write) typeof part === 'number' ? encoding.writeVarUint(encoder, part) : part(encoder)
    this.socket.send(encoding.toUint8Array(encoder))
  }
}

async function recordedOf(server, { HocuspocusProvider, HocuspocusProviderWebsocket, options, sessionId }, token) {
  const document = new Y.Doc()
  document.clientID = CLIENT_ID
  const url = `ws://127.0.0.1:${server.address().port}`
  const arrived = once(server, 'connection')
  const websocketProvider = new HocuspocusProviderWebsocket({ url, WebSocketPolyfill: WebSocket })
  const provider = new HocuspocusProvider({ websocketProvider, name: NAME, document, token, broadcast: false, ...options })
  if (sessionId !== undefined) provider.sessionId = sessionId
  provider.attach?.()
  const [socket] = await arrived
  const scene = new Scene(socket)
  const address = provider.effectiveName ?? NAME
  const text = (string) => (encoder) => encoding.writeVarString(encoder, string)
  const isSilent = token === null && provider.attach === undefined
  await scene.record(isSilent ? 'SyncStep1, awareness' : 'Token, SyncStep1, awareness', isSilent ? 2 : 3, () => {})
  await scene.record('SyncStep2 of nothing', 1, () => {
    scene.say(address, 2, 2, text('read-write'))
    scene.say(address, 0, (encoder) => writeSyncStep1(encoder, new Y.Doc()))
  })
  await scene.record('Update', 1, () => document.getText('body').insert(0, 'Größe 😀'))
  await scene.record('SyncStep2', 1, () => scene.say(address, 0, (encoder) => writeSyncStep1(encoder, new Y.Doc())))
  await scene.record('awareness', 1, () => provider.setAwarenessField('user', { name: 'Zoë', color: '#30bced' }))
  await scene.record('awareness when asked', 1, () => scene.say(address, 3))
  await scene.record('Stateless', 1, () => provider.sendStateless('{"jetzt":"Grüße"}'))
  await scene.record('SyncStep1 when forced', 1, () => provider.forceSync())
  if (provider.attach !== undefined) await scene.record('Token when asked', 1, () => scene.say(address, 2, 0))
  if (provider.effectiveName !== undefined) await scene.record('Pong', 1, () => socket.send(Uint8Array.of(9)))
  await scene.record('awareness, Close', provider.attach === undefined ? 3 : 2, () => provider.destroy())
  websocketProvider.destroy()
  return scene.recorded
}

const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
await once(server, 'listening')
const recorded = {}
for (const [name, stock] of Object.entries(PROVIDERS)) recorded[name] = await recordedOf(server, stock, 'a ticket')
recorded['2, without a token'] = await recordedOf(server, PROVIDERS[2], null)
recorded['4, without a token'] = await recordedOf(server, PROVIDERS[4], null)
process.stdout.write(`${JSON.stringify(recorded, null, 1)}\n`)
process.exit(0)
