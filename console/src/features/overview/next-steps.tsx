import { CircleCheck, CircleDashed, X } from 'lucide-react'
import { useState } from 'react'
import type { NextStep } from '@/api/generated/types'
import { may, useSession } from '@/api/session'
import { cx } from '@/lib/cx'
import { storage } from '@/lib/storage'
import { t } from '@/lib/t'
import { IconButton } from '@/ui/button'
import { Card } from '@/ui/card'
import { ButtonLink } from '@/ui/link'

interface Step {
  title: string
  text: string
  done: boolean
  action: string
  to: '/marketplace' | '/toolsets' | '/connect'
}

/** The way of somebody new: each step is ticked off by what is there, not by what was clicked. */
export function NextSteps({ facts }: { facts: NextStep }) {
  const session = useSession()
  const [hidden, setHidden] = useState(storage.get('overview-steps') === 'hidden')
  const steps: Step[] = [
    {
      title: t('Deploy a server'),
      text: t('Find it in the marketplace, give it what it needs, and watch it become ready.'),
      done: facts.has_servers,
      action: t('Open the marketplace'),
      to: '/marketplace',
    },
    {
      title: t('Make a toolset'),
      text: t('Choose tools of several servers, and serve them at one address.'),
      done: facts.has_toolsets,
      action: t('Make a toolset'),
      to: '/toolsets',
    },
    {
      title: t('Connect a client'),
      text: t('Give an agent its key and the address, and see its first call arrive.'),
      done: facts.has_calls,
      action: t('Connect a client'),
      to: '/connect',
    },
  ]
  // A toolset is a step that one may leave out.
  if (hidden || (facts.has_servers && facts.has_calls) || !may(session, 'server:deploy')) return null
  const next = steps.find((step) => !step.done)
  return (
    <Card
      title={t('Next steps')}
      flush
      actions={
        <IconButton
          icon={X}
          label={t('Hide the next steps')}
          size="small"
          onClick={() => {
            storage.set('overview-steps', 'hidden')
            setHidden(true)
          }}
        />
      }
    >
      <ol className="grid md:grid-cols-3 md:divide-x max-md:divide-y">
        {steps.map((step) => {
          const Icon = step.done ? CircleCheck : CircleDashed
          return (
            <li key={step.title} className="flex items-start gap-3 p-pad">
              <Icon
                aria-hidden="true"
                className={cx('mt-0.5 size-4 shrink-0', step.done ? 'text-good' : 'text-faint')}
              />
              <div className="min-w-0">
                <p className={cx('font-medium', step.done && 'text-muted')}>
                  {step.title}
                  <span className="sr-only">: {step.done ? t('done') : t('not yet')}</span>
                </p>
                <p className="mt-0.5 text-sm text-muted">{step.text}</p>
                {!step.done && (
                  <ButtonLink
                    to={step.to}
                    size="small"
                    variant={step === next ? 'primary' : 'secondary'}
                    className="mt-2.5"
                  >
                    {step.action}
                  </ButtonLink>
                )}
              </div>
            </li>
          )
        })}
      </ol>
    </Card>
  )
}
