import { Search, X } from 'lucide-react'
import { type Ref, useId } from 'react'
import { cx } from '@/lib/cx'
import { t } from '@/lib/t'

/** Searches as one types. `/` puts the focus into the first one of the page. Keep its value in the URL. */
export function SearchInput({
  value,
  onValueChange,
  label,
  placeholder = label,
  ref,
  className,
}: {
  value: string
  onValueChange: (value: string) => void
  label: string
  placeholder?: string
  ref?: Ref<HTMLInputElement>
  className?: string
}) {
  const id = useId()
  return (
    <search className={cx('relative h-fit w-full sm:max-w-xs', className)}>
      <label htmlFor={id} className="sr-only">
        {label}
      </label>
      <Search
        aria-hidden="true"
        className="pointer-events-none absolute top-1/2 left-2.5 size-4 -translate-y-1/2 text-faint"
      />
      <input
        ref={ref}
        id={id}
        type="search"
        data-search
        autoComplete="off"
        spellCheck={false}
        value={value}
        placeholder={placeholder}
        onChange={(event) => onValueChange(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === 'Escape' && value !== '') {
            event.preventDefault()
            onValueChange('')
          }
        }}
        className="control appearance-none pr-8 pl-8 [&::-webkit-search-cancel-button]:hidden"
      />
      {value !== '' && (
        <button
          type="button"
          aria-label={t('Clear the search')}
          onClick={() => onValueChange('')}
          className="absolute inset-y-0 right-0 flex w-8 items-center justify-center rounded text-muted hover:text-text"
        >
          <X aria-hidden="true" className="size-4" />
        </button>
      )}
    </search>
  )
}
