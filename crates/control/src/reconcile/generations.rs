//! *Generations*: tells syncs that are held open when their toolbox should run something else, ends the links of
//! certificates that were revoked, knows which certificates are good for when the database is away and whose toolboxes are,
//! and tells where agents listen. One query for all of them, so that a change costs the same with one toolbox or a thousand.

use std::collections::HashMap;

use super::Pass;
use crate::{Control, Result};

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    let asked_at = control.clock().now();
    let tx = control.store().system_read("reading generations").await?;
    let (marks, addresses) = (tx.toolbox_marks().await?, tx.toolbox_addresses().await?);
    drop(tx);
    control.fleet().learn_addresses(addresses);
    control.fleet().learn_owners(marks.iter().map(|mark| (mark.id, mark.organization)).collect());
    let generations: Vec<_> = marks.iter().map(|mark| (mark.id, mark.generation)).collect();
    control.fleet().learn_generations(&generations);
    let enrolments: HashMap<_, _> = marks.iter().map(|mark| (mark.id, mark.enrolment)).collect();
    control.links().close_ended(|toolbox| enrolments.get(&toolbox).copied());
    control.fleet().learn_enrolments(asked_at, enrolments);
    Ok(Pass::default())
}
