//! Whether writes work: a row that is written, and read back through another connection.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, RuntimeErr, Statement};

use crate::query::{NumberRow, TextRow};
use crate::{Result, Store, Tx};

/// How long what others wrote here is kept.
const KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// What a replica adds to its word when it was refused for want of room, and for how long others take notice.
const NO_ROOM: &str = " (no room)";
const TOLD_LATELY: std::time::Duration = std::time::Duration::from_secs(15);
/// How much a database must have room for again.
const LARGE_BYTES: usize = 512 << 10;

/// Text that a database cannot make smaller.
fn incompressible() -> String {
    use rand::distr::{Alphanumeric, SampleString};
    Alphanumeric.sample_string(&mut rand::rng(), LARGE_BYTES)
}

impl Store {
    /// Whether what is written here can be read by others: writes `token` as the word of `name` (one row for each) and
    /// reads it back through another connection. Not for the path of a request.
    ///
    /// # Errors
    /// When the database fails, or another connection does not see what was committed.
    pub async fn check_writes(&self, name: &str, token: &str) -> Result<()> {
        self.look_for_the_log().await?;
        // Taken before the other is given back, so that it is not the same.
        let reading = self.reader.acquire().await?;
        let refusals = self.writer.refusals();
        let open = refusals.open();
        // A row that is changed in place finds room where there is no other, and tells the other replicas.
        let token = if open.is_some() { format!("{token}{NO_ROOM}") } else { token.to_owned() };
        let tx = Tx::begin(&self.writer, true, self).await?;
        let now = tx.now();
        let sql = "INSERT INTO write_checks (name, token, at) VALUES ($1, $2, $3) \
                   ON CONFLICT (name) DO UPDATE SET token = $2, at = $3";
        tx.execute(sql, [name.into(), token.as_str().into(), now.as_ms().into()]).await?;
        let sql = "SELECT COUNT(*) AS number FROM write_checks WHERE name <> $1 AND token LIKE $2 AND at > $3";
        let told = [name.into(), format!("%{NO_ROOM}").into(), now.minus(TOLD_LATELY).as_ms().into()];
        let told = tx.row::<NumberRow>(sql, told).await?.is_some_and(|row| row.number > 0);
        tx.commit().await?;
        // Where writes were refused for want of room, here or elsewhere, a row that fits into what is there tells nothing of
        // those that do not.
        let tx = Tx::begin(&self.writer, true, self).await?;
        tx.execute("DELETE FROM write_checks WHERE at < $1", [now.minus(KEPT).as_ms().into()]).await?;
        if open.is_some() || told {
            let large = format!("{name} with room");
            let sql = "INSERT INTO write_checks (name, token, at) VALUES ($1, $2, $3)";
            tx.execute(sql, [large.as_str().into(), incompressible().into(), now.as_ms().into()]).await?;
            tx.execute("DELETE FROM write_checks WHERE name = $1", [large.into()]).await?;
        }
        tx.commit().await?;
        if let Some(open) = open {
            refusals.end(open);
        }
        let sql = "SELECT token AS text FROM write_checks WHERE name = $1";
        let statement = Statement::from_sql_and_values(reading.get_database_backend(), sql, [name.into()]);
        let row = TextRow::find_by_statement(statement).one(&reading).await?;
        if row.is_some_and(|row| row.text == token) {
            return Ok(());
        }
        let why = "what was committed cannot be read through another connection";
        Err(DbErr::Exec(RuntimeErr::Internal(why.to_owned())).into())
    }
}
