// One colour per person, computed from the names alone: the same on every screen, and nothing a peer sends reaches a style.

const HUES = 24
/** Saturation, and how much darker than legible: with the hues 72 colours that an eye tells apart. */
const TONES = [[0.72, 0], [0.4, 0.02], [0.6, 0.12]] as const

/** `#rrggbb`, dark enough that white letters on it have a contrast of at least 4.5 to 1 (WCAG AA). */
export function colourOf(name: string): string {
  return colour(hueOf(name), toneOf(name))
}

/** The same colour, translucent, for a selection's background. */
export function translucent(colour: string): string {
  return `${colour}40`
}

/**
 * A colour for each of the people who are here, the first comer first: their own, or where that hue or the one beside it
 * is taken, the next that is free. A crowd of more than 24 has to share.
 */
export function coloursOf(names: Iterable<string>): Map<string, string> {
  const taken = new Set<number>()
  const colours = new Map<string, string>()
  for (const name of names) {
    if (colours.has(name)) continue
    const hue = freeHue(hueOf(name), taken)
    taken.add(hue)
    colours.set(name, colour(hue, toneOf(name)))
  }
  return colours
}

function freeHue(wanted: number, taken: ReadonlySet<number>): number {
  if (taken.size === HUES) return wanted
  const hues = Array.from({ length: HUES }, (_, step) => (wanted + step) % HUES)
  const isFree = (hue: number): boolean => !taken.has(hue)
  const isApart = (hue: number): boolean => [hue, (hue + 1) % HUES, (hue + HUES - 1) % HUES].every(isFree)
  return hues.find(isApart) ?? hues.find(isFree) ?? wanted
}

/** 0 to HUES - 1. */
function hueOf(name: string): number {
  return hash(name) % HUES
}

/** A place in TONES. */
function toneOf(name: string): number {
  return Math.floor(hash(name) / HUES) % TONES.length
}

function colour(hue: number, tone: number): string {
  const degrees = hue * (360 / HUES)
  const [saturation, darker] = TONES[tone] ?? TONES[0]
  for (let lightness = 0.5; ; lightness -= 0.02) {
    if (contrastWithWhite(rgbOf(degrees, saturation, lightness)) >= 4.5) return hex(rgbOf(degrees, saturation, lightness - darker))
  }
}

/** Up to two letters: the first of the first and of the last word. */
export function initialsOf(name: string): string {
  const words = name.split(/[\s._-]+/u).filter((word) => /[\p{L}\p{N}]/u.test(word))
  const first = words[0]
  if (first === undefined) return '?'
  const last = words.length > 1 ? words[words.length - 1] : undefined
  return (initial(first) + (last === undefined ? '' : initial(last))).toLocaleUpperCase()
}

function initial(word: string): string {
  return Array.from(word)[0] ?? ''
}

/**
 * FNV-1a over UTF-16 units, then a final mix (hash-prospector's best with two multiplications), so that names that differ
 * in one letter are far apart. history/authors.py computes the same.
 */
function hash(name: string): number {
  const text = name.normalize('NFC')
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  value = Math.imul(value ^ (value >>> 16), 0x21f0aaad)
  value = Math.imul(value ^ (value >>> 15), 0xd35a2d97)
  return (value ^ (value >>> 15)) >>> 0
}

type Rgb = readonly [number, number, number]

function rgbOf(hue: number, saturation: number, lightness: number): Rgb {
  const chroma = saturation * Math.min(lightness, 1 - lightness)
  const channel = (n: number): number => {
    const k = (n + hue / 30) % 12
    return lightness - chroma * Math.max(-1, Math.min(k - 3, 9 - k, 1))
  }
  return [channel(0), channel(8), channel(4)]
}

function contrastWithWhite([red, green, blue]: Rgb): number {
  const linear = (c: number): number => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  return 1.05 / (0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue) + 0.05)
}

function hex(colour: Rgb): string {
  return `#${colour.map((c) => Math.round(c * 255).toString(16).padStart(2, '0')).join('')}`
}
