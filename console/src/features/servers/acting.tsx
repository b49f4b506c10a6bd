import { useQueryClient } from '@tanstack/react-query'
import { useNavigate } from '@tanstack/react-router'
import { createContext, type ReactNode, useContext, useMemo, useState } from 'react'
import { getServer } from '@/api/generated/servers'
import type { Action, Server } from '@/api/generated/types'
import { isGone } from '@/api/gone'
import { queryKey } from '@/api/queries'
import { may, useSession } from '@/api/session'
import { t } from '@/lib/t'
import { ConfirmDialog } from '@/ui/dialog'
import { toast } from '@/ui/toast'
import { type ServerActionId, serverAction } from './actions'
import { CloneDialog } from './clone-dialog'

/** Does something to a server; asks first where it interrupts or destroys. */
export type Act = (id: ServerActionId | 'clone', name: string) => Promise<void>

interface ActingValue {
  act: Act
  /** Why the session may not do something; `undefined` when it may. */
  denied: (action: Action) => string | undefined
}

const Acting = createContext<ActingValue | undefined>(undefined)

/**
 * What does things to servers in this part of the page, and what may be done. It is the same as long as the session
 * is: a row of a long list that uses it asks nothing else.
 */
export function useActing(): ActingValue {
  const acting = useContext(Acting)
  if (acting === undefined) throw new Error('there is no ActingProvider around this')
  return acting
}

/** What does things to servers in this part of the page. */
export function useAct(): Act {
  return useActing().act
}

interface Asked {
  id: ServerActionId
  name: string
}

/** Around whatever has buttons or menus for servers: holds the questions that they ask. */
export function ActingProvider({ children, onDeleted }: { children: ReactNode; onDeleted?: () => void }) {
  const client = useQueryClient()
  const navigate = useNavigate()
  const [asked, setAsked] = useState<Asked>()
  const [cloned, setCloned] = useState<string>()
  const session = useSession()
  const act = useMemo((): Act => {
    const run = async ({ id, name }: Asked) => {
      const server = await serverAction(id).run(name)
      // What the server answered is newer than what was shown; the event that follows brings the rest.
      client.setQueryData(queryKey(getServer, { path: { name } }), server)
      toast.done({ title: serverAction(id).done(name) })
    }
    return async (id, name) => {
      if (id === 'clone') setCloned(name)
      else if (id === 'stop' || id === 'delete') setAsked({ id, name })
      else
        await run({ id, name }).catch((error: unknown) => toast.problem(serverAction(id).failed(name), error))
    }
  }, [client])
  const value = useMemo(
    (): ActingValue => ({
      act,
      denied: (action) =>
        may(session, action)
          ? undefined
          : t('Your role ({role}) does not allow this', { role: session.role }),
    }),
    [act, session],
  )
  const action = asked === undefined ? undefined : serverAction(asked.id)
  const confirmed = async ({ id, name }: Asked) => {
    let server: Server | undefined
    try {
      server = await serverAction(id).run(name)
    } catch (error) {
      // Somebody else was faster.
      if (!(id === 'delete' && isGone(error))) throw error
    }
    if (server !== undefined) client.setQueryData(queryKey(getServer, { path: { name } }), server)
    toast.done({ title: serverAction(id).done(name) })
    if (id === 'delete') onDeleted?.()
  }
  return (
    <Acting value={value}>
      {children}
      {asked !== undefined && action !== undefined && (
        <ConfirmDialog
          open
          onOpenChange={(open) => !open && setAsked(undefined)}
          title={action.question(asked.name)}
          confirm={action.label}
          danger={action.danger}
          {...(asked.id === 'delete' ? { typeToConfirm: asked.name } : {})}
          onConfirm={() => confirmed(asked)}
        >
          {action.consequence}
        </ConfirmDialog>
      )}
      {cloned !== undefined && (
        <CloneDialog
          name={cloned}
          onOpenChange={(open) => !open && setCloned(undefined)}
          onCloned={(copy) => {
            setCloned(undefined)
            toast.done({ title: t('{name} is a copy of {original}', { name: copy, original: cloned }) })
            void navigate({ to: '/servers/$name', params: { name: copy }, ignoreBlocker: true })
          }}
        />
      )}
    </Acting>
  )
}
