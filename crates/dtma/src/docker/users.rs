//! Whom a container of somebody else's image runs as.
//!
//! An image names its user by a number or by a name of its own; a name may mean root, and so may a group. So what it
//! means is looked up in the image, in its `/etc/passwd` and `/etc/group`, which come out of a container that is made and
//! never started; and the container of the server is given numbers, which mean the same to every engine. Nothing runs as
//! the user or the group 0.
//!
//! The engine opens both files too when it starts a container, as whatever user, and waits there for ever when one is a
//! pipe. So no container is started of an image where they are anything but regular files. It looks up the group of the
//! container by name too, and adds what it finds: a group whose name is a number would be another group for who is given
//! that number. So an image with such a name is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bollard::container::PathStatResponse;
use bollard::errors::Error as ApiError;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder};
use futures_util::StreamExt;
use toolyard_types::agent::Failure;
use toolyard_types::name::printable;
use toolyard_types::state::Reason;

use super::clients::Removal;
use super::keeper::not_started;
use super::{Docker, engine_failure, is_missing, short};
use crate::packages::failure;

/// One block of an archive.
const BLOCK: usize = 512;
/// The most that is read of an image's list of users or groups.
const MAX_LIST_BYTES: usize = 1 << 20;
/// The longest list that an engine is let read.
const MAX_ENGINE_BYTES: i64 = 16 << 20;
/// How the engine marks in a mode that something is no regular file (Go's `fs.ModeType`), and that it is a link.
const MODE_TYPE: u32 = 0x8F28_0000;
const MODE_LINK: u32 = 1 << 27;
/// Engines follow a link to its end by themselves; others one step at a time.
const MAX_LINKS: usize = 8;
/// Longest time for a look at one image.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
/// The largest number that engines take.
const HIGHEST: u32 = i32::MAX.unsigned_abs();
/// How many images are remembered, each by its digest or id.
const MAX_KNOWN: usize = 256;

/// A user and a group, neither of them 0.
pub(super) type Ids = (u32, u32);

/// What was found out of images.
pub(super) type Known = std::sync::Mutex<Found>;

#[derive(Default)]
pub(super) struct Found {
    /// What their users are.
    users: BTreeMap<(String, String), Option<Ids>>,
    /// Those whose lists an engine can read.
    readable: BTreeSet<String>,
}

/// The lists of an image, as far as they can be read.
#[derive(Default)]
struct Lists {
    users: Option<String>,
    groups: Option<String>,
}

/// What the user of an image is, unless it is root, is in the group of root, or cannot be told.
///
/// # Errors
/// When no engine could run it as that, or the engine does not answer.
pub(super) async fn of(docker: &Docker, image: &str, user: &str) -> Result<Option<Ids>, Failure> {
    // Whole numbers need no look at the image.
    if let Some(ids) = whole(user) {
        return Ok(checked(user, ids)?.and_then(harmless));
    }
    let name = (image.to_owned(), user.to_owned());
    if let Some(known) = locked(&docker.users).users.get(&name) {
        return Ok(*known);
    }
    let lists = look(docker, image, true).await?;
    let ids = find(user, &lists)?.and_then(harmless);
    let mut known = locked(&docker.users);
    if known.users.len() >= MAX_KNOWN {
        known.users.clear();
    }
    known.users.insert(name, ids);
    Ok(ids)
}

/// Sees to it that an engine can read the lists of an image, as it does when it starts a container of it.
///
/// # Errors
/// When it could not, or the engine does not answer.
pub(super) async fn check(docker: &Docker, image: &str) -> Result<(), Failure> {
    if locked(&docker.users).readable.contains(image) {
        return Ok(());
    }
    look(docker, image, false).await.map(drop)
}

/// A poisoned lock means a panic between two whole changes.
fn locked(known: &Known) -> std::sync::MutexGuard<'_, Found> {
    known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Neither root nor in its group: who is in that has a group of its own instead, and its files stay its own. Nor one of
/// those that servers are given here.
fn harmless((uid, gid): Ids) -> Option<Ids> {
    (uid != 0 && !crate::uids::SPACE.contains(&uid) && !crate::uids::SPACE.contains(&gid))
        .then_some((uid, if gid == 0 { uid } else { gid }))
}

/// A user and a group that are both numbers.
fn whole(user: &str) -> Option<Ids> {
    let (uid, gid) = user.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

fn checked(user: &str, ids: Ids) -> Result<Option<Ids>, Failure> {
    if ids.0 > HIGHEST || ids.1 > HIGHEST {
        return Err(unusable(user, "is a number that no engine takes"));
    }
    Ok(Some(ids))
}

fn unusable(user: &str, why: &str) -> Failure {
    failure(Reason::ConfigInvalid, format!("the image's user `{}` {why}", printable(user)))
}

/// Finds the numbers of a user as engines do; none when its lists do not tell.
fn find(user: &str, lists: &Lists) -> Result<Option<Ids>, Failure> {
    let (name, group) = user.split_once(':').unwrap_or((user, ""));
    let number = name.parse::<u32>().ok();
    if name.is_empty() || number == Some(0) {
        return Ok(None);
    }
    let entry = lists.users.as_deref().and_then(|users| {
        let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        lines.find(|fields| match number {
            Some(number) => fields.get(2).and_then(|uid| uid.parse().ok()) == Some(number),
            None => fields.first() == Some(&name),
        })
    });
    let field = |at: usize| entry.as_ref().and_then(|fields| fields.get(at)?.parse::<u32>().ok());
    let uid = match (number, &entry, &lists.users) {
        (Some(number), ..) => number,
        (None, Some(_), _) => match field(2) {
            Some(uid) => uid,
            None => return Ok(None),
        },
        (None, None, Some(_)) => return Err(unusable(user, "is not in its list of users")),
        (None, None, None) => return Ok(None),
    };
    let gid = match (group, group.parse::<u32>().ok()) {
        // An engine would take the group 0 for a number that the image does not know.
        ("", _) => match (&entry, field(3)) {
            (Some(_), None) => return Ok(None),
            (_, gid) => gid.unwrap_or(uid),
        },
        (_, Some(gid)) => gid,
        (group, None) => match &lists.groups {
            Some(groups) => {
                let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
                let found = lines.find(|fields| fields.first() == Some(&group));
                let found = found.ok_or_else(|| unusable(user, "has a group that is not in its list of groups"))?;
                match found.get(2).and_then(|gid| gid.parse().ok()) {
                    Some(gid) => gid,
                    None => return Ok(None),
                }
            }
            None => return Ok(None),
        },
    };
    checked(user, (uid, gid))
}

/// Looks at the lists of an image in a container of it that is never started, and reads them if told to.
async fn look(docker: &Docker, image: &str, read: bool) -> Result<Lists, Failure> {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["/never-started".to_owned()]),
        labels: Some(docker.container_labels()),
        host_config: Some(HostConfig {
            cap_drop: Some(vec!["ALL".into()]),
            network_mode: Some("none".into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let made = docker.api.create_container(None, body).await.map_err(|error| not_started(&error))?;
    let mut removal = Removal::of(&docker.api, &made.id);
    let api = short(&docker.api);
    let looked = async {
        let users = check_list(&api, &made.id, USERS).await?;
        let groups = match check_list(&api, &made.id, GROUPS).await? {
            Some(path) => Some(list(&api, &made.id, &path).await?.ok_or_else(|| unreadable(GROUPS, "cannot be read"))?),
            None => None,
        };
        check_groups(groups.as_deref().unwrap_or_default())?;
        let users = match users.filter(|_| read) {
            Some(path) => list(&api, &made.id, &path).await?,
            None => None,
        };
        Ok::<_, Failure>(Lists { users, groups })
    };
    let late = |_| Err(engine_failure(&ApiError::RequestTimeoutError));
    let looked = tokio::time::timeout(LOOK_TIMEOUT, looked).await.unwrap_or_else(late);
    removal.now().await;
    if looked.is_ok() {
        let mut known = locked(&docker.users);
        if known.readable.len() >= MAX_KNOWN {
            known.readable.clear();
        }
        known.readable.insert(image.to_owned());
    }
    looked
}

/// Refuses a list that an engine could not read, and tells where it is; one that is not there is fine.
async fn check_list(api: &bollard::Docker, container: &str, path: &str) -> Result<Option<String>, Failure> {
    match stat(api, container, path).await {
        Ok(Some((at, found))) => check_stat(path, &found).map(|()| Some(at)),
        Ok(None) => Ok(None),
        Err(error) => Err(engine_failure(&error)),
    }
}

/// Refuses groups that an engine would take for others.
fn check_groups(groups: &str) -> Result<(), Failure> {
    let name = |line: &str| line.split(':').next().unwrap_or_default().trim().to_owned();
    let is_number = |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    match groups.lines().map(name).find(is_number) {
        Some(name) => {
            let why = format!("names a group `{}`, and container engines take that for a number", printable(&name));
            Err(unreadable(GROUPS, &why))
        }
        None => Ok(()),
    }
}

fn unreadable(path: &str, why: &str) -> Failure {
    let message = format!("the image's `{path}` {why}; container engines read it when they start a container");
    failure(Reason::ConfigInvalid, message)
}

fn check_stat(path: &str, found: &PathStatResponse) -> Result<(), Failure> {
    let why = match found.file_mode & MODE_TYPE {
        0 if found.size <= MAX_ENGINE_BYTES => return Ok(()),
        0 => "is too long",
        _ => "is not a regular file",
    };
    Err(unreadable(path, why))
}

/// What is at a path of a container, where links lead, and that path; none when there is nothing. Nothing is opened for it.
async fn stat(
    api: &bollard::Docker,
    container: &str,
    path: &str,
) -> Result<Option<(String, PathStatResponse)>, ApiError> {
    let mut path = path.to_owned();
    let mut links = 0;
    loop {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(&path).build();
        let found = match api.get_container_archive_info(container, Some(options)).await {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        links += 1;
        if found.file_mode & MODE_LINK == 0 || found.link_target.is_empty() || links > MAX_LINKS {
            return Ok(Some((path, found)));
        }
        path = found.link_target;
    }
}

/// A file of a container; none when it is not there, is not a file or is too long.
async fn list(api: &bollard::Docker, container: &str, path: &str) -> Result<Option<String>, Failure> {
    let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
    let mut archive = Vec::new();
    let mut pieces = Box::pin(api.download_from_container(container, Some(options)));
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => archive.extend_from_slice(&piece),
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(engine_failure(&error)),
        }
        if archive.len() > MAX_LIST_BYTES {
            return Ok(None);
        }
    }
    Ok(first_file(&archive))
}

/// The text of the file that an archive begins with; none for a link or anything else.
fn first_file(archive: &[u8]) -> Option<String> {
    let mut rest = archive;
    loop {
        let size = std::str::from_utf8(rest.get(124..136)?).ok()?.trim_matches(['\0', ' ']);
        let size = usize::from_str_radix(size, 8).ok()?;
        let content = rest.get(BLOCK..BLOCK.checked_add(size)?)?;
        match rest.get(156)? {
            b'0' | 0 => return Some(String::from_utf8_lossy(content).into_owned()),
            // What is said of the file before it comes.
            b'x' | b'g' => rest = rest.get(BLOCK.checked_add(size.checked_next_multiple_of(BLOCK)?)?..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER_LIST: &str = "root:x:0:0::/root:/bin/sh\ntoor:x:0:1000::/:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n\
                         op:x:1002:0::/:/bin/sh\nbroken:x::1::/:\nlarge:x:4294967295:7::/:\n";
    const GROUP_LIST: &str = "root:x:0:\nwheel:x:0:app\nstaff:x:50:app\nbroken:x::\n";

    fn lists() -> Lists {
        Lists { users: Some(USER_LIST.into()), groups: Some(GROUP_LIST.into()) }
    }

    /// Whom a user runs as, and whether that was refused.
    fn run(user: &str, lists: &Lists) -> Result<Option<Ids>, Reason> {
        find(user, lists).map(|ids| ids.and_then(harmless)).map_err(|failure| failure.reason)
    }

    #[test]
    fn no_server_runs_as_root_or_in_its_group_whatever_its_image_calls_them() {
        for user in [
            "",
            "root",
            "root:root",
            "0",
            "0:0",
            "00",
            "+0",
            ":10",
            "0:1000",
            "toor",
            "toor:1234",
            "broken",
            "1234:broken",
        ] {
            assert_eq!(run(user, &lists()), Ok(None), "{user}");
        }
    }

    #[test]
    fn a_user_of_an_image_is_what_the_image_says_it_is() {
        for (user, ids) in [
            ("app", (1000, 1001)),
            ("1000", (1000, 1001)),
            ("app:staff", (1000, 50)),
            ("app:7", (1000, 7)),
            ("1234", (1234, 1234)),
            ("1234:staff", (1234, 50)),
            ("op:staff", (1002, 50)),
            ("10:10", (10, 10)),
            // The group of root is left out.
            ("1234:0", (1234, 1234)),
            ("1234:wheel", (1234, 1234)),
            ("1234:+0", (1234, 1234)),
            ("1000:wheel", (1000, 1000)),
            ("app:0", (1000, 1000)),
            ("op", (1002, 1002)),
            ("1002", (1002, 1002)),
        ] {
            assert_eq!(run(user, &lists()), Ok(Some(ids)), "{user}");
        }
    }

    #[test]
    fn whom_no_engine_could_run_is_refused_and_whom_nobody_knows_is_left_to_us() {
        for user in ["nobody", "app:nobody", "4294967295", "2147483648:1", "1:2147483648", "large"] {
            assert_eq!(run(user, &lists()), Err(Reason::ConfigInvalid), "{user}");
        }
        let unread = Lists::default();
        for user in ["app", "app:1", "1000:staff"] {
            assert_eq!(run(user, &unread), Ok(None), "{user}");
        }
        assert_eq!(run("1000", &unread), Ok(Some((1000, 1000))));
        assert_eq!(whole("10:20"), Some((10, 20)));
        assert!(whole("10").is_none() && whole("a:1").is_none() && whole("10:").is_none());
    }

    #[test]
    fn no_image_names_a_group_by_a_number_that_an_engine_would_look_up() {
        for harmless in ["", GROUP_LIST, "g77:x:0:\n+77:x:0:\n77a:x:0:\n:x:0:\n"] {
            assert!(check_groups(harmless).is_ok(), "{harmless}");
        }
        for hostile in ["77:x:0:", "root:x:0:\n 2110158080 :x:0:\n", "a:x:1:\r\n\t5:x:0", "0:x:0:"] {
            assert_eq!(check_groups(hostile).unwrap_err().reason, Reason::ConfigInvalid, "{hostile}");
        }
    }

    #[test]
    fn a_file_is_read_out_of_an_archive_and_nothing_else_is() {
        let entry = |kind: u8, content: &str| {
            let mut entry = vec![0; BLOCK];
            entry[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
            entry[156] = kind;
            entry.extend_from_slice(content.as_bytes());
            entry.resize(entry.len().next_multiple_of(BLOCK), 0);
            entry
        };
        assert_eq!(first_file(&entry(b'0', USER_LIST)).as_deref(), Some(USER_LIST));
        let described = [entry(b'x', "30 mtime=1.5\n"), entry(b'0', USER_LIST)].concat();
        assert_eq!(first_file(&described).as_deref(), Some(USER_LIST));
        for kind in [b'1', b'2', b'5'] {
            assert_eq!(first_file(&entry(kind, "")), None);
        }
        assert_eq!(first_file(&entry(b'0', USER_LIST)[..BLOCK + 10]), None);
        assert_eq!(first_file(&[0; 2 * BLOCK]), None);
        assert_eq!(first_file(b""), None);
    }
}
