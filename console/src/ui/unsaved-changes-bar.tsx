import { useBlocker } from '@tanstack/react-router'
import { focusInstead } from '@/lib/focus-after'
import { t } from '@/lib/t'
import { Button } from './button'
import { Dialog } from './dialog'

/**
 * Inside a form: says that something is not saved, with the buttons to save or discard it, and asks before the page
 * is left. It is there only while `dirty`.
 */
export function UnsavedChangesBar({
  dirty,
  saving,
  onDiscard,
  save = t('Save changes'),
  saveDenied,
}: {
  dirty: boolean
  saving: boolean
  onDiscard: () => void
  save?: string
  /** Why it cannot be saved. */
  saveDenied?: string | undefined
}) {
  return (
    <>
      {dirty && (
        <div
          role="status"
          className="sticky bottom-3 z-10 flex flex-wrap items-center justify-between gap-3 rounded-lg border border-line-strong/50 bg-raised px-4 py-2.5 shadow-lift"
        >
          <span>{t('Changes are not saved')}</span>
          <div className="flex gap-2">
            <Button size="small" onClick={() => focusInstead(onDiscard)}>
              {t('Discard')}
            </Button>
            <Button size="small" type="submit" variant="primary" busy={saving} disabledReason={saveDenied}>
              {save}
            </Button>
          </div>
        </div>
      )}
      <UnsavedChangesGuard dirty={dirty && !saving} />
    </>
  )
}

/** Asks before a page is left on which something was typed that is not saved. For forms with buttons of their own. */
export function UnsavedChangesGuard({ dirty }: { dirty: boolean }) {
  const blocker = useBlocker({
    shouldBlockFn: ({ current, next }) => dirty && current.pathname !== next.pathname,
    enableBeforeUnload: () => dirty,
    withResolver: true,
  })
  return (
    <Dialog
      open={blocker.status === 'blocked'}
      onOpenChange={(open) => !open && blocker.reset?.()}
      size="small"
      title={t('Leave without saving?')}
      description={t('What was changed on this page is lost.')}
      footer={
        <>
          <Button onClick={() => blocker.reset?.()}>{t('Stay')}</Button>
          <Button variant="danger" onClick={() => blocker.proceed?.()}>
            {t('Leave')}
          </Button>
        </>
      }
    />
  )
}
