import { Drawer } from '@/ui/dialog'
import { Navigation } from './navigation-list'

/** The navigation on phones. */
export function NavigationDrawer({ onOpenChange }: { onOpenChange: (open: boolean) => void }) {
  return (
    <Drawer open onOpenChange={onOpenChange} title="Toolyard" side="left">
      <Navigation narrow={false} onNavigate={() => onOpenChange(false)} />
    </Drawer>
  )
}
