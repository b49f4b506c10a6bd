//! *Generations*: tells syncs that are held open when their toolbox should run something else. One query for
//! all of them, so that a change costs the same with one toolbox or a thousand.

use super::Pass;
use crate::{Control, Result};

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    let generations = control.store().system_read("reading generations").await?.generations().await?;
    control.fleet().learn_generations(&generations);
    Ok(Pass::default())
}
