// Who is here, as the awareness states say: one entry per name, however many windows that person has open.
import type { Awareness } from 'y-protocols/awareness'
import { colourOf, coloursOf, initialsOf } from './colours'

const NAME_CHARACTERS_MAX = 60
const SHOWN_MAX = 6
/** With more people than this only their discs fit beside the title. */
const NAMED_MAX = 3

/** The name in a peer's state, which may hold anything. */
export function nameOf(state: Record<string, unknown>): string {
  const user = state['user'] as { name?: unknown } | null | undefined
  const name = typeof user?.name === 'string' ? user.name.trim() : ''
  return Array.from(name).slice(0, NAME_CHARACTERS_MAX).join('') || 'Anonymous'
}

/**
 * The colour of everyone who is here, by name. Whoever says to have come first keeps the own colour; all screens read the
 * same states, so all agree. Clocks that differ only change who of two yields.
 */
export function presentColours(awareness: Awareness): Map<string, string> {
  const arrivals = new Map<string, number>()
  for (const state of awareness.getStates().values()) {
    if (state['user'] == null) continue
    const name = nameOf(state)
    arrivals.set(name, Math.min(arrivals.get(name) ?? Infinity, arrivalIn(state)))
  }
  const inOrder = [...arrivals].sort(([a, came], [b, cameToo]) => (came === cameToo ? (a < b ? -1 : 1) : came - cameToo))
  return coloursOf(inOrder.map(([name]) => name))
}

/** Milliseconds since 1970; other editors do not say, and come last. */
function arrivalIn(state: Record<string, unknown>): number {
  const since = (state['user'] as { since?: unknown }).since
  return typeof since === 'number' ? since : Infinity
}

export function showPeople(awareness: Awareness, list: HTMLElement): void {
  let shown = ''
  const draw = (): void => {
    const names = presentNames(awareness)
    const colours = presentColours(awareness)
    const key = JSON.stringify(names.map((name) => [name, colours.get(name)]))
    // Cursor moves change the awareness many times a second; the list only when somebody comes or goes.
    if (key === shown) return
    shown = key
    const items = names.slice(0, SHOWN_MAX).map((name, index) => personItem(name, colours.get(name) ?? colourOf(name), index === 0))
    if (names.length > SHOWN_MAX) items.push(moreItem(names.slice(SHOWN_MAX)))
    list.replaceChildren(...items)
    list.classList.toggle('many', names.length > NAMED_MAX)
  }
  awareness.on('change', draw)
  draw()
}

/** Oneself first, the others in the alphabet's order. */
function presentNames(awareness: Awareness): string[] {
  const own = nameOf(awareness.getLocalState() ?? {})
  const others = new Set<string>()
  for (const state of awareness.getStates().values()) {
    if (state['user'] != null) others.add(nameOf(state))
  }
  others.delete(own)
  return [own, ...[...others].sort((a, b) => a.localeCompare(b))]
}

function personItem(name: string, colour: string, isSelf: boolean): HTMLLIElement {
  const item = document.createElement('li')
  item.className = 'person'
  item.title = isSelf ? `${name} (you)` : name
  const disc = item.appendChild(document.createElement('span'))
  disc.className = 'disc'
  disc.ariaHidden = 'true'
  disc.style.setProperty('--person', colour)
  disc.textContent = initialsOf(name)
  const label = item.appendChild(document.createElement('span'))
  label.className = 'person-name'
  label.textContent = isSelf ? `${name} (you)` : name
  return item
}

function moreItem(names: readonly string[]): HTMLLIElement {
  const item = document.createElement('li')
  item.className = 'person more'
  item.title = names.join(', ')
  item.textContent = `+${names.length}`
  item.ariaLabel = `and ${names.length} more: ${names.join(', ')}`
  return item
}
