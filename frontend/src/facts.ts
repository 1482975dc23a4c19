// What the server says about this page: read once from the template's JSON blocks, never from attributes or the URL.

export type Role = 'owner' | 'editor' | 'viewer'

export interface PageFacts {
  /** Path of the document's socket, percent-encoded by the server: `/ws/<quoted name>`. */
  readonly roomUrl: string
  readonly role: Role
  readonly userName: string
}

function read(id: string): unknown {
  const element = document.getElementById(id)
  if (element?.textContent == null) throw new Error(`The page lacks its "${id}" block`)
  return JSON.parse(element.textContent)
}

export function readPageFacts(): PageFacts {
  const role = String(read('page-role'))
  return {
    roomUrl: String(read('page-room-url')),
    // A word that this bundle does not know gets the least right.
    role: role === 'owner' || role === 'editor' ? role : 'viewer',
    userName: String(read('page-user-name')),
  }
}

/**
 * The two halves that WebsocketProvider joins with one "/" and does not encode.
 *
 * The whole path is given as the room, since the provider strips trailing slashes from the server's half: a room named
 * "a//b" would otherwise lose one. Its own url is then `wss://host/ws/<quoted name>`.
 */
export function providerAddress(roomUrl: string, page: Location): { server: string; room: string } {
  const scheme = page.protocol === 'https:' ? 'wss:' : 'ws:'
  return { server: `${scheme}//${page.host}`, room: roomUrl.replace(/^\//, '') }
}
