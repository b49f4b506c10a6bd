//! Which paths of a host may be granted to servers, as far as names tell. Pure: one rule for the agent, which also looks
//! where a path leads and what is there, and for the control plane, which looks for a toolbox that may grant it.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// What is the system's, with everything in it; `/` itself is never granted either.
const SYSTEM: [&str; 7] = ["/etc", "/proc", "/sys", "/dev", "/run", "/var/run", "/boot"];

/// Where paths may be granted: a path with everything in it; written with `/*` at its end, what lies in it, but no dot
/// files, and not the path itself. Paths are compared part by part, so `//`, `/./` and a `/` at the end change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    path: PathBuf,
    within: bool,
}

impl Root {
    /// Reads one as it is written.
    #[must_use]
    pub fn new(text: &str) -> Self {
        match text.strip_suffix("/*") {
            Some(path) => Self { path: path.into(), within: true },
            None => Self { path: text.into(), within: false },
        }
    }

    /// The path, without the end that says what is meant of it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same with another path, such as the one that its own leads to.
    #[must_use]
    pub fn at(&self, path: PathBuf) -> Self {
        Self { path, within: self.within }
    }

    /// Whether a path lies in it by its name.
    #[must_use]
    pub fn holds(&self, path: &Path) -> bool {
        let Ok(rest) = path.strip_prefix(&self.path) else { return false };
        let hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
        !self.within || (rest.components().next().is_some() && !rest.components().any(hidden))
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path.display(), if self.within { "/*" } else { "" })
    }
}

/// Whether a path is the system's, which no host grants.
#[must_use]
pub fn is_systems(path: &Path) -> bool {
    path.parent().is_none() || SYSTEM.iter().any(|system| path.starts_with(system))
}

/// Why no host grants a path, whatever it lists; `None` when one may.
#[must_use]
pub fn why_never(path: &Path) -> Option<&'static str> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Some("it is not an absolute path without `..`");
    }
    is_systems(path).then_some("it belongs to the system")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(root: &str, path: &str) -> bool {
        Root::new(root).holds(Path::new(path))
    }

    #[test]
    fn a_root_holds_what_lies_in_it_part_by_part() {
        for good in ["/home/a", "/home/a/", "/home/a/x", "//home//a/x/", "/home/./a/x", "/home/a/.ssh"] {
            assert!(holds("/home/a", good) && holds("/home/a/", good) && holds("//home/a", good), "{good}");
        }
        for bad in ["/home/ab", "/home", "/", "home/a", "/srv/home/a", "/home/b/a"] {
            assert!(!holds("/home/a", bad), "{bad}");
        }
    }

    #[test]
    fn with_a_star_a_root_holds_what_lies_in_it_without_dot_files_and_not_itself() {
        for good in ["/home/a/x", "/home/a/x/y.z", "/home/a//x/"] {
            assert!(holds("/home/a/*", good), "{good}");
        }
        for bad in ["/home/a", "/home/a/", "/home/a/.", "/home/a/.ssh", "/home/a/x/.git/config", "/home/ab/x"] {
            assert!(!holds("/home/a/*", bad), "{bad}");
        }
    }

    #[test]
    fn what_leads_up_or_is_the_systems_is_never_granted() {
        for bad in [
            "/srv/../etc",
            "/srv/..",
            "srv",
            "./srv",
            "",
            "/",
            "//",
            "/.",
            "/etc",
            "/etc/",
            "//etc//passwd",
            "/var/run/x",
        ] {
            assert!(why_never(Path::new(bad)).is_some(), "{bad}");
        }
        for good in ["/srv", "/etcetera", "/srv/..x", "/var/running", "/srv/etc"] {
            assert_eq!(why_never(Path::new(good)), None, "{good}");
        }
    }

    #[test]
    fn a_root_is_shown_as_it_is_written() {
        for text in ["/srv/files", "/home/me/*"] {
            assert_eq!(Root::new(text).to_string(), text);
        }
        assert_eq!(Root::new("/srv/way/*").at("/mnt/a".into()).to_string(), "/mnt/a/*");
    }
}
