//! Reading the audit log. Writing a line is [`super::audit`].

use toolyard_types::api::identity::AuditRecord;
use toolyard_types::api::{Page, PageQuery};

use super::{id_cursor, next_cursor, page_limit};
use crate::{Caller, Control, Result};

/// The audit log, newest first.
pub(crate) async fn list(control: &Control, caller: &Caller, query: &PageQuery) -> Result<Page<AuditRecord>> {
    let limit = page_limit(query)?;
    let tx = control.store().org_read(caller.organization).await?;
    let items = tx.audit_records(id_cursor(query)?, limit + 1).await?;
    Ok(next_cursor(items, limit, |record| record.id.to_string()))
}
