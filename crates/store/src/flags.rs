//! Feature flags: the rules that administrators set. Which flags exist is the program's business.

use std::collections::BTreeMap;

use sea_orm::FromQueryResult;
use toolyard_types::api::system::FlagRule;

use crate::query::{json, to_json};
use crate::{EventKind, Result, SystemTx};

#[derive(FromQueryResult)]
struct Row {
    name: String,
    rule: String,
}

impl SystemTx {
    /// Every rule by flag.
    ///
    /// # Errors
    /// When the database fails or a row cannot be read.
    pub async fn flag_rules(&self) -> Result<BTreeMap<String, FlagRule>> {
        let rows = self.rows::<Row>("SELECT name, rule FROM flags", []).await?;
        rows.into_iter().map(|row| Ok((row.name, json("flags.rule", &row.rule)?))).collect()
    }

    /// Sets a flag's rule, or with `None` takes it away.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_flag_rule(&mut self, name: &str, rule: Option<&FlagRule>) -> Result<()> {
        match rule {
            Some(rule) => {
                let sql = "INSERT INTO flags (name, rule, updated_at) VALUES ($1, $2, $3) \
                           ON CONFLICT (name) DO UPDATE SET rule = $2, updated_at = $3";
                self.execute(sql, [name.into(), to_json(rule).into(), self.now().as_ms().into()]).await?;
            }
            None => {
                self.execute("DELETE FROM flags WHERE name = $1", [name.into()]).await?;
            }
        }
        self.event(None, EventKind::FlagChanged, format!("flag/{name}"), serde_json::json!({}));
        Ok(())
    }
}
