//! *Generations*: tells syncs that are held open when their toolbox should run something else, and ends the links of
//! certificates that were revoked. One query for all of them, so that a change costs the same with one toolbox or a
//! thousand.

use std::collections::HashMap;

use super::Pass;
use crate::{Control, Result};

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    let marks = control.store().system_read("reading generations").await?.toolbox_marks().await?;
    let generations: Vec<_> = marks.iter().map(|mark| (mark.id, mark.generation)).collect();
    control.fleet().learn_generations(&generations);
    let enrolments: HashMap<_, _> = marks.iter().map(|mark| (mark.id, mark.enrolment)).collect();
    control.links().close_ended(|toolbox| enrolments.get(&toolbox).copied());
    Ok(Pass::default())
}
