import { createFileRoute } from '@tanstack/react-router'
import { pageTitle } from '@/app/title'
import { t } from '@/lib/t'
import { ExamplesPage } from '@/ui/examples/examples-page'

export const Route = createFileRoute('/_shell/design')({
  head: () => pageTitle(t('Design')),
  component: ExamplesPage,
})
