//! Who may allow a server what sandboxes refuse.

use std::collections::BTreeSet;

use toolyard_policy::Resource;
use toolyard_types::Name;
use toolyard_types::access::Action;
use toolyard_types::spec::Privilege;

use super::allow;
use crate::{Caller, Control, ControlError, Result};

/// Checks that whoever gives a server a privilege that it `had` not may do so. Taking one away is for who deploys.
///
/// # Errors
/// `forbidden`, with the privilege.
pub(super) fn check(
    control: &Control,
    caller: &Caller,
    server: &Name,
    had: &BTreeSet<Privilege>,
    wanted: &BTreeSet<Privilege>,
) -> Result<()> {
    let Some(new) = wanted.difference(had).next() else { return Ok(()) };
    allow(control, caller, Action::ServerGrantPrivilege, &Resource::Server(server.clone())).map_err(|error| match error
    {
        ControlError::Forbidden { detail, refused } => {
            ControlError::Forbidden { detail: format!("to allow it `{}`: {detail}", new.as_str()), refused }
        }
        error => error,
    })
}
