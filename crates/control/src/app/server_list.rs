//! Servers in an order, by pages.

use toolyard_policy::Resource;
use toolyard_store::{ServerPosition, ServerRow, ServerSort, ServersPage};
use toolyard_types::access::Action;
use toolyard_types::api::servers::Server;
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::state::Phase;
use toolyard_types::{Name, Timestamp};

use super::server_view::Views;
use super::{LARGEST_PAGE, page_limit, places};
use crate::{Caller, Control, ControlError, Result};

/// How many servers one page looks through for those of a phase.
const MOST_LOOKED_AT: u32 = 10_000;

/// Which servers are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServersWanted {
    /// Those with this in their name or entry.
    pub(crate) search: Option<String>,
    /// Those in this phase.
    pub(crate) phase: Option<Phase>,
    /// Those that run on this toolbox, or must.
    pub(crate) toolbox: Option<Name>,
    /// In this order.
    pub(crate) sort: ServerSort,
}

/// Where a row is in a list of an order.
fn position_of(row: &ServerRow, sort: ServerSort) -> ServerPosition {
    match sort {
        ServerSort::Name | ServerSort::NameDescending => ServerPosition::Name(row.name.clone()),
        ServerSort::Created | ServerSort::CreatedDescending => ServerPosition::Created(row.created_at, row.id),
    }
}

fn cursor_of(position: &ServerPosition) -> String {
    match position {
        ServerPosition::Name(name) => name.to_string(),
        ServerPosition::Created(at, id) => format!("{}.{id}", at.as_ms()),
    }
}

fn read_cursor(text: &str, sort: ServerSort) -> Option<ServerPosition> {
    match sort {
        ServerSort::Name | ServerSort::NameDescending => Name::new(text).ok().map(ServerPosition::Name),
        ServerSort::Created | ServerSort::CreatedDescending => {
            let (at, id) = text.split_once('.')?;
            Some(ServerPosition::Created(Timestamp::from_ms(at.parse().ok()?), id.parse().ok()?))
        }
    }
}

/// Servers in an order.
pub(crate) async fn list(
    control: &Control,
    caller: &Caller,
    query: &PageQuery,
    wanted_servers: &ServersWanted,
) -> Result<Page<Server>> {
    let (sort, phase) = (wanted_servers.sort, wanted_servers.phase);
    let limit = page_limit(query)?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let foreign = || ControlError::field("cursor", "is not one of this list's");
    let mut after = query.cursor.as_deref().map(|text| read_cursor(text, sort).ok_or_else(foreign)).transpose()?;
    let tx = control.store().org_read(caller.organization).await?;
    let toolbox = places::toolbox_named(&tx, wanted_servers.toolbox.as_ref()).await?;
    let search = wanted_servers.search.as_deref();
    let mut items: Vec<Server> = Vec::new();
    let mut looked_at = 0;
    // A phase is computed, not stored: those who look for one read many servers at once.
    let batch = if phase.is_some() { LARGEST_PAGE } else { limit };
    loop {
        let page = ServersPage { after: after.as_ref(), search, toolbox, sort, limit: batch + 1 };
        let rows = tx.servers_list(&page).await?;
        let size = usize::try_from(batch).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        let rows = rows.get(..rows.len().min(size)).unwrap_or_default();
        let views = Views::read(control, &tx, &caller.organization_name, rows).await?;
        for (at, row) in rows.iter().enumerate() {
            after = Some(position_of(row, sort));
            let server = views.server(row);
            // What may not be called is not listed: one decision function answers both.
            let visible = control.decider().allows(caller, Action::ServerRead, &Resource::Server(row.name.clone()));
            if visible && phase.is_none_or(|phase| server.phase == phase) {
                items.push(server);
            }
            if items.len() == wanted {
                let ended = !more && at + 1 == rows.len();
                return Ok(Page { items, next_cursor: after.filter(|_| !ended).as_ref().map(cursor_of) });
            }
        }
        looked_at += batch;
        if !more || looked_at >= MOST_LOOKED_AT {
            return Ok(Page { items, next_cursor: after.filter(|_| more).as_ref().map(cursor_of) });
        }
    }
}
