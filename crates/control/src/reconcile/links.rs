//! *Links*: looks up the runs of agents whose links were made while the database was away, so that a thief whose link goes on
//! then is found like any other. Of one whose link has ended the log tells.

use super::Pass;
use crate::{Control, Result, app};

pub(crate) async fn run(control: &Control) -> Result<Pass> {
    Ok(Pass { changed: app::agents::look_up_links(control).await?, ..Pass::default() })
}
