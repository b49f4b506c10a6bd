//! What browsers reported about the console: bounded by number and by age.

use sea_orm::FromQueryResult;
use toolyard_types::api::activity::{ConsoleReport, ReportKind};
use toolyard_types::{ReportId, Timestamp};

use crate::query::parse;
use crate::{OrgTx, Result, StoreError, SystemTx};

/// In the place of a member's id: the report of somebody who was not signed in.
const STRANGER: &str = "nobody";
/// Strangers may have this part of the reports that are kept, so that they push nobody else's out.
const STRANGERS_PART: u32 = 4;

const COLUMNS: &str = "id, received_at, at, kind, name, value, route, message, stack, build, user_agent";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    received_at: i64,
    at: i64,
    kind: String,
    name: String,
    value: Option<f64>,
    route: String,
    message: String,
    stack: String,
    build: String,
    user_agent: String,
}

impl TryFrom<Row> for ConsoleReport {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        let kind =
            ReportKind::ALL.iter().find(|kind| kind.as_str() == row.kind).ok_or_else(|| StoreError::Corrupt {
                what: "console_reports.kind".to_owned(),
                source: format!("unknown kind of report `{}`", row.kind).into(),
            })?;
        Ok(Self {
            id: parse("console_reports.id", &row.id)?,
            received_at: Timestamp::from_ms(row.received_at),
            at: Timestamp::from_ms(row.at),
            kind: *kind,
            name: row.name,
            value: row.value,
            route: row.route,
            message: row.message,
            stack: row.stack,
            build: row.build,
            user_agent: row.user_agent,
        })
    }
}

impl OrgTx {
    /// Writes reports and forgets the oldest ones beyond the newest `most`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_console_reports(&self, reports: &[ConsoleReport], stranger: bool, most: u32) -> Result<()> {
        let sql = format!(
            "INSERT INTO console_reports (organization_id, {COLUMNS}, member) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
        );
        for report in reports {
            let values = [
                self.organization().to_string().into(),
                report.id.to_string().into(),
                report.received_at.as_ms().into(),
                report.at.as_ms().into(),
                report.kind.as_str().into(),
                report.name.as_str().into(),
                report.value.into(),
                report.route.as_str().into(),
                report.message.as_str().into(),
                report.stack.as_str().into(),
                report.build.as_str().into(),
                report.user_agent.as_str().into(),
                stranger.then(|| STRANGER.to_owned()).into(),
            ];
            self.execute(&sql, values).await?;
        }
        let sql = "DELETE FROM console_reports WHERE organization_id = $1 AND COALESCE(member, '') = $3 AND id <= \
                   (SELECT id FROM console_reports WHERE organization_id = $1 AND COALESCE(member, '') = $3 \
                   ORDER BY id DESC LIMIT 1 OFFSET $2)";
        let (whose, most) = if stranger { (STRANGER, most / STRANGERS_PART) } else { ("", most) };
        self.execute(sql, [self.organization().to_string().into(), i64::from(most).into(), whose.into()]).await?;
        Ok(())
    }

    /// Reports before `before` (an id), newest first, at most `limit`; only of one kind, when given.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn console_reports(
        &self,
        kind: Option<ReportKind>,
        before: Option<ReportId>,
        limit: u32,
    ) -> Result<Vec<ConsoleReport>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM console_reports WHERE organization_id = $1 AND id < $2 \
             AND kind = COALESCE($4, kind) ORDER BY id DESC LIMIT $3"
        );
        // `g` sorts after every hex digit, so it is after every id.
        let before = before.map_or_else(|| "g".to_owned(), |id| id.to_string());
        let values = [
            self.organization().to_string().into(),
            before.into(),
            i64::from(limit).into(),
            kind.map(|kind| kind.as_str().to_owned()).into(),
        ];
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }
}

impl SystemTx {
    /// Forgets reports that arrived before `at`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_console_reports(&self, at: Timestamp) -> Result<u64> {
        self.execute("DELETE FROM console_reports WHERE received_at < $1", [at.as_ms().into()]).await
    }
}
