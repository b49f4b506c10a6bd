import { createFileRoute } from '@tanstack/react-router'
import { pageTitle } from '@/app/title'
import { submittedQuery } from '@/features/catalog/public/queries'
import { ReviewPage } from '@/features/catalog/public/review-page'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/marketplace/review')({
  head: () => pageTitle(t('Review')),
  loader: ({ context: { queryClient } }) => queryClient.ensureQueryData(submittedQuery),
  component: ReviewPage,
})
