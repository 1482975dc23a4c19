// One colour per person, computed from the name alone: the same on every screen, and nothing a peer sends reaches a style.

const HUES = 24
/** Saturation, and how much darker than legible: with the hues 72 colours that an eye tells apart. */
const TONES = [[0.72, 0], [0.4, 0.02], [0.6, 0.12]] as const

/** `#rrggbb`, dark enough that white letters on it have a contrast of at least 4.5 to 1 (WCAG AA). */
export function colourOf(name: string): string {
  const number = hash(name.normalize('NFC'))
  const hue = (number % HUES) * (360 / HUES)
  const [saturation, darker] = TONES[Math.floor(number / HUES) % TONES.length] ?? TONES[0]
  for (let lightness = 0.5; ; lightness -= 0.02) {
    if (contrastWithWhite(rgbOf(hue, saturation, lightness)) >= 4.5) return hex(rgbOf(hue, saturation, lightness - darker))
  }
}

/** The same colour, translucent, for a selection's background. */
export function lightColourOf(name: string): string {
  return `${colourOf(name)}40`
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

/** FNV-1a over UTF-16 units with a final mix, so that names that differ in one letter are far apart. */
function hash(text: string): number {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35)
  return (value ^ (value >>> 16)) >>> 0
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
