import { callToChange } from '@/api/answer-lost'
import { deleteToolset } from '@/api/generated/toolsets'
import { t } from '@/lib/t'
import { ConfirmDialog } from '@/ui/dialog'
import { toast } from '@/ui/toast'

/** Asks before a toolset is deleted. */
export function DeleteToolset({
  name,
  open,
  onOpenChange,
  onDeleted,
}: {
  name: string
  open: boolean
  onOpenChange: (open: boolean) => void
  onDeleted: () => void
}) {
  return (
    <ConfirmDialog
      open={open}
      onOpenChange={onOpenChange}
      title={t('Delete the toolset {name}?', { name })}
      confirm={t('Delete')}
      danger
      typeToConfirm={name}
      onConfirm={async () => {
        await callToChange(
          deleteToolset,
          { path: { name } },
          t('It is not known whether {name} is deleted', { name }),
        )
        toast.done({ title: t('{name} is deleted', { name }) })
        onDeleted()
      }}
    >
      {t('Clients that use its address lose these tools at once. Its servers stay.')}
    </ConfirmDialog>
  )
}
