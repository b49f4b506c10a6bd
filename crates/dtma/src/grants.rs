//! Which paths of this host servers may be shown. Who runs the agent says so, on this host; a control plane or a
//! deployer can only ask.
//!
//! - A path is looked at twice: as it was asked for, before anything of the host is touched, so that what is refused
//!   tells nothing about the host; and as what it leads to, without links. The second is done by a process of its own
//!   ([`Looks`]): its file system may hang.
//! - What is Toolyard's own and what is the system's is never granted, whatever the list says. What every server is
//!   shown, such as a certificate bundle, is granted to none for writing, nor is what lies above or in it. Both hold for
//!   another name of these too ([`Guarded`]); of the system's only names are compared.
//! - Nor is another Toolyard's data directory, or what lies above or in it, where it can be told by what is in it: where no
//!   server can have made that, because each has a user of its own here ([`Grants::open`]).
//! - Only directories and regular files: a socket or a device is a way to something else. So is a directory with a
//!   socket in it that the server could connect to, which neither mounts nor Landlock keep it from. It is looked for
//!   when a server starts; one that comes later is not seen.
//! - What ran before this host had a list runs on as it was, and says so, until it has another revision. Which those
//!   are is written down once, here: nobody else can add to them.
//!
//! The process engine mounts the very file that was looked at ([`Granted::device`], [`Granted::inode`]), when what it opened
//! has nothing of ours mounted in it ([`Granted::forbidden_at`]). A container engine is told a path and looks at it again: that no
//! server leads it elsewhere meanwhile is the care of `docker::paths`; of other users of the host it cannot know.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use toolyard_types::RevisionId;
use toolyard_types::Secret;
use toolyard_types::agent::{Desired, DesiredInstance, Enforcement, Failure};
use toolyard_types::grantable::{Root, is_systems, why_never};
use toolyard_types::name::printable;
use toolyard_types::spec::PathGrant;
use toolyard_types::state::Reason;

use crate::desired::write_whole;
use crate::guarded::{Guarded, file_id};
use crate::looks::{Looks, NoAnswer};
use crate::mountinfo::{Mounts, Place};
use crate::packages::failure;

/// How many names are looked at when a directory is searched, and how long.
const MOST_NAMES: usize = 20_000;
const LONGEST_SEARCH: Duration = Duration::from_secs(3);
/// The revisions that ran before there was a list.
const FILE: &str = "grants.json";

/// Which paths of a host may be granted.
#[derive(Clone, Debug, Default)]
pub struct GrantablePaths {
    /// Absolute paths: each with everything in it; one that ends with `/*` means what lies in it, but no dot files,
    /// and not the directory itself.
    pub roots: Vec<String>,
    /// Toolyard's own files and directories, beside the agent's data directory.
    pub own: Vec<PathBuf>,
    /// The same of those that need not be there: what is above them is granted until they are.
    pub once_there: Vec<PathBuf>,
}

/// What a server with paths of the host has in its environment: git refuses a repository of another user, as each of them
/// is to a server with a user of its own, and whoever granted it meant it.
pub(crate) fn environment_for(paths: &[PathGrant]) -> impl Iterator<Item = (String, Secret)> {
    let set = [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")];
    let set = set.into_iter().filter(|_| !paths.is_empty());
    set.map(|(name, value)| (name.to_owned(), Secret::new(value)))
}

impl GrantablePaths {
    /// Whether a root can be one.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn check_root(root: &str) -> Result<(), &'static str> {
        let path = Path::new(root.strip_suffix("/*").unwrap_or(root));
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain {
            return Err("must be an absolute path without `..`");
        }
        match is_systems(path) {
            true => Err("must be neither `/` nor at or below /etc, /proc, /sys, /dev, /run or /boot"),
            false => Ok(()),
        }
    }
}

/// A path that a server may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Granted {
    /// Where the server sees it.
    pub(crate) path: PathBuf,
    /// What it is, without links.
    pub(crate) source: PathBuf,
    /// Whether it may be written.
    pub(crate) writable: bool,
    /// The file that was looked at: its device.
    pub(crate) device: u64,
    /// And its number there.
    pub(crate) inode: u64,
    /// Where nothing may be of what is had with it.
    #[serde(default)]
    pub(crate) forbidden: Vec<Place>,
}

impl Granted {
    /// A directory of our own, for what runs at our own wish.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn own(path: &Path) -> io::Result<Self> {
        let (device, inode) = file_id(&std::fs::symlink_metadata(path)?);
        let (path, source) = (path.to_owned(), path.to_owned());
        Ok(Self { path, source, writable: true, device, inode, forbidden: Vec::new() })
    }

    /// What is forbidden of what somebody has who has it at `path`, mounted there since it was looked at.
    ///
    /// # Errors
    /// When that cannot be told.
    pub(crate) fn forbidden_at(&self, path: &Path, mounts: &Mounts) -> io::Result<Option<String>> {
        let name = mounts.name_of_any(&self.forbidden, path)?;
        Ok(name.map(|name| format!("what may not be granted is mounted there by now, as `{}`", name.display())))
    }
}

/// What is said of Toolyard's own.
const OWN: &str = "Toolyard's own files are there";

fn by_another_name(what: &str, name: &Path) -> String {
    format!("{what} by another name, `{}`", name.display())
}

fn not_told(error: &io::Error) -> String {
    format!("whether Toolyard's own files are there by another name cannot be told: {error}")
}

/// The paths of this host that may be granted, as an agent knows them.
#[derive(Debug)]
pub(crate) struct Grants {
    /// Each as it is listed, and the same at what it led to when the agent started.
    roots: Vec<(Root, Root)>,
    own: Vec<PathBuf>,
    once_there: Vec<PathBuf>,
    /// What every server is shown.
    shown: Vec<PathBuf>,
    before: BTreeSet<RevisionId>,
    looks: Looks,
    /// The user ids of servers, where we are root and each has one of its own: who owns a file tells then whether a server
    /// can have made it.
    server_uids: Option<RangeInclusive<u32>>,
    /// Said once that there is more of our own than is looked at.
    told_cut_short: Once,
}

/// What is asked of a path by a process of its own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// What it leads to.
    LeadsTo(OsString),
    /// Whether it may be granted, and what it is.
    MayBeGranted(Box<Wish>),
    /// Whether a container's process sees there what was looked at.
    IsMounted {
        /// The process.
        pid: u32,
        /// Its container's id.
        container: String,
        /// What was looked at.
        granted: Vec<Granted>,
    },
}

/// What a process of its own found.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// What it leads to, if it is there.
    LeadsTo(Option<OsString>),
    /// It may be granted.
    Granted {
        /// What it is.
        granted: Granted,
        /// Whether there is more of Toolyard's own than was looked at.
        cut_short: bool,
    },
    /// It is not there.
    NotHere,
    /// It may not be granted.
    Refused(String),
    /// What is mounted is what was looked at, or that does not show here.
    Mounted,
    /// Something else is mounted at this path.
    Otherwise(PathBuf),
    /// What is mounted at this path has something in it that may not be granted.
    Forbidden {
        /// Which.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// What is mounted at this path could not be found.
    Unseen {
        /// Which.
        path: PathBuf,
        /// What was in the way.
        why: String,
    },
}

/// A path that a server wishes to see.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wish {
    path: String,
    writable: bool,
    /// By which it is judged; without them whatever is there is granted, for what ran before there were any.
    rules: Option<Rules>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Rules {
    /// Each root as it is listed, and what it led to when the agent started.
    roots: Vec<(String, OsString)>,
    own: Vec<OsString>,
    once_there: Vec<OsString>,
    shown: Vec<OsString>,
    /// What is said of what lies in none of the roots.
    not_listed: String,
    search: Search,
}

/// How a directory is searched, with those below it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Search {
    /// The user that the server runs as: where that may not pass there is nothing for it. None when it runs as we do.
    uid: Option<u32>,
    /// Whether sockets are looked for that it could connect to.
    sockets: bool,
    /// See [`Grants::server_uids`]; without them data directories of others are not looked for.
    server_uids: Option<RangeInclusive<u32>>,
}

/// What may be granted, as far as it was looked at.
struct Allowed {
    /// Where nothing may be of what is had with it.
    forbidden: Vec<Place>,
    cut_short: bool,
}

/// What is written down of the time before.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Before {
    revisions: BTreeSet<RevisionId>,
}

impl Before {
    /// Nothing of it, which grants no more than it did. It is never made again from what runs now: that would let in
    /// whatever is there.
    fn lost(file: &Path, error: &dyn std::error::Error) -> Self {
        tracing::warn!(
            path = %file.display(), %error,
            "it cannot be read: servers from before `grantable_paths` get only the paths in that list from their next start on"
        );
        Self::default()
    }
}

impl Grants {
    /// Reads what ran before there was a list; at the first start that is what `desired` says. Every server is shown
    /// `shown`. `server_uids` are theirs where we are root and each has one of its own: elsewhere nothing tells what a server
    /// made from what another Toolyard did, and no data directory but ours is looked for.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub(crate) async fn open(
        paths: &GrantablePaths,
        (data_dir, shown): (&Path, Vec<PathBuf>),
        desired: Option<&Desired>,
        looks: Looks,
        server_uids: Option<RangeInclusive<u32>>,
    ) -> io::Result<Self> {
        let good = paths.roots.iter().filter(|text| GrantablePaths::check_root(text).is_ok());
        let roots: Vec<Root> = good.map(|text| Root::new(text)).collect();
        let led = futures_util::future::join_all(roots.iter().map(|root| led_to(&looks, root))).await;
        let grants = Self::with(roots.into_iter().zip(led).collect(), paths, (data_dir, shown), desired, looks)?;
        Ok(Self { server_uids, ..grants })
    }

    fn with(
        roots: Vec<(Root, Root)>,
        paths: &GrantablePaths,
        (data_dir, mut shown): (&Path, Vec<PathBuf>),
        desired: Option<&Desired>,
        looks: Looks,
    ) -> io::Result<Self> {
        let file = data_dir.join(FILE);
        let before = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| Before::lost(&file, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let instances = desired.iter().flat_map(|desired| &desired.instances);
                let granted = instances.filter(|instance| !instance.spec.paths.is_empty());
                let before = Before { revisions: granted.map(|instance| instance.revision).collect() };
                write_whole(&file, &serde_json::to_vec(&before)?)?;
                before
            }
            Err(error) => Before::lost(&file, &error),
        };
        // Who looks may be in another directory.
        let data_dir = std::path::absolute(data_dir)?;
        let mut own: Vec<PathBuf> = std::iter::once(data_dir).chain(paths.own.iter().cloned()).collect();
        let led: Vec<PathBuf> = own.iter().filter_map(|path| std::fs::canonicalize(path).ok()).collect();
        own.extend(led);
        let led: Vec<PathBuf> = shown.iter().filter_map(|path| std::fs::canonicalize(path).ok()).collect();
        shown.extend(led);
        let (before, told_cut_short) = (before.revisions, Once::new());
        let once_there = paths.once_there.clone();
        Ok(Self { roots, own, once_there, shown, before, looks, server_uids: None, told_cut_short })
    }

    /// What a server may see of this host. It runs as `uid`, or as we do.
    ///
    /// # Errors
    /// When a path is not here, may not be granted, or does not answer.
    pub(crate) async fn of(&self, desired: &DesiredInstance, uid: Option<u32>) -> Result<Vec<Granted>, Failure> {
        let known = self.before.contains(&desired.revision);
        let mut granted = Vec::new();
        for grant in &desired.spec.paths {
            let looked = match known {
                true => self.ask(desired, grant, None).await,
                false => self.look(desired, grant, self.search(uid, true)).await,
            };
            let path = printable(&grant.path);
            granted.push(looked.map_err(|refused| match refused {
                Refused::NotHere => failure(Reason::ConfigInvalid, format!("path `{path}` is not on this host")),
                Refused::Why(why) => {
                    failure(Reason::ConfigInvalid, format!("path `{path}` may not be granted here: {why}"))
                }
                Refused::Unknown(why) => failure(Reason::EngineUnavailable, format!("path `{path}` {why}")),
            })?);
        }
        Ok(granted)
    }

    /// What a person should know of a server's paths: those that it, or another revision, would not get again. It runs as
    /// `uid`, or as we do.
    pub(crate) async fn remark(&self, desired: &DesiredInstance, uid: Option<u32>) -> String {
        let mut outside = Vec::new();
        for grant in &desired.spec.paths {
            match self.look(desired, grant, self.search(uid, false)).await {
                Err(Refused::Why(_)) => outside.push(printable(&grant.path)),
                // The others may lie there too, and each would be waited for.
                Err(Refused::Unknown(why)) => return format!("its path {} {why}", printable(&grant.path)),
                Ok(_) | Err(Refused::NotHere) => {}
            }
        }
        match outside.is_empty() {
            true => String::new(),
            false => {
                let until = match self.before.contains(&desired.revision) {
                    true => "its next revision will not start with that",
                    false => "it will not be started again with that",
                };
                format!("it sees {}, which this toolbox does not grant; {until}", outside.join(", "))
            }
        }
    }

    /// Who looks at paths of this host.
    pub(crate) fn looks(&self) -> &Looks {
        &self.looks
    }

    /// For the toolbox's report. Change it together with `grantablePaths` in
    /// console/src/features/toolboxes/public/grants.ts, which reads it where [`Self::listed`] is not told.
    pub(crate) fn enforcement(&self) -> Enforcement {
        let detail = match self.roots.is_empty() {
            true => "no path of this host is granted".to_owned(),
            false => format!("only {} (`grantable_paths`)", self.listed_text()),
        };
        Enforcement { enforced: true, detail }
    }

    /// The same as data, for a control plane that looks for a toolbox: each root as it is listed and as what it led to
    /// when we started, for a path may be asked for by either name. None when one of them is no text.
    pub(crate) fn listed(&self) -> Option<Vec<String>> {
        let mut listed = Vec::new();
        for root in self.roots.iter().flat_map(|(root, led)| [root, led]) {
            root.path().to_str()?;
            let text = root.to_string();
            if !listed.contains(&text) {
                listed.push(text);
            }
        }
        Some(listed)
    }

    /// The revisions that ran before there was a list.
    pub(crate) fn before(&self) -> &BTreeSet<RevisionId> {
        &self.before
    }

    fn listed_text(&self) -> String {
        self.roots.iter().map(|(root, _)| format!("`{root}`")).collect::<Vec<_>>().join(", ")
    }

    /// What a path is, without links, if it may be granted.
    async fn look(&self, desired: &DesiredInstance, grant: &PathGrant, search: Search) -> Result<Granted, Refused> {
        let rules = self.rules(search);
        // Nothing of the host is touched for what is refused by its name.
        rules.allow_name(Path::new(&grant.path)).map_err(Refused::Why)?;
        self.ask(desired, grant, Some(rules)).await
    }

    async fn ask(
        &self,
        desired: &DesiredInstance,
        grant: &PathGrant,
        rules: Option<Rules>,
    ) -> Result<Granted, Refused> {
        let wish = Wish { path: grant.path.clone(), writable: grant.writable, rules };
        let question = Question::MayBeGranted(Box::new(wish));
        match self.looks.ask(Path::new(&grant.path), Some(desired.organization), question).await {
            Ok(Answer::Granted { granted, cut_short }) => {
                if cut_short {
                    self.tell_cut_short();
                }
                Ok(granted)
            }
            Ok(Answer::NotHere) => Err(Refused::NotHere),
            Ok(Answer::Refused(why)) => Err(Refused::Why(why)),
            Ok(other) => Err(Refused::Unknown(format!("could not be looked at: the answer was {other:?}"))),
            Err(why) => Err(Refused::Unknown(unanswered(&why))),
        }
    }

    fn tell_cut_short(&self) {
        self.told_cut_short.call_once(|| {
            let data_dir = self.own.first().map(|path| path.display().to_string()).unwrap_or_default();
            tracing::warn!(
                path = data_dir,
                "the data directory has more names than are looked at: of those further in a hard link, or what a link \
                 leads to, may be granted to a server"
            );
        });
    }

    fn search(&self, uid: Option<u32>, sockets: bool) -> Search {
        Search { uid, sockets, server_uids: self.server_uids.clone() }
    }

    fn rules(&self, search: Search) -> Rules {
        let bytes = |paths: &[PathBuf]| paths.iter().map(|path| path.clone().into_os_string()).collect();
        let root = |(root, led): &(Root, Root)| (root.to_string(), led.path().as_os_str().to_owned());
        Rules {
            roots: self.roots.iter().map(root).collect(),
            own: bytes(&self.own),
            once_there: bytes(&self.once_there),
            shown: bytes(&self.shown),
            not_listed: match self.roots.is_empty() {
                true => "`grantable_paths` of the toolbox's agent is empty".into(),
                false => format!("`grantable_paths` of the toolbox's agent lists only {}", self.listed_text()),
            },
            search,
        }
    }
}

/// What is said of a path that nothing is known of.
pub(crate) fn unanswered(why: &NoAnswer) -> String {
    match why {
        NoAnswer::Hangs => "does not answer; its file system hangs".to_owned(),
        NoAnswer::TooMany => "is not looked at while so many others do not answer; their file systems hang".to_owned(),
        NoAnswer::Late => "was not looked at in time: too many are looked at".to_owned(),
        NoAnswer::Broke(error) => format!("could not be looked at: {error}"),
    }
}

enum Refused {
    NotHere,
    Why(String),
    /// Nothing is known of it now; what is said after its name.
    Unknown(String),
}

/// What a root leads to. One that is not there holds nothing, nor does one that does not answer.
async fn led_to(looks: &Looks, root: &Root) -> Root {
    match looks.ask(root.path(), None, Question::LeadsTo(root.path().as_os_str().to_owned())).await {
        Ok(Answer::LeadsTo(Some(path))) => root.at(path.into()),
        Ok(_) => root.clone(),
        Err(why) => {
            tracing::warn!(root = %root, "`grantable_paths`: this one {}", unanswered(&why));
            root.clone()
        }
    }
}

impl Question {
    /// Looks. Only in a process of its own: this may never return.
    pub(crate) fn answer(self) -> Answer {
        match self {
            Self::LeadsTo(path) => Answer::LeadsTo(std::fs::canonicalize(path).ok().map(PathBuf::into_os_string)),
            Self::MayBeGranted(wish) => wish.judged(),
            Self::IsMounted { pid, container, granted } => crate::process::seen_by(pid, &container, &granted),
        }
    }
}

impl Wish {
    fn judged(&self) -> Answer {
        let Ok(source) = std::fs::canonicalize(&self.path) else { return Answer::NotHere };
        if source.to_str().is_none() {
            return Answer::Refused("what it leads to is not UTF-8".into());
        }
        let Ok(own) = Granted::own(&source) else { return Answer::NotHere };
        let granted = Granted { path: PathBuf::from(&self.path), writable: self.writable, ..own };
        let Some(rules) = &self.rules else { return Answer::Granted { granted, cut_short: false } };
        match rules.allow(&granted) {
            Ok(Allowed { forbidden, cut_short }) => {
                Answer::Granted { granted: Granted { forbidden, ..granted }, cut_short }
            }
            Err(why) => Answer::Refused(why),
        }
    }
}

impl Rules {
    /// Whether a path may be granted as far as its name tells.
    fn allow_name(&self, path: &Path) -> Result<(), String> {
        self.allow_whose(path)?;
        match self.roots().any(|(root, led)| root.holds(path) || led.holds(path)) {
            true => Ok(()),
            false => Err(self.not_listed.clone()),
        }
    }

    /// Whether what a path leads to may be granted.
    fn allow(&self, granted: &Granted) -> Result<Allowed, String> {
        let Granted { path, source, writable, device, inode, .. } = granted;
        self.allow_whose(source)?;
        let mut there = self.once_there.iter().filter_map(|own| std::fs::canonicalize(own).ok());
        if there.any(|own| is_above(&own, source) || is_above(source, &own)) {
            return Err(OWN.to_owned());
        }
        // Of the roots only those are looked at that by a name of theirs are where we are: another's may hang.
        let mut here = self.roots().filter(|(root, led)| root.holds(path) || led.holds(source));
        if !here.any(|(root, _)| root.at(canonical(root.path())).holds(source)) {
            return Err(self.not_listed.clone());
        }
        let mut shown = self.shown.iter().map(Path::new);
        if let Some(shown) = shown.find(|it| *writable && (it.starts_with(source) || source.starts_with(it))) {
            let shown = shown.display();
            return Err(format!("every server is shown `{shown}`, so it is granted for reading only"));
        }
        let kind = std::fs::symlink_metadata(source).map_err(|_| "it is gone".to_owned())?.file_type();
        if !kind.is_dir() && !kind.is_file() {
            return Err("it is neither a directory nor a regular file".into());
        }
        let mounts = Mounts::here().map_err(|error| not_told(&error))?;
        let guarded = self.guarded(*writable, &mounts).map_err(|error| not_told(&error))?;
        for (guarded, what) in &guarded {
            let name = guarded.name_in(source, (*device, *inode), &mounts).map_err(|error| not_told(&error))?;
            if let Some(name) = name {
                return Err(by_another_name(what, &name));
            }
        }
        if let Some(server_uids) = &self.search.server_uids
            && let Some(dir) = source.ancestors().skip(1).find(|dir| is_data_dir(dir, server_uids))
        {
            return Err(is_anothers(dir));
        }
        match self.search.refuses(source, &guarded) {
            Some(why) => Err(why),
            None => Ok(Allowed {
                forbidden: guarded.iter().flat_map(|(guarded, _)| guarded.places()).cloned().collect(),
                cut_short: guarded.iter().any(|(guarded, _)| guarded.is_cut_short()),
            }),
        }
    }

    /// What is not to be had by another name, and what is said of it.
    fn guarded(&self, writable: bool, mounts: &Mounts) -> io::Result<Vec<(Guarded, &'static str)>> {
        let own = self.own.iter().chain(&self.once_there).map(Path::new);
        let mut guarded = vec![(Guarded::whole(own, mounts)?, OWN)];
        if writable {
            let shown = Guarded::named(self.shown.iter().map(Path::new), mounts)?;
            guarded.push((shown, "it is granted for reading only, since what every server is shown is there"));
        }
        Ok(guarded)
    }

    fn allow_whose(&self, path: &Path) -> Result<(), String> {
        if let Some(why) = why_never(path) {
            return Err(why.into());
        }
        match self.own.iter().any(|own| is_above(Path::new(own), path) || is_above(path, Path::new(own))) {
            true => Err(OWN.to_owned()),
            false => Ok(()),
        }
    }

    fn roots(&self) -> impl Iterator<Item = (Root, Root)> {
        self.roots.iter().map(|(text, led)| {
            let root = Root::new(text);
            let led = root.at(led.into());
            (root, led)
        })
    }
}

/// Whether a path is another one or has it in it.
fn is_above(path: &Path, other: &Path) -> bool {
    other.starts_with(path)
}

/// A root that is not there holds nothing.
fn canonical(root: &Path) -> PathBuf {
    std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned())
}

impl Search {
    /// Why a directory may not be granted for what is in it or below it: a file that is guarded, by another name; another
    /// Toolyard's data directory; or a socket that a process of the server's user, or one of ours, could connect to. What
    /// that user made is its own affair.
    fn refuses(&self, dir: &Path, guarded: &[(Guarded, &'static str)]) -> Option<String> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let links = guarded.iter().any(|(guarded, _)| guarded.is_linked());
        let connectable = |path: &Path| match self.uid {
            Some(uid) => {
                std::fs::symlink_metadata(path).is_ok_and(|socket| socket.uid() != uid && socket.mode() & 0o002 != 0)
            }
            None => nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok(),
        };
        let passable = |path: &Path| {
            let open = |dir: std::fs::Metadata| self.uid.is_none_or(|uid| dir.uid() == uid || dir.mode() & 0o001 != 0);
            std::fs::symlink_metadata(path).is_ok_and(open)
        };
        let linked = |path: &Path| {
            let metadata = std::fs::symlink_metadata(path).ok()?;
            guarded.iter().find(|(guarded, _)| guarded.has_link(&metadata)).map(|(_, what)| by_another_name(what, path))
        };
        let is_anothers_own = |dir: &Path| self.server_uids.as_ref().is_some_and(|uids| is_data_dir(dir, uids));
        // What is near is looked at first: there may be more than is looked at.
        let mut dirs = VecDeque::from([dir.to_owned()]);
        let (mut names, began) = (0, Instant::now());
        while let Some(dir) = dirs.pop_front() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                names += 1;
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && passable(&path) => dirs.push_back(path),
                    Ok(kind) if kind.is_socket() && self.sockets && connectable(&path) => {
                        return Some(format!("a server could connect to the socket `{}`", path.display()));
                    }
                    // Names are only asked for where one was listed: what hangs may do so at that.
                    Ok(kind) if kind.is_file() && is_mark(&entry.file_name()) && is_anothers_own(&dir) => {
                        return Some(is_anothers(&dir));
                    }
                    Ok(kind) if kind.is_file() && links => {
                        if let Some(why) = linked(&path) {
                            return Some(why);
                        }
                    }
                    _ => {}
                }
                if names >= MOST_NAMES || began.elapsed() >= LONGEST_SEARCH {
                    return None;
                }
            }
        }
        None
    }
}

/// Whether a directory is the data directory of a control plane or an agent, and no server's work. Only what both have from
/// their first start on tells it: a file `toolyard.db` may be anybody's copy. Nobody but its user can write there; where
/// others can, anybody could make one. Change it together with `Installation` in crates/toolyard/src/installation.rs.
fn is_data_dir(dir: &Path, server_uids: &RangeInclusive<u32>) -> bool {
    use std::os::unix::fs::MetadataExt;
    // Of another installation on this host the servers have others, and ours may have had others before.
    let is_servers = |uid: u32| server_uids.contains(&uid) || crate::uids::SPACE.contains(&uid);
    let has = |name: &str| {
        let file = std::fs::symlink_metadata(dir.join(name));
        file.is_ok_and(|file| file.is_file() && !is_servers(file.uid()))
    };
    let is_marked = || (has("serve.lock") && has("installation")) || (has("agent.lock") && has("host.key"));
    let metadata = std::fs::symlink_metadata(dir);
    metadata.is_ok_and(|dir| dir.mode() & 0o022 == 0 && !is_servers(dir.uid())) && is_marked()
}

/// Whether a file of this name may be what tells that.
fn is_mark(name: &OsStr) -> bool {
    ["installation", "host.key"].iter().any(|mark| name == *mark)
}

fn is_anothers(dir: &Path) -> String {
    format!("`{}` is the data directory of another Toolyard", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn grants(dir: &Path, roots: &[&str]) -> Grants {
        let roots = roots.iter().map(|root| format!("{}/{root}", dir.display())).collect();
        let own = vec![dir.join("home/project/toolyard.toml")];
        let paths = GrantablePaths { roots, own, once_there: vec![] };
        open(&paths, &dir.join("data"), vec![dir.join("home/certificates/ca.pem"), dir.join("home/authorities")])
    }

    fn open(paths: &GrantablePaths, data_dir: &Path, shown: Vec<PathBuf>) -> Grants {
        let good = paths.roots.iter().filter(|text| GrantablePaths::check_root(text).is_ok());
        let led = |root: Root| (root.clone(), root.at(canonical(root.path())));
        let roots = good.map(|text| led(Root::new(text))).collect();
        Grants::with(roots, paths, (data_dir, shown), None, looks()).expect("opened")
    }

    fn looks() -> Looks {
        Looks::new("/no/such/program".into(), crate::looks::PATIENCE)
    }

    /// Looks at a path as a process of its own would.
    fn look(grants: &Grants, path: &str, writable: bool) -> Result<Granted, Refused> {
        let rules = grants.rules(grants.search(None, false));
        rules.allow_name(Path::new(path)).map_err(Refused::Why)?;
        let wish = Wish { path: path.to_owned(), writable, rules: Some(rules) };
        match Question::MayBeGranted(Box::new(wish)).answer() {
            Answer::Granted { granted, .. } => Ok(granted),
            Answer::NotHere => Err(Refused::NotHere),
            Answer::Refused(why) => Err(Refused::Why(why)),
            other => panic!("{other:?}"),
        }
    }

    fn host() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for name in
            ["data", "srv/files/deep", "home/notes", "home/.ssh", "home/project/src", "home/notes/.git", "secret"]
        {
            std::fs::create_dir_all(dir.path().join(name)).expect("made");
        }
        std::fs::write(dir.path().join("home/project/toolyard.toml"), "").expect("written");
        symlink(dir.path().join("secret"), dir.path().join("srv/way-out")).expect("linked");
        symlink(dir.path().join("srv/files"), dir.path().join("home/files")).expect("linked");
        std::os::unix::net::UnixListener::bind(dir.path().join("srv/socket")).expect("bound");
        dir
    }

    #[test]
    fn what_is_known_of_before_and_cannot_be_read_grants_nothing_and_is_not_made_again() {
        let dir = host();
        let file = dir.path().join("data").join(FILE);
        for broken in ["", "{\"revisions\":"] {
            std::fs::write(&file, broken).expect("written");
            assert_eq!(grants(dir.path(), &["srv"]).before, BTreeSet::new());
            assert_eq!(std::fs::read_to_string(&file).expect("there"), broken);
        }
    }

    #[test]
    fn only_what_lies_below_a_root_without_links_is_granted() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let grants = grants(&root, &["srv", "home/*", "secret-that-is-not-there"]);
        let granted = |path: &str| look(&grants, &format!("{}/{path}", root.display()), false).is_ok();
        for good in ["srv", "srv/files", "srv/files/deep", "home/notes", "home/project/src", "home/files"] {
            assert!(granted(good), "{good}");
        }
        for bad in ["", "secret", "srv/way-out", "srv/socket", "srv/../secret", "srv/none", "srvx"] {
            assert!(!granted(bad), "{bad}");
        }
        for bad in
            ["home", "home/.ssh", "home/notes/.git", "home/project", "home/project/toolyard.toml", "data", "data/x"]
        {
            assert!(!granted(bad), "{bad}");
        }
    }

    #[test]
    fn what_every_server_is_shown_is_granted_to_none_for_writing() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        for directory in ["home/certificates", "home/authorities/in"] {
            std::fs::create_dir_all(root.join(directory)).expect("made");
        }
        for file in ["home/certificates/ca.pem", "home/authorities/a.pem"] {
            std::fs::write(root.join(file), "").expect("written");
        }
        let grants = grants(&root, &["home/*"]);
        let granted = |path: &str, writable| look(&grants, &format!("{}/{path}", root.display()), writable).is_ok();
        for path in [
            "home/certificates",
            "home/certificates/ca.pem",
            "home/authorities",
            "home/authorities/in",
            "home/authorities/a.pem",
        ] {
            assert!(granted(path, false) && !granted(path, true), "{path}");
        }
        assert!(granted("home/notes", true));
        std::fs::hard_link(root.join("home/certificates/ca.pem"), root.join("home/notes/ca")).expect("linked");
        for path in ["home/notes", "home/notes/ca"] {
            assert!(granted(path, false) && !granted(path, true), "{path}");
        }
    }

    #[test]
    fn a_root_that_leads_elsewhere_by_now_holds_nothing_of_where_it_led() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let grants = grants(&root, &["home/files"]);
        let granted = |path: &str| look(&grants, &format!("{}/{path}", root.display()), false).is_ok();
        assert!(granted("srv/files/deep") && granted("home/files/deep"));
        std::fs::remove_file(root.join("home/files")).expect("removed");
        symlink(root.join("home/notes"), root.join("home/files")).expect("linked");
        assert!(!granted("srv/files/deep") && !granted("home/files/deep"));
        assert!(granted("home/files"));
    }

    #[test]
    fn a_directory_with_a_socket_to_connect_to_is_found_and_a_servers_own_is_not() {
        let dir = host();
        let (files, socket) = (dir.path().join("srv/files"), dir.path().join("srv/files/deep/socket"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        let mode = |mode| {
            let mode: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(&socket, mode).expect("set");
        };
        let own = nix::unistd::Uid::effective().as_raw();
        let found = |uid| Search { uid, sockets: true, server_uids: None }.refuses(&files, &[]);
        let told = Some(format!("a server could connect to the socket `{}`", socket.display()));
        mode(0o755);
        assert_eq!(found(None), told);
        assert_eq!(found(Some(own + 1)), None);
        mode(0o777);
        assert_eq!(found(Some(own + 1)), told);
        assert_eq!(found(Some(own)), None);
        assert_eq!(Search::default().refuses(&files, &[]), None);
        let deep: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(files.join("deep"), deep).expect("shut");
        assert_eq!(found(Some(own + 1)), None);
    }

    /// Why a path is not granted; nothing when it is.
    fn refusal(grants: &Grants, path: &Path, writable: bool) -> String {
        match look(grants, path.to_str().expect("UTF-8"), writable) {
            Ok(_) => String::new(),
            Err(Refused::Why(why) | Refused::Unknown(why)) => why,
            Err(Refused::NotHere) => "it is not there".to_owned(),
        }
    }

    #[test]
    fn a_hard_link_of_toolyards_own_is_granted_to_none_nor_is_what_holds_one() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        std::fs::create_dir_all(root.join("data/toolbox/identity")).expect("made");
        let (files, deep) = (root.join("srv/files"), root.join("srv/files/deep"));
        let link = deep.join("link");
        let grants = grants(&root, &["srv/files"]);
        for own in [
            "data/vault.key",
            "data/toolyard.db",
            "data/toolyard.db-wal",
            "data/toolbox/host.key",
            "data/toolbox/identity/key.pem",
            "home/project/toolyard.toml",
        ] {
            std::fs::write(root.join(own), "secret").expect("written");
            assert_eq!(refusal(&grants, &files, false), "", "{own}");
            std::fs::hard_link(root.join(own), &link).expect("linked");
            for path in [&link, &deep, &files] {
                let told = format!("Toolyard's own files are there by another name, `{}`", link.display());
                assert_eq!(refusal(&grants, path, false), told, "{own}");
            }
            std::fs::remove_file(&link).expect("removed");
        }
    }

    #[test]
    fn where_a_link_in_the_data_directory_leads_is_toolyards_own_too() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        for directory in ["srv/files/db", "srv/files/box/identity", "srv/files/kept"] {
            std::fs::create_dir_all(root.join(directory)).expect("made");
        }
        std::fs::write(root.join("srv/files/db/store"), "secret").expect("written");
        symlink(root.join("srv/files/db/store"), root.join("data/toolyard.db")).expect("linked");
        symlink("../srv/files/box", root.join("data/toolbox")).expect("linked");
        symlink(&root, root.join("data/up")).expect("linked");
        symlink(root.join("srv/files/kept"), root.join("data-link")).expect("linked");
        let roots = vec![root.join("srv/files").display().to_string()];
        let paths = GrantablePaths { roots, ..GrantablePaths::default() };
        let refused = |data_dir: &str, path: &str| {
            let grants = open(&paths, &root.join(data_dir), vec![]);
            refusal(&grants, &root.join("srv/files").join(path), false)
        };
        for path in ["", "db", "db/store", "box", "box/identity"] {
            assert!(refused("data", path).starts_with("Toolyard's own files are there by another name, `"), "{path}");
        }
        assert_eq!((refused("data", "deep"), refused("data", "kept")), (String::new(), String::new()));
        assert_eq!(refused("data-link", "kept"), "Toolyard's own files are there");
        assert_eq!(refused("data-link", "deep"), "");
    }

    #[test]
    fn what_is_toolyards_own_once_it_is_there_is_granted_to_none_from_then_on() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let kept = root.join("home/.config/toolyard");
        let roots = vec![root.join("home").display().to_string()];
        let paths = GrantablePaths { roots, once_there: vec![kept.clone()], ..GrantablePaths::default() };
        let grants = open(&paths, &root.join("data"), vec![]);
        let refused = |path: &str| refusal(&grants, &root.join(path), false);
        assert_eq!((refused("home"), refused("home/notes")), (String::new(), String::new()));
        std::fs::create_dir_all(&kept).expect("made");
        std::fs::write(kept.join("profile.json"), "secret").expect("written");
        for path in ["home", "home/.config", "home/.config/toolyard", "home/.config/toolyard/profile.json"] {
            assert_eq!(refused(path), OWN, "{path}");
        }
        assert_eq!(refused("home/notes"), "");
        std::fs::hard_link(kept.join("profile.json"), root.join("home/notes/link")).expect("linked");
        assert_eq!(refused("home/notes"), by_another_name(OWN, &root.join("home/notes/link")));
    }

    #[test]
    fn what_is_a_servers_in_the_data_directory_guards_nothing() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let grants = grants(&root, &["srv/files"]);
        for theirs in ["data/instances/one/work", "data/instances/.scratch-gone-1", "data/packages/one"] {
            let theirs = root.join(theirs);
            std::fs::create_dir_all(&theirs).expect("made");
            symlink(root.join("srv/files"), theirs.join("link")).expect("linked");
            std::fs::write(theirs.join("file"), "theirs").expect("written");
            let name = theirs.parent().and_then(Path::file_name).expect("it has a name");
            std::fs::hard_link(theirs.join("file"), root.join("srv/files").join(name)).expect("linked");
        }
        assert_eq!(refusal(&grants, &root.join("srv/files"), false), "");
    }

    /// User ids of servers, as if these tests were none or one of them.
    fn server_uids(are_we_one: bool) -> Option<RangeInclusive<u32>> {
        let own = nix::unistd::Uid::effective().as_raw();
        Some(if are_we_one { own..=own + 9 } else { own + 1..=own + 9 })
    }

    /// What says that a directory is a control plane's, and an agent's.
    const MARKS: [[&str; 2]; 2] = [["serve.lock", "installation"], ["agent.lock", "host.key"]];

    #[test]
    fn another_toolyards_data_directory_is_known_by_what_is_in_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let (notes, other) = (root.join("home/notes"), root.join("home/notes/deep/other"));
        std::fs::create_dir_all(other.join("backups")).expect("made");
        let mode = |mode| std::fs::set_permissions(&other, std::fs::Permissions::from_mode(mode)).expect("set");
        mode(0o700);
        let mut grants = grants(&root, &["home/*"]);
        grants.server_uids = server_uids(false);
        let told = format!("`{}` is the data directory of another Toolyard", other.display());
        for files in MARKS {
            for file in files {
                assert_eq!(refusal(&grants, &other, false), "", "{file}");
                std::fs::write(other.join(file), "").expect("written");
            }
            for path in [&other, &other.join("backups"), &other.join(files[0]), &notes] {
                assert_eq!(refusal(&grants, path, false), told, "in it, equal, above");
            }
            // Also when sockets are looked for, unless the server's user may not pass.
            let found = |uid| grants.search(uid, true).refuses(&notes, &[]);
            assert_eq!((found(None), found(Some(1))), (Some(told.clone()), None));
            // Anybody could have made this one, to be in somebody's way.
            mode(0o777);
            assert_eq!(refusal(&grants, &other, false), "");
            mode(0o700);
            for file in files {
                std::fs::remove_file(other.join(file)).expect("removed");
            }
        }
        assert_eq!(refusal(&grants, &notes, false), "");
    }

    #[test]
    fn what_a_server_can_have_made_is_no_data_directory_and_is_in_nobodys_way() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let (notes, forged) = (root.join("home/notes"), root.join("home/notes/forged"));
        std::fs::create_dir_all(forged.join("deep")).expect("made");
        let mut grants = grants(&root, &["home/*"]);
        let mut nobody_is_refused = |uids: Option<RangeInclusive<u32>>| {
            grants.server_uids = uids;
            for path in [&notes, &forged, &forged.join("deep")] {
                assert_eq!(refusal(&grants, path, true), "", "{:?}", grants.server_uids);
            }
        };
        // A copy of a database makes none, whoever keeps it.
        std::fs::write(forged.join("toolyard.db"), "").expect("written");
        std::fs::create_dir(forged.join("installation")).expect("made");
        std::fs::write(forged.join("serve.lock"), "").expect("written");
        nobody_is_refused(server_uids(false));
        std::fs::remove_dir(forged.join("installation")).expect("removed");
        for file in MARKS.concat() {
            std::fs::write(forged.join(file), "").expect("written");
        }
        // Where servers have our own user, nothing tells what they made from what another Toolyard did.
        nobody_is_refused(None);
        nobody_is_refused(server_uids(true));
        if let Err(error) = std::os::unix::fs::chown(forged.join("host.key"), Some(*crate::uids::SPACE.start()), None) {
            assert!(!nix::unistd::Uid::effective().is_root(), "root gives files away: {error}");
            eprintln!("not tested: files cannot be given away here: {error}");
            return;
        }
        std::os::unix::fs::chown(forged.join("installation"), Some(*crate::uids::SPACE.end()), None).expect("given");
        nobody_is_refused(server_uids(false));
        for file in ["host.key", "installation"] {
            std::os::unix::fs::chown(forged.join(file), Some(0), None).expect("given back");
        }
        std::os::unix::fs::chown(&forged, Some(*crate::uids::SPACE.start()), None).expect("given");
        nobody_is_refused(server_uids(false));
    }

    #[test]
    fn what_lies_deep_in_a_directory_is_found_too_when_no_sockets_are_looked_for() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let deep = root.join("srv/files/deep/deeper");
        std::fs::create_dir_all(&deep).expect("made");
        let mut grants = grants(&root, &["srv/files"]);
        grants.server_uids = server_uids(false);
        assert_eq!(refusal(&grants, &root.join("srv/files"), false), "");
        for file in MARKS.concat() {
            std::fs::write(deep.join(file), "").expect("written");
        }
        let told = format!("`{}` is the data directory of another Toolyard", deep.display());
        assert_eq!(refusal(&grants, &root.join("srv/files"), false), told);
    }

    #[test]
    fn what_is_listed_is_told_by_each_name_that_a_path_may_be_asked_for_by() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let grants = grants(&root, &["srv", "home/files/*", "secret-that-is-not-there"]);
        let told = grants.listed().expect("they are texts");
        let of = |names: &[&str]| names.iter().map(|name| format!("{}/{name}", root.display())).collect::<Vec<_>>();
        assert_eq!(told, of(&["srv", "home/files/*", "srv/files/*", "secret-that-is-not-there"]));
    }

    #[test]
    fn what_is_refused_tells_nothing_about_the_host() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let grants = grants(&root, &["srv"]);
        let why = |path: &str| match look(&grants, &format!("{}/{path}", root.display()), false) {
            Err(Refused::Why(why)) => why,
            _ => "?".into(),
        };
        assert_eq!(why("secret"), why("secret/not/there"));
    }

    #[test]
    fn what_is_the_systems_is_never_granted_whatever_the_list_says() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let roots = ["/", "/etc", "/*"].map(String::from).to_vec();
        let paths = GrantablePaths { roots, ..GrantablePaths::default() };
        let all = open(&paths, &root.join("data"), vec![]);
        assert!(all.roots.is_empty());
        let roots = vec![(Root::new("/"), Root::new("/"))];
        let (own, shown) = (vec![root.join("data")], vec![]);
        let (before, looks, server_uids) = (BTreeSet::new(), looks(), None);
        let once_there = Vec::new();
        let all = Grants { roots, own, once_there, shown, before, looks, server_uids, told_cut_short: Once::new() };
        for bad in ["/", "/etc", "/etc/passwd", "/proc/self", "/sys", "/dev/null", "/run", "/var/run", "/boot", "//"] {
            assert!(look(&all, bad, false).is_err(), "{bad}");
        }
        let above = root.parent().expect("a parent").display().to_string();
        let look = |path: &str| look(&all, path, false);
        assert!(look(&above).is_err() && look(&format!("{}/data", root.display())).is_err());
        assert!(look(&format!("{}/secret", root.display())).is_ok());
        for bad in ["srv", "./srv", "/srv/../etc", "/etc/x", "/", "/*", ""] {
            assert!(GrantablePaths::check_root(bad).is_err(), "{bad}");
        }
        assert!(GrantablePaths::check_root("/srv/data").is_ok() && GrantablePaths::check_root("/home/me/*").is_ok());
    }
}
