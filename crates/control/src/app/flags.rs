//! Feature flags: which exist, what they are by default, and the rules set for them.
//!
//! A flag is enforced here on the server: a route behind it answers `feature_disabled`. The rules are kept in
//! memory and read again when an event says that one changed, so a change is live within a second on every
//! replica.

use std::collections::BTreeMap;

use arc_swap::ArcSwap;
use serde_json::json;
use sha2::{Digest, Sha256};
use toolyard_store::SystemTx;
use toolyard_types::api::Page;
use toolyard_types::api::system::{Flag, FlagRule};
use toolyard_types::{Code, Name, OrganizationId};

use super::audit;
use crate::{Caller, Control, ControlError, Result};

const LARGEST_RULE: usize = 1000;

/// A flag that the program knows.
struct Definition {
    name: &'static str,
    description: &'static str,
    /// In development, staging, production.
    default: [bool; 3],
}

const FLAGS: &[Definition] = &[
    Definition { name: "catalog_ratings", description: "people rate catalog entries", default: [true, true, true] },
    Definition {
        name: "catalog_submissions",
        description: "people submit catalog entries of their own for review",
        default: [true, true, true],
    },
    Definition {
        name: "console_telemetry",
        description: "browsers report how the console does: web vitals, use and errors, never content",
        default: [true, true, true],
    },
    Definition { name: "server_clone", description: "servers can be cloned", default: [true, true, true] },
];

/// The rules in memory.
#[derive(Default)]
pub(crate) struct FlagState(ArcSwap<BTreeMap<String, FlagRule>>);

/// Reads the rules into memory.
pub(crate) async fn load(control: &Control) -> Result<()> {
    let tx = control.store().system_read("read the rules of feature flags").await?;
    control.flags().0.store(tx.flag_rules().await?.into());
    Ok(())
}

/// Refuses when a flag is off for the caller's organization.
///
/// # Errors
/// `feature_disabled`.
pub(crate) fn require(control: &Control, caller: &Caller, name: &'static str) -> Result<()> {
    let definition = FLAGS.iter().find(|flag| flag.name == name).expect("routes name flags of the table");
    let rules = control.flags().0.load();
    if enabled(control, definition, rules.get(name), caller.organization, &caller.organization_name) {
        return Ok(());
    }
    Err(ControlError::problem(Code::FeatureDisabled, format!("feature `{name}` is switched off here")))
}

/// Whether a flag is on for an organization, for work that has no caller.
pub(crate) fn is_on(control: &Control, flag: &'static str, organization: OrganizationId, name: &Name) -> bool {
    let definition = FLAGS.iter().find(|known| known.name == flag).expect("callers name flags of the table");
    let rules = control.flags().0.load();
    enabled(control, definition, rules.get(flag), organization, name)
}

/// Every flag as it applies to the caller's organization.
pub(crate) async fn list(control: &Control, caller: &Caller) -> Result<Page<Flag>> {
    let tx = control.store().system_read("find whether there are other organizations").await?;
    let alone = is_alone(&tx).await?;
    drop(tx);
    let rules = control.flags().0.load();
    let flags = FLAGS.iter().map(|flag| describe(control, caller, flag, rules.get(flag.name), alone));
    Ok(Page::whole(flags.collect()))
}

/// Sets a flag's rule; an empty rule takes it away. An organization that is not the only one sets what holds for itself,
/// and what holds for others stays.
///
/// # Errors
/// `forbidden` when the rule says something of other organizations and there are some.
pub(crate) async fn set(control: &Control, caller: &Caller, name: &str, rule: FlagRule) -> Result<Flag> {
    let definition = FLAGS
        .iter()
        .find(|flag| flag.name == name)
        .ok_or_else(|| ControlError::NotFound(format!("feature flag `{}`", toolyard_types::name::printable(name))))?;
    if rule.percentage.is_some_and(|share| share > 100) {
        return Err(ControlError::field("percentage", "must be 0 to 100"));
    }
    if rule.organizations.len() > LARGEST_RULE {
        return Err(ControlError::field("organizations", format!("may name at most {LARGEST_RULE}")));
    }
    let mut tx = control.store().system("set the rule of a feature flag").await?;
    // What another organization sets meanwhile must not be lost.
    tx.lock(&format!("flag/{name}")).await?;
    let alone = is_alone(&tx).await?;
    let rule = if alone {
        rule
    } else {
        check_own(&rule, &caller.organization_name)?;
        let stored = tx.flag_rules().await?.remove(definition.name).unwrap_or_default();
        with_own(stored, &rule, &caller.organization_name)
    };
    let rule = (rule != FlagRule::default()).then_some(rule);
    tx.set_flag_rule(definition.name, rule.as_ref()).await?;
    let mut tx = tx.into_org(caller.organization);
    let flag = describe(control, caller, definition, rule.as_ref(), alone);
    audit(&mut tx, caller, "flag.update", format!("flag/{name}"), json!({ "rule": flag.rule })).await?;
    tx.commit().await?;
    load(control).await?;
    Ok(flag)
}

/// Whether the installation has one organization only, so that what holds for the whole of it is that one's to set.
async fn is_alone(tx: &SystemTx) -> Result<bool> {
    Ok(tx.organizations().await?.len() <= 1)
}

/// Refuses a rule that says something of other organizations.
fn check_own(rule: &FlagRule, own: &Name) -> Result<()> {
    let of_all = rule.everyone.is_some() || rule.percentage.is_some();
    if of_all || rule.organizations.keys().any(|name| name != own) {
        let detail = format!(
            "this installation has several organizations, and each sets flags for itself: give `{own}` alone under \
             `organizations`, and neither `everyone` nor `percentage`"
        );
        return Err(ControlError::forbidden(detail));
    }
    Ok(())
}

/// A rule with one organization's part as it is in another.
fn with_own(mut rule: FlagRule, wanted: &FlagRule, own: &Name) -> FlagRule {
    match wanted.organizations.get(own) {
        Some(on) => rule.organizations.insert(own.clone(), *on),
        None => rule.organizations.remove(own),
    };
    rule
}

fn describe(control: &Control, caller: &Caller, flag: &Definition, rule: Option<&FlagRule>, alone: bool) -> Flag {
    let own = &caller.organization_name;
    let shown = rule.map(|rule| if alone { rule.clone() } else { with_own(FlagRule::default(), rule, own) });
    Flag {
        name: flag.name.to_owned(),
        description: flag.description.to_owned(),
        enabled: enabled(control, flag, rule, caller.organization, own),
        default: default(control, flag),
        rule: shown.filter(|shown| *shown != FlagRule::default()),
    }
}

fn enabled(
    control: &Control,
    flag: &Definition,
    rule: Option<&FlagRule>,
    organization: OrganizationId,
    name: &Name,
) -> bool {
    decide(flag.name, rule, organization, name).unwrap_or_else(|| default(control, flag))
}

/// For one organization, else by percentage, else for everyone; `None` when the rule says nothing.
fn decide(flag: &str, rule: Option<&FlagRule>, organization: OrganizationId, name: &Name) -> Option<bool> {
    let rule = rule?;
    let by_share = || rule.percentage.map(|share| bucket(flag, organization) < share);
    rule.organizations.get(name).copied().or_else(by_share).or(rule.everyone)
}

fn default(control: &Control, flag: &Definition) -> bool {
    let [development, staging, production] = flag.default;
    match control.options().environment.as_str() {
        "production" => production,
        "staging" => staging,
        _ => development,
    }
}

/// Where an organization stands in 0..100 for a flag: always at the same place, at another one for each flag.
fn bucket(flag: &str, organization: OrganizationId) -> u8 {
    let digest = Sha256::digest(format!("{flag}\n{organization}").as_bytes());
    let number = u16::from_be_bytes([digest[0], digest[1]]);
    u8::try_from(number % 100).expect("a number below 100 fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_rule_for_the_organization_beats_the_percentage_which_beats_everyone() {
        let organization = OrganizationId::generate();
        let rule = FlagRule {
            everyone: Some(true),
            organizations: BTreeMap::from([(name("acme"), true)]),
            percentage: Some(0),
        };
        assert_eq!(decide("f", Some(&rule), organization, &name("acme")), Some(true));
        assert_eq!(decide("f", Some(&rule), organization, &name("other")), Some(false));
        let rule = FlagRule { percentage: None, ..rule };
        assert_eq!(decide("f", Some(&rule), organization, &name("other")), Some(true));
        assert_eq!(decide("f", None, organization, &name("other")), None);
    }

    #[test]
    fn a_growing_percentage_keeps_the_organizations_it_had() {
        let organizations: Vec<_> = (0..200).map(|_| OrganizationId::generate()).collect();
        let on = |share: u8| {
            let rule = FlagRule { percentage: Some(share), ..FlagRule::default() };
            organizations
                .iter()
                .filter(|organization| decide("f", Some(&rule), **organization, &name("x")) == Some(true))
                .collect::<Vec<_>>()
        };
        let (few, more) = (on(20), on(60));
        assert!(few.iter().all(|organization| more.contains(organization)) && few.len() < more.len());
        assert_eq!((on(0).len(), on(100).len()), (0, 200));
    }
}
