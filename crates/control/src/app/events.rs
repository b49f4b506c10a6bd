//! Who hears of what happened.
//!
//! An event says that something is there and what it is called: it is for those who may read the thing itself, as its own
//! list or `GET` decides. The table is [`readers`], and a kind of event that is not in it does not compile.

use std::collections::HashMap;

use toolyard_policy::Resource;
use toolyard_store::EventKind;
use toolyard_types::access::{Action, Actor, KeyScope};

use super::scope;
use crate::events::Heard;
use crate::{Caller, Control};

/// The most decisions that are kept for a listener.
const KEPT: usize = 1024;

/// For whom events of a kind are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    /// Everybody in the organization.
    All,
    /// Those who may do this to what the event is about.
    Of(Action),
    /// Those who see the key, the key itself, and readers of the audit log.
    OfKeys,
    /// Those who see members, the member, and readers of the audit log.
    OfMembers,
    /// The session, its member in each of theirs, and readers of the audit log.
    OfSessions,
}

fn readers(kind: EventKind) -> Readers {
    match kind {
        EventKind::ApiKeyChanged | EventKind::ApiKeyRevoked => Readers::OfKeys,
        EventKind::CatalogChanged | EventKind::CatalogSourceFailed => Readers::Of(Action::CatalogRead),
        EventKind::CredentialChanged | EventKind::CredentialDeleted => Readers::Of(Action::CredentialRead),
        EventKind::FlagChanged => Readers::Of(Action::FlagRead),
        EventKind::MemberChanged => Readers::OfMembers,
        EventKind::OrganizationCreated => Readers::All,
        EventKind::ServerChanged | EventKind::ServerDeleted => Readers::Of(Action::ServerRead),
        EventKind::SessionChanged => Readers::OfSessions,
        EventKind::ToolboxChanged | EventKind::ToolboxRemoved | EventKind::ToolboxReturned => {
            Readers::Of(Action::ToolboxRead)
        }
        EventKind::ToolsetChanged => Readers::Of(Action::ToolsetRead),
    }
}

/// Somebody who follows events.
pub(crate) struct Listener {
    caller: Caller,
    /// As whom keys name them.
    actor: String,
    /// The subjects of events about themselves: their membership or key, and their session.
    own: Vec<String>,
    /// Decisions about a narrowed key, which are asked of the policies each time; everybody else's are in a table.
    decided: HashMap<(Action, Resource), bool>,
}

impl Listener {
    pub(crate) fn new(caller: Caller) -> Self {
        let themselves = match &caller.actor {
            Actor::User(id) => Some(format!("member/{id}")),
            Actor::ApiKey(id) => Some(format!("api_key/{id}")),
            Actor::Agent(_) | Actor::System(_) => None,
        };
        let own = themselves.into_iter().chain(caller.session.map(|session| format!("session/{session}"))).collect();
        Self { actor: caller.actor.to_string(), own, caller, decided: HashMap::new() }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether an event is for them.
    pub(crate) fn hears(&mut self, control: &Control, event: &Heard) -> bool {
        // What another version writes is not known to be for anybody.
        let Some(kind) = event.known_kind else { return false };
        if !scope::includes_subject(&self.caller, &event.subject) {
            return false;
        }
        match readers(kind) {
            Readers::All => true,
            Readers::Of(action) => self.may(control, action, &event.resource),
            Readers::OfKeys => {
                let own = event.made_by.contains(&self.actor);
                self.is_own(event)
                    || self.may(control, Action::KeyRead, &Resource::ApiKey { own })
                    || self.audits(control)
            }
            Readers::OfMembers => {
                self.is_own(event)
                    || self.may(control, Action::MemberRead, &Resource::Organization)
                    || self.audits(control)
            }
            Readers::OfSessions => {
                let own = event.member.as_ref().is_some_and(|member| self.own.contains(member));
                own || self.is_own(event) || self.audits(control)
            }
        }
    }

    fn is_own(&self, event: &Heard) -> bool {
        self.own.contains(&event.subject)
    }

    /// The log tells of keys, members and sessions by name, and is read again when something happens.
    fn audits(&mut self, control: &Control) -> bool {
        self.may(control, Action::AuditRead, &Resource::Organization)
    }

    fn may(&mut self, control: &Control, action: Action, resource: &Resource) -> bool {
        if self.caller.scope.as_ref().is_none_or(KeyScope::is_empty) && !self.caller.replaced_secret {
            return control.decider().allows(&self.caller, action, resource);
        }
        let question = (action, resource.clone());
        if let Some(known) = self.decided.get(&question) {
            return *known;
        }
        let allowed = control.decider().allows(&self.caller, action, resource);
        if self.decided.len() >= KEPT {
            self.decided.clear();
        }
        self.decided.insert(question, allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_about_the_organization_itself_is_for_everybody() {
        let for_all = EventKind::ALL.iter().copied().filter(|kind| readers(*kind) == Readers::All);
        assert_eq!(for_all.collect::<Vec<_>>(), [EventKind::OrganizationCreated]);
    }
}
