//! Small helpers that every noun's queries share: run a statement, read what a column holds.

use std::error::Error;
use std::str::FromStr;

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Statement, Value};
use serde::de::DeserializeOwned;
use toolyard_types::state::Reason;

use crate::{OrgTx, Result, StoreError, Tx};

impl Tx {
    /// The rows of one statement.
    pub(crate) async fn rows<T: FromQueryResult>(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<T>> {
        let statement = Statement::from_sql_and_values(self.db().get_database_backend(), sql, values);
        Ok(T::find_by_statement(statement).all(self.db()).await?)
    }

    /// The first row of one statement.
    pub(crate) async fn row<T: FromQueryResult>(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<T>> {
        let statement = Statement::from_sql_and_values(self.db().get_database_backend(), sql, values);
        Ok(T::find_by_statement(statement).one(self.db()).await?)
    }

    /// `FOR UPDATE` where the engine knows it; SQLite has one writer, so it needs none.
    pub(crate) fn for_update(&self) -> &'static str {
        if self.db().get_database_backend() == DbBackend::Postgres { " FOR UPDATE" } else { "" }
    }
}

/// A row of an id and a text.
#[derive(FromQueryResult)]
pub(crate) struct PairRow {
    pub(crate) id: String,
    pub(crate) text: String,
}

impl OrgTx {
    /// The rows of `select` (`SELECT id, ... AS text FROM ...`) in this organization with one of these ids.
    pub(crate) async fn pairs(&self, select: &str, ids: impl Iterator<Item = String>) -> Result<Vec<PairRow>> {
        let values: Vec<Value> = std::iter::once(self.organization().to_string()).chain(ids).map(Value::from).collect();
        if values.len() == 1 {
            return Ok(Vec::new());
        }
        let sql = format!("{select} WHERE organization_id = $1 AND id IN ({})", placeholders(2, values.len() - 1));
        self.rows(sql, values).await
    }

    /// How many rows of a table are this organization's; `more` narrows.
    pub(crate) async fn count_rows(&self, table: &'static str, more: &'static str) -> Result<u64> {
        let sql = format!("SELECT COUNT(*) AS number FROM {table} WHERE organization_id = $1 {more}");
        let row = self.row::<NumberRow>(sql, [self.organization().to_string().into()]).await?;
        count(table, row.map_or(0, |row| row.number))
    }
}

/// The most that the rows of one page or of one step through many are to take, in bytes. One row alone may take more.
pub(crate) const PAGE_BYTES: u64 = 1 << 20;

/// A page of rows, bounded by their number and by what they take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundedPage<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether there are more after them.
    pub more: bool,
}

/// How many rows a page has, of rows that take so many bytes: at most `limit`, together at most `most` bytes, and at least
/// one. The sizes are of one row more than `limit`; tells too whether that or another stays for the next page.
pub(crate) fn fitting(sizes: impl IntoIterator<Item = i64>, limit: u32, most: u64) -> (usize, bool) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut fit, mut taken) = (0, 0_u64);
    for size in sizes {
        taken = taken.saturating_add(u64::try_from(size).unwrap_or(0));
        if fit == limit || (fit > 0 && taken > most) {
            return (fit, true);
        }
        fit += 1;
    }
    (fit, false)
}

/// A row of one text column.
#[derive(FromQueryResult)]
pub(crate) struct TextRow {
    pub(crate) text: String,
}

/// A row of one number.
#[derive(FromQueryResult)]
pub(crate) struct NumberRow {
    pub(crate) number: i64,
}

/// Reads a text column into its type.
pub(crate) fn parse<T>(what: &'static str, text: &str) -> Result<T>
where
    T: FromStr,
    T::Err: Error + Send + Sync + 'static,
{
    text.parse().map_err(|source| corrupt(what, source))
}

/// Reads why something is in its state. A word that a newer version wrote reads as `internal`, as on a wire: one row must
/// not hide all others from nodes that are not upgraded yet.
pub(crate) fn reason(text: &str) -> Reason {
    text.parse().unwrap_or(Reason::Internal)
}

/// Reads a nullable text column into its type.
pub(crate) fn parse_option<T>(what: &'static str, text: Option<&str>) -> Result<Option<T>>
where
    T: FromStr,
    T::Err: Error + Send + Sync + 'static,
{
    text.map(|text| parse(what, text)).transpose()
}

/// Reads a JSON column into its type.
pub(crate) fn json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|source| corrupt(what, source))
}

/// Writes a value for a JSON column.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types have string keys and serialise")
}

/// Reads a count column.
pub(crate) fn count<T: TryFrom<i64>>(what: &'static str, number: i64) -> Result<T>
where
    T::Error: Error + Send + Sync + 'static,
{
    T::try_from(number).map_err(|source| corrupt(what, source))
}

/// Writes a number that our limits keep far below the largest.
pub(crate) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Writes a small number into an INTEGER column.
pub(crate) fn to_i32(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// `$from, $from+1, ...`: placeholders for `many` values.
pub(crate) fn placeholders(from: usize, many: usize) -> String {
    (from..from + many).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

fn corrupt(what: &'static str, source: impl Error + Send + Sync + 'static) -> StoreError {
    StoreError::Corrupt { what: what.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_before_it_takes_too_much_and_has_at_least_one_row() {
        assert_eq!(fitting([4, 4, 4], 2, 100), (2, true));
        assert_eq!(fitting([4, 4], 2, 100), (2, false));
        assert_eq!(fitting([4, 4, 4], 10, 9), (2, true));
        assert_eq!(fitting([40, 4], 10, 9), (1, true));
        assert_eq!(fitting([40], 10, 9), (1, false));
        assert_eq!(fitting([], 10, 9), (0, false));
    }
}
