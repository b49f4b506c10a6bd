import { useSuspenseQuery } from '@tanstack/react-query'
import { Ellipsis, Plus } from 'lucide-react'
import { useState } from 'react'
import { TOOLBOX_STATE } from '@/api/generated/enums'
import type { Toolbox } from '@/api/generated/types'
import { useDenied } from '@/api/session'
import { formatNumber } from '@/lib/format'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button, IconButton } from '@/ui/button'
import { Card } from '@/ui/card'
import { Link } from '@/ui/link'
import { Menu } from '@/ui/menu'
import { PageHeader } from '@/ui/page-header'
import { RelativeTime } from '@/ui/relative-time'
import { type Column, type Sort, Table, UNTIL } from '@/ui/table'
import { TickedText } from '@/ui/ticked-text'
import { EnrollDialog } from '../enroll-dialog'
import { menuItems, useToolboxActions } from '../toolbox-actions'
import { toolboxesQuery } from './queries'
import { labelsText, ToolboxStatus, toolboxWhy } from './toolbox-state'

const COLUMNS: ReadonlyArray<Column<Toolbox>> = [
  {
    id: 'name',
    header: t('Name'),
    compare: (one, other) => one.name.localeCompare(other.name),
    cell: (toolbox) => (
      <>
        <Link
          to="/toolboxes/$name"
          params={{ name: toolbox.name }}
          className="id font-medium text-text hover:text-accent"
        >
          {toolbox.name}
        </Link>
        <span className={`block text-sm ${UNTIL.xs}`}>
          <ToolboxStatus state={toolbox.state} />
        </span>
      </>
    ),
  },
  {
    id: 'state',
    header: t('State'),
    width: '8.5rem',
    from: 'xs',
    compare: (one, other) => TOOLBOX_STATE.indexOf(one.state) - TOOLBOX_STATE.indexOf(other.state),
    cell: (toolbox) => <ToolboxStatus state={toolbox.state} />,
  },
  {
    id: 'why',
    header: t('Why'),
    from: 'lg',
    cell: (toolbox) => (
      <span className="text-muted" title={toolboxWhy(toolbox)}>
        <TickedText text={toolboxWhy(toolbox)} />
      </span>
    ),
  },
  {
    id: 'engine',
    header: t('Engine'),
    width: '7rem',
    from: 'md',
    compare: (one, other) => one.engine.localeCompare(other.engine),
    cell: (toolbox) => oneLine(toolbox.engine, 40) || '–',
  },
  {
    id: 'labels',
    header: t('Labels'),
    width: '12rem',
    from: '2xl',
    cell: (toolbox) => (
      <span className="id text-muted" title={labelsText(toolbox.labels)}>
        {labelsText(toolbox.labels) || '–'}
      </span>
    ),
  },
  {
    id: 'instances',
    header: t('Instances'),
    width: '7.5rem',
    align: 'end',
    from: 'sm',
    compare: (one, other) => one.instances - other.instances,
    cell: (toolbox) => formatNumber(toolbox.instances),
  },
  {
    id: 'seen',
    header: t('Last seen'),
    width: '8rem',
    align: 'end',
    from: 'md',
    compare: (one, other) => (other.last_seen_at ?? '').localeCompare(one.last_seen_at ?? ''),
    cell: (toolbox) =>
      toolbox.last_seen_at == null ? (
        <span className="text-faint">{t('Never')}</span>
      ) : (
        <RelativeTime at={toolbox.last_seen_at} className="text-muted" />
      ),
  },
  {
    id: 'menu',
    header: t('Actions'),
    hideHeader: true,
    width: '3.5rem',
    align: 'end',
    cell: (toolbox) => <ToolboxMenu toolbox={toolbox} />,
  },
]

/** The hosts that run servers. */
export function ToolboxesPage({ sort, onSortChange }: { sort: Sort; onSortChange: (sort: Sort) => void }) {
  // When a toolbox was last heard changes without an event.
  const { data } = useSuspenseQuery({ ...toolboxesQuery, refetchInterval: 15_000 })
  const denied = useDenied('toolbox:manage')
  const [enrolling, setEnrolling] = useState(false)
  return (
    <>
      <PageHeader
        title={t('Toolboxes')}
        meta={<span className="tabular text-muted">{formatNumber(data.items.length)}</span>}
        actions={
          <Button variant="primary" icon={Plus} disabledReason={denied} onClick={() => setEnrolling(true)}>
            {t('Add a toolbox')}
          </Button>
        }
      >
        {t('Where servers run: this machine, and every host with an agent.')}
      </PageHeader>
      <Card flush className="overflow-clip">
        <Table
          label={t('Toolboxes')}
          rows={data.items}
          columns={COLUMNS}
          rowKey={(toolbox) => toolbox.id}
          sort={sort}
          onSortChange={onSortChange}
        />
      </Card>
      {enrolling && <EnrollDialog onClose={() => setEnrolling(false)} />}
    </>
  )
}

function ToolboxMenu({ toolbox }: { toolbox: Toolbox }) {
  const { actions, dialogs } = useToolboxActions(toolbox)
  return (
    <>
      <Menu
        trigger={
          <IconButton icon={Ellipsis} label={t('Actions for {name}', { name: toolbox.name })} size="small" />
        }
        items={menuItems(actions)}
      />
      {dialogs}
    </>
  )
}
