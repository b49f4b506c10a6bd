//! Resolve jobs: a toolbox turns a revision's package into a full lock.

use sea_orm::FromQueryResult;
use toolyard_types::state::Reason;
use toolyard_types::{JobId, RevisionId, Timestamp, ToolboxId};

use crate::query::{parse, reason};
use crate::{OrgTx, Result, StoreError, SystemTx};

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// A toolbox should do it.
    Pending,
    /// Its lock is stored.
    Done,
    /// There is no lock; the reason says why.
    Failed,
}

impl JobState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Where it is done.
    pub toolbox: ToolboxId,
    /// For which revision.
    pub revision: RevisionId,
    /// Where it is.
    pub state: JobState,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// Why, for a person; what it told of itself while it is pending.
    pub message: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "id, toolbox_id, revision_id, state, reason, message, created_at";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    toolbox_id: String,
    revision_id: String,
    state: String,
    reason: Option<String>,
    message: Option<String>,
    created_at: i64,
}

impl TryFrom<Row> for JobRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: parse("jobs.id", &row.id)?,
            toolbox: parse("jobs.toolbox_id", &row.toolbox_id)?,
            revision: parse("jobs.revision_id", &row.revision_id)?,
            state: match row.state.as_str() {
                "pending" => JobState::Pending,
                "done" => JobState::Done,
                _ => JobState::Failed,
            },
            reason: row.reason.as_deref().map(reason),
            message: row.message,
            created_at: Timestamp::from_ms(row.created_at),
        })
    }
}

impl OrgTx {
    /// Writes a new job.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_job(&self, job: &JobRow) -> Result<()> {
        let sql = format!("INSERT INTO jobs (organization_id, {COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");
        let values = [
            self.organization().to_string().into(),
            job.id.to_string().into(),
            job.toolbox.to_string().into(),
            job.revision.to_string().into(),
            job.state.as_str().into(),
            job.reason.map(|reason| reason.as_str().to_owned()).into(),
            job.message.clone().into(),
            job.created_at.as_ms().into(),
        ];
        self.execute(&sql, values).await?;
        Ok(())
    }

    /// Notes how a pending job ended; tells whether it was pending.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_job(&self, id: JobId, state: JobState, why: Option<(Reason, &str)>) -> Result<bool> {
        let sql = "UPDATE jobs SET state = $3, reason = $4, message = $5, ended_at = $6 \
                   WHERE organization_id = $1 AND id = $2 AND state = 'pending'";
        let values = [
            self.organization().to_string().into(),
            id.to_string().into(),
            state.as_str().into(),
            why.map(|(reason, _)| reason.as_str().to_owned()).into(),
            why.map(|(_, message)| message.to_owned()).into(),
            self.now().as_ms().into(),
        ];
        Ok(self.execute(sql, values).await? > 0)
    }

    /// Notes what a pending job told of itself last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tell_job(&self, id: JobId, message: &str) -> Result<()> {
        let sql = "UPDATE jobs SET message = $3 WHERE organization_id = $1 AND id = $2 AND state = 'pending'";
        self.execute(sql, [self.organization().to_string().into(), id.to_string().into(), message.into()]).await?;
        Ok(())
    }

    /// The jobs of a revision, newest first.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn jobs_of(&self, revision: RevisionId) -> Result<Vec<JobRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM jobs WHERE organization_id = $1 AND revision_id = $2 ORDER BY id DESC LIMIT 20"
        );
        let values = [self.organization().to_string().into(), revision.to_string().into()];
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// The jobs that a toolbox should do.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn jobs_on(&self, toolbox: ToolboxId) -> Result<Vec<JobRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM jobs WHERE organization_id = $1 AND toolbox_id = $2 AND state = 'pending' ORDER BY id"
        );
        let values = [self.organization().to_string().into(), toolbox.to_string().into()];
        self.rows::<Row>(sql, values).await?.into_iter().map(TryInto::try_into).collect()
    }
}

impl SystemTx {
    /// Forgets jobs that ended before `at`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_jobs(&self, at: Timestamp) -> Result<u64> {
        self.execute("DELETE FROM jobs WHERE state <> 'pending' AND ended_at < $1", [at.as_ms().into()]).await
    }
}
