//! Whether writes work: a row that is written, and read back through another connection.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, RuntimeErr, Statement};

use crate::query::TextRow;
use crate::{Result, Store, Tx};

/// How long what others wrote here is kept.
const KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

impl Store {
    /// Whether what is written here can be read by others: writes `token` as the word of `name` (one row for each) and
    /// reads it back through another connection. Not for the path of a request.
    ///
    /// # Errors
    /// When the database fails, or another connection does not see what was committed.
    pub async fn check_writes(&self, name: &str, token: &str) -> Result<()> {
        self.is_where_it_was()?;
        // Taken before the other is given back, so that it is not the same.
        let reading = self.reader.acquire().await?;
        let tx = Tx::begin(&self.writer, true, self).await?;
        let sql = "INSERT INTO write_checks (name, token, at) VALUES ($1, $2, $3) \
                   ON CONFLICT (name) DO UPDATE SET token = $2, at = $3";
        tx.execute(sql, [name.into(), token.into(), tx.now().as_ms().into()]).await?;
        tx.execute("DELETE FROM write_checks WHERE at < $1", [tx.now().minus(KEPT).as_ms().into()]).await?;
        tx.commit().await?;
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
