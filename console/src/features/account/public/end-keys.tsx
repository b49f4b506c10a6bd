import type { FieldProps } from '@/lib/form'
import { t } from '@/lib/t'
import { Checkbox } from '@/ui/toggles'
import { MadeKeys, useMadeKeys } from './made-keys'

/** Names the API keys that somebody made, and asks whether they end too. Nothing when there are none. */
export function EndKeys({ maker, field }: { maker: string; field: FieldProps<boolean> }) {
  const keys = useMadeKeys(maker)
  if ((keys.data?.items.length ?? 0) === 0) return null
  return (
    <div className="flex flex-col gap-2">
      <MadeKeys
        maker={maker}
        title={(count) =>
          field.value ? t('{keys} end with it', { keys: count }) : t('{keys} keep working', { keys: count })
        }
      />
      <Checkbox
        {...field}
        label={t('Revoke these keys too')}
        hint={t('Where somebody else may have them. Whatever uses them needs new ones.')}
      />
    </div>
  )
}
