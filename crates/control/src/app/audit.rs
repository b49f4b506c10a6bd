//! Reading the audit log. Writing a line is [`super::audit`].

use toolyard_store::AuditFilter;
use toolyard_types::api::identity::AuditRecord;
use toolyard_types::api::{Page, PageQuery};

use super::{id_cursor, next_cursor, page_limit, scope};
use crate::{Caller, Control, Result};

/// The audit log's lines that pass `filter`, newest first; with a narrowed key only those about its servers and toolsets.
pub(crate) async fn list(
    control: &Control,
    caller: &Caller,
    filter: AuditFilter,
    query: &PageQuery,
) -> Result<Page<AuditRecord>> {
    let limit = page_limit(query)?;
    let filter = AuditFilter { within: scope::subjects(caller), ..filter };
    let tx = control.store().org_read(caller.organization).await?;
    let items = tx.audit_records(&filter, id_cursor(query)?, limit + 1).await?;
    Ok(next_cursor(items, limit, |record| record.id.to_string()))
}
