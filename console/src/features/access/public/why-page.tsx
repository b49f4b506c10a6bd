import { keepPreviousData, useInfiniteQuery, useQuery } from '@tanstack/react-query'
import { CircleHelp } from 'lucide-react'
import { useId } from 'react'
import { listCredentials } from '@/api/generated/credentials'
import { ACTION } from '@/api/generated/enums'
import { why } from '@/api/generated/identity'
import { listServers } from '@/api/generated/servers'
import { listToolsets } from '@/api/generated/toolsets'
import type { Action, Why } from '@/api/generated/types'
import { q } from '@/api/queries'
import { may, useSession } from '@/api/session'
import { t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Card } from '@/ui/card'
import { Combobox } from '@/ui/combobox'
import { EmptyState } from '@/ui/empty-state'
import { KeyValueList } from '@/ui/key-value-list'
import { Panel } from '@/ui/panel'
import { Status } from '@/ui/status'
import { TickedText } from '@/ui/ticked-text'
import { actionHint, roleText } from '../roles'
import { keysQuery, membersQuery } from './queries'

/** What is asked, in the page's address. */
export interface WhyQuestion {
  action?: string | undefined
  /** `organization`, `server/NAME`, `toolset/NAME` or `credential/NAME`. */
  resource?: string | undefined
  member?: string | undefined
  key?: string | undefined
}

const SELF = 'self'
const ORGANIZATION = 'organization'

/** Asks the policies who may do what, and shows which of them decided. */
export function WhyPage({
  question,
  onQuestionChange,
}: {
  question: WhyQuestion
  onQuestionChange: (question: WhyQuestion) => void
}) {
  const id = useId()
  const session = useSession()
  const members = useQuery({ ...membersQuery, enabled: may(session, 'member:read') })
  const keys = useInfiniteQuery({ ...keysQuery, enabled: may(session, 'key:read') })
  const servers = useQuery({
    ...q(listServers, { query: { limit: 500 } }),
    enabled: may(session, 'server:read'),
  })
  const toolsets = useQuery({
    ...q(listToolsets, { query: { limit: 500 } }),
    enabled: may(session, 'toolset:read'),
  })
  const credentials = useQuery({
    ...q(listCredentials, { query: { limit: 500 } }),
    enabled: may(session, 'credential:read'),
  })
  const action = ACTION.find((one) => one === question.action)
  const who =
    question.member !== undefined
      ? `member/${question.member}`
      : question.key !== undefined
        ? `key/${question.key}`
        : SELF
  const change = (changes: WhyQuestion) => onQuestionChange({ ...question, ...changes })
  return (
    <div className="grid items-start gap-4 lg:grid-cols-[minmax(0,24rem)_minmax(0,1fr)]">
      <Card title={t('Question')}>
        <div className="flex flex-col gap-4">
          <Combobox
            id={`${id}who`}
            label={t('Who')}
            value={who}
            onValueChange={(value) => {
              const [kind, name] = split(value)
              change({
                member: kind === 'member' ? name : undefined,
                key: kind === 'key' ? name : undefined,
              })
            }}
            options={[
              { value: SELF, label: t('You, {name}', { name: oneLine(session.display, 80) }) },
              ...(members.data?.items ?? []).map((member) => ({
                value: `member/${member.id}`,
                label: oneLine(member.email, 120),
                hint: t('member, {role}', { role: roleText(member.role).toLowerCase() }),
              })),
              ...(keys.data?.pages.flatMap((page) => page.items) ?? [])
                .filter((key) => key.revoked_at == null)
                .map((key) => ({
                  value: `key/${key.id}`,
                  label: key.name,
                  hint: t('API key, {role}', { role: roleText(key.role).toLowerCase() }),
                })),
            ]}
          />
          <Combobox
            id={`${id}action`}
            label={t('Would do')}
            value={action ?? ''}
            placeholder={t('An action')}
            mono
            onValueChange={(value) => change({ action: value || undefined })}
            options={ACTION.map((one) => ({ value: one, label: one, hint: actionHint(one) }))}
          />
          <Combobox
            id={`${id}resource`}
            label={t('To')}
            value={question.resource ?? ORGANIZATION}
            onValueChange={(value) =>
              change({ resource: value === '' || value === ORGANIZATION ? undefined : value })
            }
            options={[
              {
                value: ORGANIZATION,
                label: t('The organization'),
                hint: t('where no server, toolset or credential is meant'),
              },
              ...(servers.data?.items ?? []).map(({ name }) => ({
                value: `server/${name}`,
                label: name,
                hint: t('server'),
              })),
              ...(toolsets.data?.items ?? []).map(({ name }) => ({
                value: `toolset/${name}`,
                label: name,
                hint: t('toolset'),
              })),
              ...(credentials.data?.items ?? []).map(({ name }) => ({
                value: `credential/${name}`,
                label: name,
                hint: t('credential'),
              })),
            ]}
          />
        </div>
      </Card>
      {action === undefined ? (
        <Card title={t('Answer')}>
          <EmptyState icon={CircleHelp} title={t('Choose an action')}>
            {t('The answer names the rules that decide, for you, a member or a key.')}
          </EmptyState>
        </Card>
      ) : (
        <Answer question={question} action={action} />
      )}
    </div>
  )
}

function Answer({ question, action }: { question: WhyQuestion; action: Action }) {
  const { resource, member, key } = question
  const query = useQuery({
    ...q(why, {
      query: {
        action,
        ...(resource === undefined ? {} : { resource }),
        ...(member === undefined ? {} : { member }),
        ...(key === undefined ? {} : { key }),
      },
    }),
    placeholderData: keepPreviousData,
    staleTime: 0,
  })
  return (
    <Panel title={t('Answer')} query={query.error === null ? query : { ...query, data: undefined }}>
      {(answer: Why) => (
        <div aria-live="polite">
          <Status kind={answer.allowed ? 'good' : 'bad'} className="mb-4 text-lg font-semibold">
            {answer.allowed ? t('Allowed') : t('Refused')}
          </Status>
          <KeyValueList
            items={[
              [t('Who'), oneLine(answer.principal, 200)],
              [
                t('Would do'),
                <>
                  <code className="id">{oneLine(answer.action, 60)}</code>
                  <span className="block text-muted">{actionHint(answer.action)}</span>
                </>,
              ],
              [
                t('To'),
                <code key="1" className="id">
                  {oneLine(answer.resource, 120)}
                </code>,
              ],
              [
                t('Because'),
                answer.because.length === 0 ? (
                  t('No rule allows it, and what no rule allows is refused.')
                ) : (
                  <ul key="2" className="flex flex-col gap-1">
                    {answer.because.map((rule) => (
                      <li key={rule}>
                        <TickedText text={plainText(rule, 500)} />
                      </li>
                    ))}
                  </ul>
                ),
              ],
            ]}
          />
        </div>
      )}
    </Panel>
  )
}

function split(value: string): [kind: string, name: string | undefined] {
  const slash = value.indexOf('/')
  return slash < 0 ? [value, undefined] : [value.slice(0, slash), value.slice(slash + 1)]
}
