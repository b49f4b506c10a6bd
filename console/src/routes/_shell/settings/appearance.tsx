import { createFileRoute } from '@tanstack/react-router'
import { setDensity, setTheme, useDensity, useTheme } from '@/app/appearance'
import { pageTitle } from '@/app/title'
import { AppearancePage } from '@/features/settings/public/appearance-page'
import { t } from '@/lib/t'
import { privacySignal, reportsWanted, setReportsWanted } from '@/lib/telemetry-choice'

export const Route = createFileRoute('/_shell/settings/appearance')({
  head: () => pageTitle(t('Appearance')),
  component: Page,
})

function Page() {
  return (
    <AppearancePage
      theme={useTheme()}
      onThemeChange={setTheme}
      density={useDensity()}
      onDensityChange={setDensity}
      reports={{
        wanted: reportsWanted,
        setWanted: setReportsWanted,
        refusedByBrowser: privacySignal(),
      }}
    />
  )
}
