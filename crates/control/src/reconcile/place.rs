//! A resolved revision gets its instances, each on a toolbox that can run it ([`NEEDS`]): the one it is pinned to, or the
//! one with the fewest instances of the same server, then of any.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toolyard_store::{InstanceWish, RemovedToolbox, RevisionRow, ServerRow, ToolboxRow};
use toolyard_types::agent::ToolboxReport;
use toolyard_types::name::printable;
use toolyard_types::spec::{Privilege, Runtime, Strategy};
use toolyard_types::state::{Reason, ToolboxState};
use toolyard_types::{Name, Timestamp, ToolboxId};

use super::case::Case;
use super::phase::removed_message;
use super::steps::Step;

/// How many toolboxes are named that lack the same, and how many things that they lack.
const NAMED: usize = 3;

pub(super) fn decide(case: &Case, now: Timestamp) -> Option<Step> {
    let complete = case.mine.len() >= case.wanted() || case.rollout.switched_at.is_some();
    let failed = case.mine.iter().any(|instance| instance.ended_at.is_some());
    if case.is_held() || case.is_remote() || case.needs_lock() || complete || failed || now >= case.deadline {
        return None;
    }
    let waits = case.revision.spec.strategy == Strategy::Recreate && case.earlier().next().is_some();
    let wish = if waits { InstanceWish::Prepare } else { InstanceWish::Run };
    // The toolbox that resolved the package has it at hand; further replicas are spread.
    let resolved = case.jobs.first().map(|job| job.toolbox).filter(|_| case.mine.is_empty());
    match spread(case, case.wanted() - case.mine.len(), resolved) {
        Ok(toolboxes) => Some(Step::Place(toolboxes, wish)),
        Err((reason, message)) => without(case, reason, message),
    }
}

/// What is done where there is no place: what can still come is waited for.
pub(super) fn without(case: &Case, reason: Reason, message: String) -> Option<Step> {
    match reason {
        Reason::UnsupportedByEngine | Reason::ConfigInvalid | Reason::ToolboxRemoved => {
            Some(Step::Fail(reason, message))
        }
        _ => case.note(reason, message),
    }
}

/// A toolbox for one more instance; else why there is none.
pub(super) fn choose(case: &Case) -> Result<ToolboxId, (Reason, String)> {
    spread(case, 1, None)?.pop().ok_or_else(|| (Reason::NoCapacity, "no toolbox is left".to_owned()))
}

/// Toolboxes for so many more instances, at least one; else says why there is none. `first` has what is needed at hand.
fn spread(case: &Case, count: usize, first: Option<ToolboxId>) -> Result<Vec<ToolboxId>, (Reason, String)> {
    let capable = capable(&case.server, &case.revision, &case.places.toolboxes, case.removed.as_ref())?;
    let mut chosen = Vec::new();
    while chosen.len() < count
        && let Some(next) = emptiest(case, &capable, &chosen, first.filter(|_| chosen.is_empty()))
    {
        chosen.push(next);
    }
    Ok(chosen)
}

/// The toolbox with the fewest instances of the same server, then the one that has what is needed at hand, then the one
/// with the fewest instances of any. What has paths of a host stays with them where it can: another host need not have
/// them.
fn emptiest(
    case: &Case,
    capable: &[&ToolboxRow],
    chosen: &[ToolboxId],
    at_hand: Option<ToolboxId>,
) -> Option<ToolboxId> {
    let has_paths = !case.revision.spec.paths.is_empty();
    let crowd = |toolbox: &ToolboxRow| {
        let chosen = chosen.iter().filter(|id| **id == toolbox.id).count();
        let beside = case.mine.iter().filter(|instance| instance.toolbox == toolbox.id).count() + chosen;
        let away = has_paths && !case.homes.contains(&toolbox.id);
        (beside, away, at_hand.is_some_and(|id| id != toolbox.id), case.places.load(toolbox.id), toolbox.id)
    };
    capable.iter().map(|toolbox| crowd(toolbox)).min().map(|(.., id)| id)
}

/// Whether one of these toolboxes is online and can run a revision of a server.
pub(crate) fn has_place(server: &ServerRow, revision: &RevisionRow, toolboxes: &[ToolboxRow]) -> bool {
    let can = |it: &ToolboxRow| is_allowed(server, it) && it.takes_new() && lack(revision, &it.report).is_none();
    toolboxes.iter().any(can)
}

/// Why no toolbox that is online can run a revision of a server; none when one can.
pub(crate) fn why_nowhere(
    server: &ServerRow,
    revision: &RevisionRow,
    toolboxes: &[ToolboxRow],
) -> Option<(Reason, String)> {
    capable(server, revision, toolboxes, None).err()
}

/// Whether a server may run on a toolbox, as far as somebody said where.
fn is_allowed(server: &ServerRow, toolbox: &ToolboxRow) -> bool {
    server.toolbox.is_none_or(|id| toolbox.id == id) && toolbox.labels.include(&server.toolbox_labels)
}

/// The toolboxes that are online and can run the revision; else why there is none.
fn capable<'a>(
    server: &ServerRow,
    revision: &RevisionRow,
    toolboxes: &'a [ToolboxRow],
    removed: Option<&RemovedToolbox>,
) -> Result<Vec<&'a ToolboxRow>, (Reason, String)> {
    if let Some(removed) = removed {
        return Err((Reason::ToolboxRemoved, removed_message(removed)));
    }
    let (pinned, labels) = (server.toolbox, &server.toolbox_labels);
    let allowed: Vec<&ToolboxRow> = toolboxes.iter().filter(|it| is_allowed(server, it)).collect();
    let online: Vec<_> = allowed.iter().copied().filter(|toolbox| toolbox.takes_new()).collect();
    if online.is_empty() {
        let message = match (pinned, allowed.first()) {
            (Some(_), Some(toolbox)) if toolbox.status.phase == ToolboxState::Online => {
                format!("toolbox `{}` takes nothing new", toolbox.name)
            }
            (Some(_), Some(toolbox)) => format!("toolbox `{}` is {}", toolbox.name, toolbox.status.phase),
            (Some(_), None) => "the toolbox where it must run is not there".to_owned(),
            (None, Some(_)) if !labels.is_empty() => format!("no toolbox with the labels `{labels}` is online"),
            (None, Some(_)) => "no toolbox is online".to_owned(),
            (None, None) if !labels.is_empty() => format!("no toolbox has the labels `{labels}`"),
            (None, None) => "there is no toolbox; enroll one".to_owned(),
        };
        return Err((Reason::AwaitingToolbox, message));
    }
    let (mut capable, mut lacking) = (Vec::new(), Vec::new());
    for toolbox in online {
        match lack(revision, &toolbox.report) {
            None => capable.push(toolbox),
            Some(lack) => lacking.push((toolbox, lack)),
        }
    }
    match lacking.first() {
        _ if !capable.is_empty() => Ok(capable),
        Some((toolbox, lack)) if pinned.is_some() => Err((lack.reason, lack.told(toolbox))),
        _ => Err(none_can(lacking)),
    }
}

/// Something that a revision may need of the toolbox that runs it.
struct Need {
    /// What becomes of a revision that no toolbox has it for.
    reason: Reason,
    /// What a toolbox without it cannot do; none when it can, or the revision does not ask for it.
    cannot: fn(&RevisionRow, &ToolboxReport) -> Option<Cow<'static, str>>,
    /// What helps.
    hint: &'static str,
}

/// All that a revision may need. Of what a toolbox lacks the first is told, so that the later it stands here, the nearer
/// the toolbox is. Its agent has the last word, before anything is stopped for it (`Prepare`).
static NEEDS: [Need; 11] = [
    Need {
        reason: Reason::UnsupportedByEngine,
        cannot: |it, report| {
            unless(!matches!(it.spec.runtime, Runtime::Oci(_)) || report.engine != "process", "run container images")
        },
        hint: "that takes a container engine",
    },
    Need {
        reason: Reason::UnsupportedByEngine,
        cannot: |it, report| {
            let wants = it.spec.privileges.contains(&Privilege::NewNamespaces);
            unless(!wants || report.engine == "process", "allow new namespaces")
        },
        hint: "that takes one that runs processes; containers refuse them",
    },
    Need {
        reason: Reason::UnsupportedByEngine,
        cannot: |it, report| unless(report.enforces_egress(&it.spec.egress), "limit whom a server reaches like that"),
        hint: "one with containers can",
    },
    Need {
        reason: Reason::UnsupportedByEngine,
        cannot: |it, report| {
            let wants = it.spec.runtime.package().is_some_and(|package| package.http.is_some());
            unless(!wants || report.speaks_container_http(), "speak HTTP to a server inside its container")
        },
        hint: "that takes containers and a present agent that runs as root",
    },
    Need {
        reason: Reason::UnsupportedByEngine,
        cannot: |it, report| {
            let http = it.spec.runtime.package().and_then(|package| package.http.as_ref());
            let wants = http.is_some_and(|http| !http.headers.is_empty());
            unless(!wants || report.sends_container_headers(), "send headers to a server inside its container")
        },
        hint: "that takes a present agent",
    },
    Need {
        reason: Reason::UnsupportedByEngine,
        cannot: |it, report| unless(it.spec.volumes.is_empty() || report.keeps_volumes(), "keep volumes"),
        hint: "one with containers and a present agent can",
    },
    Need {
        reason: Reason::UnsupportedByEngine,
        cannot: |it, report| {
            let wants = it.spec.runtime.package().is_some_and(|package| !package.with.is_empty());
            let cannot = "install a package with the further requirements that its entry names";
            unless(!wants || report.takes_requirements(), cannot)
        },
        hint: "that takes a present agent",
    },
    Need {
        reason: Reason::UnsupportedByEngine,
        cannot: |it, report| {
            // An agent that does not tell is asked.
            let cpu_limit = report.enforcement.get("cpu_limit").is_none_or(|cpu_limit| cpu_limit.enforced);
            unless(it.spec.limits.cpu_millis == 0 || report.engine != "process" || cpu_limit, "limit processor time")
        },
        hint: "that takes control groups",
    },
    Need {
        reason: Reason::ConfigInvalid,
        cannot: |it, report| {
            let path = report.refused_path(it.id, &it.spec.paths)?;
            Some(format!("grant the path `{}`", printable(path)).into())
        },
        hint: "who runs an agent lists what it may grant in its `grantable_paths`",
    },
    Need {
        reason: Reason::NoCapacity,
        cannot: |it, report| {
            let has = ["node", "npm"].iter().any(|name| report.runtimes.contains_key(*name));
            unless(!matches!(it.spec.runtime, Runtime::Npm(_)) || has, "run npm packages")
        },
        hint: "that takes Node.js",
    },
    Need {
        reason: Reason::NoCapacity,
        cannot: |it, report| {
            let has = ["python", "python3", "uv"].iter().any(|name| report.runtimes.contains_key(*name));
            unless(!matches!(it.spec.runtime, Runtime::Pypi(_)) || has, "run PyPI packages")
        },
        hint: "that takes Python",
    },
];

fn unless(can: bool, cannot: &'static str) -> Option<Cow<'static, str>> {
    (!can).then_some(Cow::Borrowed(cannot))
}

/// What a toolbox lacks to run a revision.
pub(crate) struct Lack {
    /// Which of the needs it is.
    need: usize,
    cannot: Cow<'static, str>,
    /// What becomes of the revision.
    pub(crate) reason: Reason,
    hint: &'static str,
}

impl Lack {
    /// Says it of one toolbox.
    pub(crate) fn told(&self, toolbox: &ToolboxRow) -> String {
        let grants = match &toolbox.report.grantable_paths {
            Some(listed) if self.reason == Reason::ConfigInvalid && listed.is_empty() => ": it grants none".to_owned(),
            Some(listed) if self.reason == Reason::ConfigInvalid => {
                let shown: Vec<_> = listed.iter().take(NAMED).map(|root| format!("`{}`", printable(root))).collect();
                let more = if listed.len() > NAMED { " and more" } else { "" };
                format!(": it grants only {}{more}", shown.join(", "))
            }
            _ => String::new(),
        };
        format!("toolbox `{}` cannot {}{grants}; {}", toolbox.name, self.cannot, self.hint)
    }
}

/// What a toolbox is known to lack to run a revision; `None` when it can.
pub(crate) fn lack(revision: &RevisionRow, report: &ToolboxReport) -> Option<Lack> {
    NEEDS.iter().enumerate().find_map(|(at, need)| {
        let cannot = (need.cannot)(revision, report)?;
        Some(Lack { need: at, cannot, reason: need.reason, hint: need.hint })
    })
}

/// The number of a need, and what cannot be done without it.
type Kind = (usize, Cow<'static, str>);

/// Why none of the toolboxes that are online can run a revision: what each lacks, those that lack the same together, the
/// nearest first. The reason is that of the nearest.
fn none_can(lacking: Vec<(&ToolboxRow, Lack)>) -> (Reason, String) {
    let mut kinds: BTreeMap<Kind, (Lack, Vec<&Name>)> = BTreeMap::new();
    for (toolbox, lack) in lacking {
        let kind = kinds.entry((lack.need, lack.cannot.clone()));
        kind.or_insert_with(|| (lack, Vec::new())).1.push(&toolbox.name);
    }
    let Some((nearest, _)) = kinds.values().next_back() else {
        return (Reason::NoCapacity, "no toolbox is left".to_owned());
    };
    if kinds.len() == 1 {
        return (nearest.reason, format!("no toolbox that is online can {}; {}", nearest.cannot, nearest.hint));
    }
    let told =
        |(lack, names): &(Lack, Vec<&Name>)| format!("{} cannot {} ({})", some_of(names), lack.cannot, lack.hint);
    let told: Vec<_> = kinds.values().rev().take(NAMED).map(told).collect();
    let more = if kinds.len() > NAMED { "; others lack something else" } else { "" };
    (nearest.reason, format!("no toolbox that is online can run it: {}{more}", told.join("; ")))
}

fn some_of(names: &[&Name]) -> String {
    let named: Vec<_> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    let more = names.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use toolyard_store::{JobRow, JobState};
    use toolyard_types::JobId;
    use toolyard_types::spec::PathGrant;

    use super::super::case::tests::{among, change, toolbox};
    use super::*;

    /// A toolbox with Node.js that grants these paths, or does not tell.
    fn grants(name: &str, paths: Option<&[&str]>) -> ToolboxRow {
        let mut row = toolbox();
        row.name = Name::new(name).unwrap();
        row.report.runtimes.insert("node".into(), "22".into());
        row.report.grantable_paths = paths.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect());
        row
    }

    fn sees(path: &str) -> Vec<PathGrant> {
        vec![PathGrant { path: path.into(), writable: false }]
    }

    fn placed(case: &Case) -> ToolboxId {
        match decide(case, Timestamp::from_ms(2)) {
            Some(Step::Place(toolboxes, _)) => toolboxes[0],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn toolboxes_that_lack_the_same_are_told_together_and_the_nearest_first() {
        let mut case = change();
        case.revision.spec.paths = sees("/srv/x");
        let mut toolboxes: Vec<_> = (0..40).map(|number| grants(&format!("t{number:02}"), Some(&[]))).collect();
        let told = |case: &Case| choose(case).unwrap_err();
        let list = "who runs an agent lists what it may grant in its `grantable_paths`";
        let same = among(case, toolboxes.clone());
        let message = format!("no toolbox that is online can grant the path `/srv/x`; {list}");
        assert_eq!(told(&same), (Reason::ConfigInvalid, message));
        let mut bare = grants("z", None);
        bare.report.runtimes.clear();
        toolboxes.push(bare);
        let mixed = among(same, toolboxes);
        let message = format!(
            "no toolbox that is online can run it: `z` cannot run npm packages (that takes Node.js); `t00`, `t01`, `t02` \
             and 37 more cannot grant the path `/srv/x` ({list})"
        );
        assert_eq!(told(&mixed), (Reason::NoCapacity, message), "Node.js can still be installed");
        assert!(matches!(decide(&mixed, Timestamp::from_ms(2)), Some(Step::Note(Reason::NoCapacity, _))));
    }

    #[test]
    fn there_is_a_place_for_a_server_where_one_would_be_chosen() {
        let mut draining = grants("draining", None);
        draining.draining_since = Some(Timestamp::from_ms(1));
        let mut away = grants("away", None);
        away.status.phase = ToolboxState::Unreachable;
        let mut bare = grants("bare", None);
        bare.report.runtimes.clear();
        let (refuses, can) = (grants("refuses", Some(&[])), grants("can", Some(&["/srv/x"])));
        let others = vec![draining, away, bare, refuses];
        let all: Vec<_> = others.iter().cloned().chain([can.clone()]).collect();
        let zone: toolyard_types::Labels = "zone=a".parse().unwrap();
        let zoned = vec![ToolboxRow { labels: zone.clone(), ..can.clone() }];
        for toolboxes in [vec![], others, all, vec![can.clone()], zoned] {
            for pinned in [None, Some(can.id), toolboxes.first().map(|it| it.id)] {
                for labels in [toolyard_types::Labels::default(), zone.clone()] {
                    let mut case = change();
                    case.revision.spec.paths = sees("/srv/x");
                    (case.server.toolbox, case.server.toolbox_labels) = (pinned, labels);
                    let case = among(case, toolboxes.clone());
                    let found = has_place(&case.server, &case.revision, &case.places.toolboxes);
                    assert_eq!(found, choose(&case).is_ok(), "{pinned:?} {toolboxes:?}");
                }
            }
        }
    }

    #[test]
    fn a_server_that_must_run_somewhere_is_told_what_is_granted_there() {
        let mut case = change();
        case.revision.spec.paths = sees("/srv/x");
        let edge = grants("edge", Some(&["/srv/a", "/srv/b/*", "/srv/c", "/srv/d"]));
        case.server.toolbox = Some(edge.id);
        let case = among(case, vec![edge, grants("open", None)]);
        let (reason, message) = choose(&case).unwrap_err();
        assert_eq!(reason, Reason::ConfigInvalid);
        let start =
            "toolbox `edge` cannot grant the path `/srv/x`: it grants only `/srv/a`, `/srv/b/*`, `/srv/c` and more; ";
        assert!(message.starts_with(start), "{message}");
    }

    #[test]
    fn where_processor_time_cannot_be_limited_goes_nothing_that_wants_it() {
        let mut case = change();
        case.revision.spec.limits.cpu_millis = 500;
        let mut edge = grants("edge", None);
        edge.report.engine = "process".into();
        assert_eq!(placed(&among(case, vec![edge.clone()])), edge.id, "one that does not tell is asked");
        let mut case = change();
        case.revision.spec.limits.cpu_millis = 500;
        let unlimited = toolyard_types::agent::Enforcement { enforced: false, detail: "no control group".into() };
        edge.report.enforcement.insert("cpu_limit".into(), unlimited);
        let (reason, message) = choose(&among(case, vec![edge])).unwrap_err();
        assert_eq!(reason, Reason::UnsupportedByEngine);
        assert_eq!(message, "no toolbox that is online can limit processor time; that takes control groups");
    }

    #[test]
    fn what_has_the_package_gets_it_unless_it_cannot_run_it_now_or_its_paths_are_elsewhere() {
        let mut case = change();
        let (first, second) = (grants("first", None), grants("second", None));
        case.jobs = vec![JobRow {
            id: JobId::generate(),
            toolbox: second.id,
            revision: case.revision.id,
            state: JobState::Done,
            reason: None,
            message: None,
            created_at: Timestamp::from_ms(1),
        }];
        let mut case = among(case, vec![first.clone(), second.clone()]);
        assert_eq!(placed(&case), second.id);
        case.revision.spec.paths = sees("/srv/x");
        case.homes = [first.id].into();
        assert_eq!(placed(&case), first.id);
        case.homes = [second.id].into();
        assert_eq!(placed(&case), second.id);
        let refuses = ToolboxRow { report: grants("second", Some(&[])).report, ..second };
        assert_eq!(placed(&among(case, vec![first.clone(), refuses])), first.id);
    }
}
