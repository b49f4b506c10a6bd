import { useState } from 'react'
import { t } from '@/lib/t'
import { Card } from '@/ui/card'
import { RadioGroup, Switch } from '@/ui/toggles'

export type Theme = 'system' | 'light' | 'dark'
export type Density = 'comfortable' | 'compact'

/** How the console looks in this browser, and what it reports. */
export function AppearancePage({
  theme,
  onThemeChange,
  density,
  onDensityChange,
  reports,
}: {
  theme: Theme
  onThemeChange: (theme: Theme) => void
  density: Density
  onDensityChange: (density: Density) => void
  reports: { wanted: () => boolean; setWanted: (wanted: boolean) => void; refusedByBrowser: boolean }
}) {
  const [reporting, setReporting] = useState(reports.wanted)
  return (
    <div className="flex max-w-3xl flex-col gap-4">
      <Card title={t('Look')} description={t('Kept in this browser.')}>
        <div className="flex flex-col gap-5">
          <RadioGroup
            label={t('Theme')}
            name="theme"
            value={theme}
            onValueChange={onThemeChange}
            options={[
              { value: 'system', label: t('As the system') },
              { value: 'light', label: t('Light') },
              { value: 'dark', label: t('Dark') },
            ]}
          />
          <RadioGroup
            label={t('Density')}
            name="density"
            value={density}
            onValueChange={onDensityChange}
            options={[
              { value: 'comfortable', label: t('Comfortable') },
              { value: 'compact', label: t('Compact'), hint: t('More rows on a screen.') },
            ]}
          />
        </div>
      </Card>
      <Card title={t('Reports')}>
        <Switch
          label={t('Report speed and errors of the console')}
          hint={t(
            'To this Toolyard only, never to anybody else: how fast pages were, which parts were used and what broke. Never what you typed or what servers answered.',
          )}
          value={reporting}
          onValueChange={(wanted) => {
            reports.setWanted(wanted)
            setReporting(wanted)
          }}
          disabledReason={
            reports.refusedByBrowser
              ? t('Your browser asks not to be observed (Global Privacy Control)')
              : undefined
          }
        />
      </Card>
    </div>
  )
}
