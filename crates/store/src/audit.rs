//! The audit log: who did what to which thing, and how it ended.

use sea_orm::{FromQueryResult, Value};
use toolyard_types::api::identity::AuditRecord;
use toolyard_types::{AuditId, OrganizationId, Timestamp};

use crate::query::{json, parse, placeholders, to_i64};
use crate::{OrgTx, Result, StoreError, SystemTx};

/// A line to be written.
#[derive(Clone, Debug)]
pub struct NewAudit {
    /// Who, as `kind:id`.
    pub actor: String,
    /// Who, for people.
    pub actor_display: String,
    /// What was done, such as `server.create`.
    pub action: String,
    /// To what, such as `server/everything`.
    pub target: String,
    /// Whether it was done, or refused.
    pub done: bool,
    /// More, without secrets.
    pub detail: serde_json::Value,
    /// The request id.
    pub request_id: Option<String>,
}

/// Which lines; an absent field does not narrow.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// By this one: as `kind:id`, or as shown to people.
    pub actor: Option<String>,
    /// What was done, such as `server.create`; without a dot everything of a noun, such as `server`.
    pub action: Option<String>,
    /// Anything but this, such as `session.mcp_key`.
    pub except: Option<&'static str>,
    /// To what, such as `server/everything`.
    pub target: Option<String>,
    /// Whether it was done, or refused.
    pub done: Option<bool>,
    /// From then on.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
    /// To any of these: what a narrowed key may see.
    pub within: Option<Vec<String>>,
}

#[derive(FromQueryResult)]
struct Row {
    id: String,
    at: i64,
    actor: String,
    actor_display: String,
    action: String,
    target: String,
    outcome: String,
    detail: String,
    request_id: Option<String>,
}

impl TryFrom<Row> for AuditRecord {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: parse("audit.id", &row.id)?,
            at: Timestamp::from_ms(row.at),
            actor: row.actor,
            actor_display: row.actor_display,
            action: row.action,
            target: row.target,
            outcome: row.outcome,
            detail: json("audit.detail", &row.detail)?,
            request_id: row.request_id,
        })
    }
}

fn outcome(done: bool) -> &'static str {
    if done { "done" } else { "refused" }
}

impl OrgTx {
    /// Writes a line of the audit log, in the same transaction as what it tells of.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&mut self, line: &NewAudit) -> Result<()> {
        let sql = "INSERT INTO audit (id, organization_id, at, actor, actor_display, action, target, outcome, detail, \
                   request_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let values = [
            AuditId::generate().to_string().into(),
            self.organization().to_string().into(),
            self.now().as_ms().into(),
            line.actor.as_str().into(),
            line.actor_display.as_str().into(),
            line.action.as_str().into(),
            line.target.as_str().into(),
            outcome(line.done).into(),
            line.detail.to_string().into(),
            line.request_id.clone().into(),
        ];
        self.execute(sql, values).await?;
        Ok(())
    }

    /// Lines before `before` (an id) that pass `filter`, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn audit_records(
        &self,
        filter: &AuditFilter,
        before: Option<AuditId>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>> {
        let mut sql = "SELECT id, at, actor, actor_display, action, target, outcome, detail, request_id FROM audit \
                       WHERE organization_id = $1 AND id < $2"
            .to_owned();
        // `g` sorts after every hex digit, so it is after every id.
        let before = before.map_or_else(|| "g".to_owned(), |id| id.to_string());
        let mut values: Vec<Value> = vec![self.organization().to_string().into(), before.into()];
        let mut add = |condition: &str, value: Value| {
            values.push(value);
            sql.push_str(&format!(" AND {}", condition.replace('?', &format!("${}", values.len()))));
        };
        if let Some(actor) = &filter.actor {
            add("(actor = ? OR actor_display = ?)", actor.as_str().into());
        }
        match &filter.action {
            // What was refused is named by what it needed, such as `credential:use`.
            Some(action) if action.contains(['.', ':']) => add("action = ?", action.as_str().into()),
            Some(noun) => add("substr(action, 1, length(?) + 1) = ? || '.'", noun.as_str().into()),
            None => {}
        }
        if let Some(except) = filter.except {
            add("action <> ?", except.into());
        }
        if let Some(target) = &filter.target {
            add("target = ?", target.as_str().into());
        }
        if let Some(done) = filter.done {
            add("outcome = ?", outcome(done).into());
        }
        if let Some(since) = filter.since {
            add("at >= ?", since.as_ms().into());
        }
        if let Some(until) = filter.until {
            add("at < ?", until.as_ms().into());
        }
        if let Some(within) = &filter.within {
            if within.is_empty() {
                return Ok(Vec::new());
            }
            sql.push_str(&format!(" AND target IN ({})", placeholders(values.len() + 1, within.len())));
            values.extend(within.iter().map(|target| Value::from(target.as_str())));
        }
        values.push(i64::from(limit).into());
        sql.push_str(&format!(" ORDER BY id DESC LIMIT ${}", values.len()));
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }
}

impl SystemTx {
    /// Forgets up to `at_once` audit records of each organization that are older than `before`, or more than `most`; of
    /// those that tell of something refused a quarter of `most` is kept. Returns how many went.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_audit(
        &self,
        organization: OrganizationId,
        before: Timestamp,
        most: u64,
        at_once: u32,
    ) -> Result<u64> {
        let organization = || Value::from(organization.to_string());
        let at_once = || Value::from(i64::from(at_once));
        // Ids are in the order of time, so the oldest are found without looking at the others.
        let old = "DELETE FROM audit WHERE id IN (SELECT id FROM (SELECT id, at FROM audit WHERE organization_id = $1 \
                   ORDER BY id LIMIT $3) AS oldest WHERE at < $2)";
        let mut gone = self.execute(old, [organization(), before.as_ms().into(), at_once()]).await?;
        for (which, most) in [("outcome = 'refused'", most / 4), ("TRUE", most)] {
            let many = format!(
                "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE organization_id = $1 AND {which} AND id <= \
                 (SELECT id FROM audit WHERE organization_id = $1 AND {which} ORDER BY id DESC LIMIT 1 OFFSET $2) \
                 ORDER BY id LIMIT $3)"
            );
            gone += self.execute(&many, [organization(), to_i64(most).into(), at_once()]).await?;
            if gone > 0 {
                // Another run goes on: nothing that was done goes for refusals that go too.
                break;
            }
        }
        Ok(gone)
    }
}
