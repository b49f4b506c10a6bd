//! Which paths of this host servers may be shown. Who runs the agent says so, on this host; a control plane or a
//! deployer can only ask.
//!
//! - A path is looked at twice: as it was asked for, before anything of the host is touched, so that what is refused
//!   tells nothing about the host; and as what it leads to, without links.
//! - What is Toolyard's own and what is the system's is never granted, whatever the list says.
//! - Only directories and regular files: a socket or a device is a way to something else. So is a directory with a
//!   socket in it that the server could connect to, which neither mounts nor Landlock keep it from. It is looked for
//!   when a server starts; one that comes later is not seen.
//! - What ran before this host had a list runs on as it was, and says so, until it has another revision. Which those
//!   are is written down once, here: nobody else can add to them.
//!
//! The process engine mounts the very file that was looked at ([`Granted::device`], [`Granted::inode`]). A container
//! engine is told a path and looks at it again: who may rename directories below a root could lead it elsewhere, as
//! with every bind mount of Docker. So a root is best a directory that its users cannot move.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use toolyard_types::RevisionId;
use toolyard_types::Secret;
use toolyard_types::agent::{Desired, DesiredInstance, Enforcement, Failure};
use toolyard_types::grantable::{Root, is_systems, why_never};
use toolyard_types::name::printable;
use toolyard_types::spec::PathGrant;
use toolyard_types::state::Reason;

use crate::desired::write_whole;
use crate::packages::failure;

/// How many names are looked at when a directory is searched for sockets.
const MOST_NAMES: usize = 20_000;
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
}

impl Granted {
    /// A directory of our own, for what runs at our own wish.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn own(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::symlink_metadata(path)?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self { path: path.to_owned(), source: path.to_owned(), writable: true, device, inode })
    }
}

/// The paths of this host that may be granted, as an agent knows them.
#[derive(Debug)]
pub(crate) struct Grants {
    roots: Vec<Root>,
    own: Vec<PathBuf>,
    before: BTreeSet<RevisionId>,
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
    /// Reads what ran before there was a list; at the first start that is what `desired` says.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub(crate) fn open(paths: &GrantablePaths, data_dir: &Path, desired: Option<&Desired>) -> io::Result<Self> {
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
        let root = |text: &String| Root::new(text);
        let mut own: Vec<PathBuf> = std::iter::once(data_dir.to_owned()).chain(paths.own.iter().cloned()).collect();
        own.extend(paths.own.iter().filter_map(|path| std::fs::canonicalize(path).ok()));
        let good = |text: &&String| GrantablePaths::check_root(text).is_ok();
        Ok(Self { roots: paths.roots.iter().filter(good).map(root).collect(), own, before: before.revisions })
    }

    /// What a server may see of this host. It runs as `uid`, or as we do.
    ///
    /// # Errors
    /// When a path is not here, or may not be granted.
    pub(crate) fn of(&self, desired: &DesiredInstance, uid: Option<u32>) -> Result<Vec<Granted>, Failure> {
        let known = self.before.contains(&desired.revision);
        let connectable = |path: &Path| match (!known).then(|| socket_in(path, uid)).flatten() {
            Some(socket) => Err(Refused::Why(format!("a server could connect to the socket `{}`", socket.display()))),
            None => Ok(()),
        };
        let seen = |grant: &PathGrant| self.look(&grant.path).and_then(|path| connectable(&path).map(|()| path));
        let look = |grant: &PathGrant| match seen(grant) {
            Ok(source) => granted(grant, source),
            Err(Refused::NotHere) => Err(not_here(&grant.path)),
            Err(Refused::Why(_)) if known => {
                let source = std::fs::canonicalize(&grant.path).map_err(|_| not_here(&grant.path))?;
                granted(grant, source)
            }
            Err(Refused::Why(why)) => {
                let message = format!("path `{}` may not be granted here: {why}", printable(&grant.path));
                Err(failure(Reason::ConfigInvalid, message))
            }
        };
        desired.spec.paths.iter().map(look).collect()
    }

    /// What a person should know of a server's paths: those that it, or another revision, would not get again.
    pub(crate) fn remark(&self, desired: &DesiredInstance) -> String {
        let refused = |grant: &&PathGrant| matches!(self.look(&grant.path), Err(Refused::Why(_)));
        let outside: Vec<_> = desired.spec.paths.iter().filter(refused).map(|grant| printable(&grant.path)).collect();
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

    /// For the toolbox's report. Change it together with `grantablePaths` in
    /// console/src/features/toolboxes/public/grants.ts, which reads it where [`Self::listed`] is not told.
    pub(crate) fn enforcement(&self) -> Enforcement {
        let detail = match self.roots.is_empty() {
            true => "no path of this host is granted".to_owned(),
            false => format!("only {} (`grantable_paths`)", self.shown()),
        };
        Enforcement { enforced: true, detail }
    }

    /// The same as data, for a control plane that looks for a toolbox: each root as it is listed and as what it leads to
    /// now, for a path may be asked for by either name. None when one of them is no text.
    pub(crate) fn listed(&self) -> Option<Vec<String>> {
        let both = self.roots.iter().flat_map(|root| [root.clone(), root.at(canonical(root.path()))]);
        let mut listed = Vec::new();
        for root in both {
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

    fn shown(&self) -> String {
        self.roots.iter().map(|root| format!("`{root}`")).collect::<Vec<_>>().join(", ")
    }

    /// What a path is, without links, if it may be granted.
    fn look(&self, text: &str) -> Result<PathBuf, Refused> {
        let path = Path::new(text);
        self.allow(path, |root| vec![root.clone(), root.at(canonical(root.path()))])?;
        let source = std::fs::canonicalize(path).map_err(|_| Refused::NotHere)?;
        self.allow(&source, |root| vec![root.at(canonical(root.path()))])?;
        let kind = std::fs::symlink_metadata(&source).map_err(|_| Refused::NotHere)?.file_type();
        if !kind.is_dir() && !kind.is_file() {
            return Err(Refused::Why("it is neither a directory nor a regular file".into()));
        }
        Ok(source)
    }

    fn allow(&self, path: &Path, roots: impl Fn(&Root) -> Vec<Root>) -> Result<(), Refused> {
        if let Some(why) = why_never(path) {
            return Err(Refused::Why(why.into()));
        }
        if self.own.iter().any(|own| path.starts_with(own) || own.starts_with(path)) {
            return Err(Refused::Why("Toolyard's own files are there".into()));
        }
        if self.roots.iter().flat_map(roots).any(|root| root.holds(path)) {
            return Ok(());
        }
        Err(Refused::Why(match self.roots.is_empty() {
            true => "`grantable_paths` of the toolbox's agent is empty".into(),
            false => format!("`grantable_paths` of the toolbox's agent lists only {}", self.shown()),
        }))
    }
}

enum Refused {
    NotHere,
    Why(String),
}

/// A root that is not there holds nothing.
fn canonical(root: &Path) -> PathBuf {
    std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned())
}

/// A socket in a directory that a process of the user `uid`, or one of ours, could connect to. What that user made is
/// its own affair.
fn socket_in(dir: &Path, uid: Option<u32>) -> Option<PathBuf> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let connectable = |path: &Path| match uid {
        Some(uid) => {
            std::fs::symlink_metadata(path).is_ok_and(|socket| socket.uid() != uid && socket.mode() & 0o002 != 0)
        }
        None => nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok(),
    };
    let passable = |path: &Path| {
        let open = |dir: std::fs::Metadata| uid.is_none_or(|uid| dir.uid() == uid || dir.mode() & 0o001 != 0);
        std::fs::symlink_metadata(path).is_ok_and(open)
    };
    let mut dirs = vec![dir.to_owned()];
    let mut names = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            names += 1;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && passable(&entry.path()) => dirs.push(entry.path()),
                Ok(kind) if kind.is_socket() && connectable(&entry.path()) => return Some(entry.path()),
                _ => {}
            }
            if names >= MOST_NAMES {
                return None;
            }
        }
    }
    None
}

fn granted(grant: &PathGrant, source: PathBuf) -> Result<Granted, Failure> {
    let own = Granted::own(&source).map_err(|_| not_here(&grant.path))?;
    Ok(Granted { path: PathBuf::from(&grant.path), writable: grant.writable, ..own })
}

fn not_here(path: &str) -> Failure {
    failure(Reason::ConfigInvalid, format!("path `{}` is not on this host", printable(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn grants(dir: &Path, roots: &[&str]) -> Grants {
        let roots = roots.iter().map(|root| format!("{}/{root}", dir.display())).collect();
        let paths = GrantablePaths { roots, own: vec![dir.join("home/project/toolyard.toml")] };
        Grants::open(&paths, &dir.join("data"), None).expect("opened")
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
        let granted = |path: &str| grants.look(&format!("{}/{path}", root.display())).is_ok();
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
    fn a_directory_with_a_socket_to_connect_to_is_found_and_a_servers_own_is_not() {
        let dir = host();
        let (files, socket) = (dir.path().join("srv/files"), dir.path().join("srv/files/deep/socket"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        let mode = |mode| {
            let mode: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(&socket, mode).expect("set");
        };
        let own = nix::unistd::Uid::effective().as_raw();
        mode(0o755);
        assert_eq!(socket_in(&files, None), Some(socket.clone()));
        assert_eq!(socket_in(&files, Some(own + 1)), None);
        mode(0o777);
        assert_eq!(socket_in(&files, Some(own + 1)), Some(socket.clone()));
        assert_eq!(socket_in(&files, Some(own)), None);
        let deep: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(files.join("deep"), deep).expect("shut");
        assert_eq!(socket_in(&files, Some(own + 1)), None);
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
        let why = |path: &str| match grants.look(&format!("{}/{path}", root.display())) {
            Err(Refused::Why(why)) => why,
            _ => "?".into(),
        };
        assert_eq!(why("secret"), why("secret/not/there"));
    }

    #[test]
    fn what_is_the_systems_is_never_granted_whatever_the_list_says() {
        let dir = host();
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let paths = GrantablePaths { roots: ["/", "/etc", "/*"].map(String::from).to_vec(), own: vec![] };
        let all = Grants::open(&paths, &root.join("data"), None).expect("opened");
        assert!(all.roots.is_empty());
        let roots = vec![Root::new("/")];
        let all = Grants { roots, own: vec![root.join("data")], before: BTreeSet::new() };
        for bad in ["/", "/etc", "/etc/passwd", "/proc/self", "/sys", "/dev/null", "/run", "/var/run", "/boot", "//"] {
            assert!(all.look(bad).is_err(), "{bad}");
        }
        let above = root.parent().expect("a parent").display().to_string();
        assert!(all.look(&above).is_err() && all.look(&format!("{}/data", root.display())).is_err());
        assert!(all.look(&format!("{}/secret", root.display())).is_ok());
        for bad in ["srv", "./srv", "/srv/../etc", "/etc/x", "/", "/*", ""] {
            assert!(GrantablePaths::check_root(bad).is_err(), "{bad}");
        }
        assert!(GrantablePaths::check_root("/srv/data").is_ok() && GrantablePaths::check_root("/home/me/*").is_ok());
    }
}
