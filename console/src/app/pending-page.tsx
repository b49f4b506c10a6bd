import { Skeleton, SkeletonLines } from '@/ui/skeleton'

/** A page on its way: the places of its head and its first card. */
export function PendingPage() {
  return (
    <div>
      <Skeleton className="mt-1 mb-6 h-5 w-48" />
      <div className="rounded-lg border bg-surface">
        <SkeletonLines count={8} rows />
      </div>
    </div>
  )
}
