import { cx } from '@/lib/cx'

/** The same text always has the same hue. */
function hueOf(text: string): number {
  let hash = 0
  for (const character of text) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) % 360
  return hash
}

/** A tile with the first letter of a name, for things without a picture. The name itself stands beside it. */
export function LetterTile({ name, large = false }: { name: string; large?: boolean }) {
  const letter = [...name].find((one) => /[\p{L}\p{N}]/u.test(one))?.toUpperCase() ?? '?'
  const hue = hueOf(name)
  return (
    <span
      aria-hidden="true"
      className={cx(
        'flex shrink-0 items-center justify-center rounded-lg font-semibold select-none',
        large ? 'size-12 text-xl' : 'size-9 text-lg',
      )}
      style={{
        background: `light-dark(oklch(0.94 0.035 ${hue}), oklch(0.3 0.05 ${hue}))`,
        color: `light-dark(oklch(0.42 0.1 ${hue}), oklch(0.85 0.09 ${hue}))`,
      }}
    >
      {letter}
    </span>
  )
}
