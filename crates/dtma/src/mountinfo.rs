//! Where things are in their file systems, whatever their names: `/proc/self/mountinfo` tells which directory of which file
//! system is mounted where, so what is mounted twice has two names and one [`Place`].
//!
//! - A path is followed from mount to mount as the kernel does it: what another mount hides does not count.
//! - A file system is known by its device as the table has it. That is not `st_dev`, of which each subvolume of btrfs has
//!   its own.
//! - What one file system shows of another is not known: layers of an overlay, FUSE, an export that this host mounts itself.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A host with thousands of containers has a tenth of it.
const MOST_BYTES: u64 = 16 << 20;

/// Where something is: a file system, and a path in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    system: String,
    path: OsString,
}

impl Place {
    /// Whether it is the other place, or one below it.
    pub(crate) fn is_in(&self, other: &Self) -> bool {
        self.system == other.system && Path::new(&self.path).starts_with(&other.path)
    }

    /// Whether who has one of both has something of the other.
    fn overlaps(&self, other: &Self) -> bool {
        self.is_in(other) || other.is_in(self)
    }

    fn below(&self, rest: &Path) -> Self {
        let path = Path::new(&self.path);
        // Joined with nothing it would end with a `/`.
        let path = if rest.as_os_str().is_empty() { path.to_owned() } else { path.join(rest) };
        Self { system: self.system.clone(), path: path.into_os_string() }
    }
}

/// What is mounted where.
#[derive(Debug)]
pub(crate) struct Mounts(Vec<Mount>);

#[derive(Debug)]
struct Mount {
    id: u64,
    /// On which other one it is mounted, if that is in the table.
    parent: Option<u64>,
    /// What of its file system is mounted.
    place: Place,
    at: PathBuf,
}

impl Mounts {
    /// As this process sees them.
    ///
    /// # Errors
    /// When they cannot be read, or are too many.
    pub(crate) fn here() -> io::Result<Self> {
        if cfg!(target_os = "linux") { Self::read(Path::new("/proc/self/mountinfo")) } else { Ok(Self::by_name()) }
    }

    /// Where there is no such table: everything is where its name says.
    pub(crate) fn by_name() -> Self {
        let place = Place { system: String::new(), path: "/".into() };
        Self(vec![Mount { id: 0, parent: None, place, at: "/".into() }])
    }

    /// As the process sees them whose table this is.
    ///
    /// # Errors
    /// When it cannot be read, or is too long.
    pub(crate) fn read(table: &Path) -> io::Result<Self> {
        let told = |error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", table.display()));
        let mut file = std::fs::File::open(table).map_err(told)?.take(MOST_BYTES);
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(told)?;
        if file.limit() == 0 {
            return Err(told(io::Error::other("more is mounted than is looked at")));
        }
        Self::parse(&text).ok_or_else(|| told(io::Error::other("a line of it cannot be read")))
    }

    /// Reads a table; `None` when a line of it cannot be read.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut mounts: Vec<Mount> = lines.map(mount).collect::<Option<_>>()?;
        let ids: HashSet<u64> = mounts.iter().map(|mount| mount.id).collect();
        for mount in &mut mounts {
            let id = mount.id;
            mount.parent = mount.parent.filter(|parent| *parent != id && ids.contains(parent));
        }
        Some(Self(mounts))
    }

    /// Where a path is that has no links in it; `None` when its mount is not in the table, as in a root that is none
    /// itself.
    pub(crate) fn place(&self, path: &Path) -> Option<Place> {
        let mount = self.mount_of(path)?;
        Some(mount.place.below(path.strip_prefix(&mount.at).ok()?))
    }

    /// The number in the table of the mount that such a path is in.
    pub(crate) fn id_of(&self, path: &Path) -> Option<u64> {
        Some(self.mount_of(path)?.id)
    }

    fn mount_of(&self, path: &Path) -> Option<&Mount> {
        let mut mount = self.first_on_the_way(path, None)?;
        // No way has more steps than there are mounts.
        for _ in &self.0 {
            match self.first_on_the_way(path, Some(mount.id)) {
                Some(next) => mount = next,
                None => break,
            }
        }
        Some(mount)
    }

    /// Of the mounts on another one the first that a path comes to; the others are hidden below that.
    fn first_on_the_way(&self, path: &Path, parent: Option<u64>) -> Option<&Mount> {
        let on_the_way = self.0.iter().filter(|it| it.parent == parent && path.starts_with(&it.at));
        // A path begins below the root: what is mounted over the root itself is not on its way.
        let on_the_way = on_the_way.filter(|it| parent.is_none() || it.at != Path::new("/"));
        on_the_way.min_by_key(|it| it.at.components().count())
    }

    /// Where a path is, and everything that is mounted below it, each with its name. Also what is hidden there: it is
    /// mounted again with the rest.
    ///
    /// # Errors
    /// When the path's mount is not in the table.
    pub(crate) fn all_of(&self, path: &Path) -> io::Result<Vec<(PathBuf, Place)>> {
        let place = self.place(path).ok_or_else(|| io::Error::other("not every mount shows in `mountinfo`"))?;
        let itself = (path.to_owned(), place);
        let below = self.0.iter().filter(|mount| mount.at != path && mount.at.starts_with(path));
        let below = below.map(|mount| (mount.at.clone(), mount.place.clone()));
        Ok(std::iter::once(itself).chain(below).collect())
    }

    /// The name by which somebody who has a path, with everything that is mounted below it, has something of these places:
    /// the path itself, or that of a mount.
    ///
    /// # Errors
    /// When the path's mount is not in the table.
    pub(crate) fn name_of_any(&self, places: &[Place], path: &Path) -> io::Result<Option<PathBuf>> {
        let found = self.all_of(path)?.into_iter().find(|(_, place)| places.iter().any(|other| other.overlaps(place)));
        Ok(found.map(|(name, _)| name))
    }
}

fn mount(line: &[u8]) -> Option<Mount> {
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u64>().ok();
    let mut words = line.split(|byte| *byte == b' ');
    let (id, parent) = (number(words.next()?)?, number(words.next()?)?);
    let device = words.next()?;
    let (root, at) = (unescaped(words.next()?), unescaped(words.next()?));
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    let (kind, source) = (words.next()?, unescaped(words.next()?));
    Some(Mount { id, parent: Some(parent), place: place(device, root, kind, source), at: at.into() })
}

/// NFS tells `/` as the root of every mount; which directory it is says its source, `server:/path`.
fn place(device: &[u8], root: OsString, kind: &[u8], source: OsString) -> Place {
    let mut source = source.into_vec();
    let colon = source.windows(2).position(|two| two == b":/");
    match colon.filter(|_| matches!(kind, b"nfs" | b"nfs4")) {
        Some(colon) => {
            let path = OsString::from_vec(source.split_off(colon + 1));
            Place { system: String::from_utf8_lossy(&source).into_owned(), path }
        }
        None => Place { system: String::from_utf8_lossy(device).into_owned(), path: root },
    }
}

/// Three octal digits stand for a byte that would end a word, and for `\`.
fn unescaped(word: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.split_at_checked(3).filter(|_| *first == b'\\');
        let escaped = escaped.and_then(|(digits, after)| Some((octal(digits)?, after)));
        let (byte, after) = escaped.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    OsString::from_vec(bytes)
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        number.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 8:2 / /srv rw,relatime shared:2 master:7 - xfs /dev/sdb1 rw
31 22 8:1 /var/lib/toolyard /srv/hidden rw - ext4 /dev/sda1 rw
32 30 8:1 /var/lib /srv/bound rw - ext4 /dev/sda1 rw
33 30 8:1 /var/lib/toolyard/vault.key /srv/key rw - ext4 /dev/sda1 rw
34 30 8:1 /with\\040space /srv/a\\011b\\012c\\134040 rw - ext4 /dev/sda1 rw
40 22 0:30 /@home /home rw - btrfs /dev/sdc rw,subvol=/@home
41 22 0:30 /@ /mnt/system rw - btrfs /dev/sdc rw,subvol=/@
42 22 0:45 / /mnt/merged rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
43 22 0:45 /var/lib/toolyard /mnt/part rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
50 22 0:50 / /net rw - nfs4 files:/export rw,vers=4.2
51 22 0:50 / /mnt/net rw - nfs4 files:/export/toolyard rw,vers=4.2
52 22 0:50 / /mnt/other rw - nfs4 files:/export/other rw,vers=4.2
60 22 0:3 net:[4026532000] /run/netns/one rw - nsfs nsfs rw
70 22 0:60 / / rw - tmpfs over rw
71 70 0:61 / /tmp rw - tmpfs tmpfs rw
";

    fn table(text: &str) -> Mounts {
        Mounts::parse(text.as_bytes()).expect("a table")
    }

    fn place(path: &str) -> (String, String) {
        let Place { system, path } = table(TABLE).place(Path::new(path)).expect("it is mounted");
        (system, path.into_string().expect("UTF-8"))
    }

    fn at(system: &str, path: &str) -> (String, String) {
        (system.to_owned(), path.to_owned())
    }

    /// The name by which who has `path` has something of `own`.
    fn name(own: &str, path: &str) -> Option<String> {
        let mounts = table(TABLE);
        let own = mounts.place(Path::new(own)).expect("it is mounted");
        let name = mounts.name_of_any(&[own], Path::new(path)).expect("it is mounted");
        name.map(|name| name.to_str().expect("UTF-8").to_owned())
    }

    #[test]
    fn a_path_is_where_the_last_mount_on_its_way_leads() {
        assert_eq!(place("/etc/passwd"), at("8:1", "/etc/passwd"));
        assert_eq!(place("/srv"), at("8:2", "/"));
        assert_eq!(place("/srvx"), at("8:1", "/srvx"));
        assert_eq!(place("/srv/bound/toolyard/x"), at("8:1", "/var/lib/toolyard/x"));
        assert_eq!(place("/srv/key"), at("8:1", "/var/lib/toolyard/vault.key"));
        assert_eq!(place("/home/me"), at("0:30", "/@home/me"));
        assert_eq!(place("/mnt/system/home"), at("0:30", "/@/home"));
    }

    #[test]
    fn what_another_mount_hides_is_not_on_the_way() {
        // `/srv` was mounted over the mount of before, and something over the root that nobody is in.
        assert_eq!(place("/srv/hidden/x"), at("8:2", "/hidden/x"));
        assert_eq!(place("/tmp/x"), at("8:1", "/tmp/x"));
        assert_eq!(place("/"), at("8:1", "/"));
    }

    #[test]
    fn a_path_is_in_the_mount_that_is_seen_there() {
        let id_of = |path: &str| table(TABLE).id_of(Path::new(path));
        assert_eq!((id_of("/etc"), id_of("/srv/x"), id_of("/srv/bound/x")), (Some(22), Some(30), Some(32)));
        assert_eq!((id_of("/srv/hidden/x"), table("").id_of(Path::new("/"))), (Some(30), None));
    }

    #[test]
    fn names_with_blanks_and_backslashes_are_read() {
        assert_eq!(place("/srv/a\tb\nc\\040/x"), at("8:1", "/with space/x"));
        assert_eq!(unescaped(b"\\04\\999\\777\\"), OsString::from("\\04\\999\\777\\"));
    }

    #[test]
    fn what_is_mounted_twice_is_had_by_both_names() {
        let own = "/var/lib/toolyard";
        for path in ["/srv/bound", "/srv/bound/toolyard", "/srv/bound/toolyard/toolbox/x", "/srv/key", "/var", own] {
            assert_eq!(name(own, path), Some(path.to_owned()), "in it, equal, above");
        }
        assert_eq!(name(own, "/srv"), Some("/srv/hidden".to_owned()), "mounted below it, if hidden");
        for path in ["/srv/other", "/srv/bound/other", "/var/lib/toolyards", "/home", "/mnt/part"] {
            assert_eq!(name(own, path), None, "{path}");
        }
        assert_eq!(name("/mnt/merged/var/lib/toolyard", "/mnt/part/x"), Some("/mnt/part/x".to_owned()));
        assert_eq!(name("/mnt/merged/var/lib/toolyard", "/mnt/merged/srv"), None);
        assert_eq!(name("/mnt/system/toolyard", "/home/me"), None, "another subvolume");
    }

    #[test]
    fn of_nfs_the_source_says_what_is_mounted() {
        assert_eq!(place("/net/toolyard/x"), place("/mnt/net/x"));
        assert_eq!(name("/net/toolyard", "/mnt/net/x"), Some("/mnt/net/x".to_owned()));
        assert_eq!(name("/net/toolyard", "/mnt/other"), None);
        assert_eq!(name("/mnt/net", "/net"), Some("/net".to_owned()));
        assert_eq!(name("/mnt/net", "/mnt/other/x"), None);
    }

    #[test]
    fn a_path_whose_mount_is_not_in_the_table_is_nowhere() {
        let changed_root =
            table("31 30 8:3 / /srv/disk rw - ext4 /dev/sdc1 rw\n32 31 8:4 / /srv/disk/x rw - ext4 d rw\n");
        let in_it = |path: &str| changed_root.place(Path::new(path)).map(|place| place.system);
        assert_eq!((in_it("/srv"), in_it("/srv/disk/y")), (None, Some("8:3".to_owned())));
        assert_eq!(in_it("/srv/disk/x/y"), Some("8:4".to_owned()));
        let own = changed_root.place(Path::new("/srv/disk")).expect("it is mounted");
        assert!(changed_root.name_of_any(&[own], Path::new("/srv")).is_err());
        assert!(table("").place(Path::new("/")).is_none());
    }

    #[test]
    fn a_table_that_is_none_is_not_read() {
        for bad in ["22", "x 1 8:1 / / rw - ext4 /dev/sda1 rw", "22 1 8:1 / / rw", "22 1 8:1 / / rw - ext4"] {
            assert!(Mounts::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn our_own_table_is_read_and_knows_where_we_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = std::fs::canonicalize(dir.path()).expect("canonical");
        let mounts = Mounts::here().expect("it can be read");
        let place = mounts.place(&real).expect("it is mounted");
        assert_eq!(mounts.place(&real.join("x/y")), Some(place.below(Path::new("x/y"))));
        assert!(mounts.place(&real.join("x")).expect("it is mounted").is_in(&place));
    }

    #[test]
    fn without_a_table_things_are_where_their_names_say() {
        let mounts = Mounts::by_name();
        let place = |path: &str| mounts.place(Path::new(path)).expect("everything is there");
        assert!(place("/srv/x").is_in(&place("/srv")) && !place("/srvx").is_in(&place("/srv")));
        assert!(place("/srv").is_in(&place("/")));
    }

    fn escaped(bytes: &[u8]) -> Vec<u8> {
        let escape = |byte: &u8| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            byte => vec![*byte],
        };
        bytes.iter().flat_map(escape).collect()
    }

    /// A path of few names, so that paths meet.
    fn path() -> impl Strategy<Value = PathBuf> {
        let names = proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 0..4);
        names.prop_map(|names| Path::new("/").join(names.join("/")))
    }

    /// Mounts `source` at another path as well, as the kernel would.
    fn bind(mounts: &mut Mounts, source: &Path, at: &Path) {
        let id = u64::try_from(mounts.0.len()).expect("few");
        let place = mounts.place(source).expect("all is below the root");
        let mut under = mounts.first_on_the_way(at, None).expect("the root").id;
        while let Some(next) = mounts.first_on_the_way(at, Some(under)) {
            under = next.id;
        }
        mounts.0.push(Mount { id, parent: Some(under), place, at: at.to_owned() });
    }

    proptest! {
        #[test]
        fn every_name_is_read_as_it_was_written(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unescaped(&escaped(&bytes)).into_vec(), bytes);
        }

        #[test]
        fn whatever_is_in_the_table_it_is_read_or_refused_and_every_way_ends(
            text in proptest::collection::vec(any::<u8>(), 0..200),
            lines in proptest::collection::vec((0_u64..4, 0_u64..4, path(), path()), 0..8),
            wanted in path(),
        ) {
            let _ = Mounts::parse(&text).map(|mounts| mounts.place(&wanted));
            let line = |(id, parent, root, at): (u64, u64, PathBuf, PathBuf)| {
                format!("{id} {parent} 8:1 {} {} rw - ext4 d rw\n", root.display(), at.display())
            };
            let text: String = lines.into_iter().map(line).collect();
            let _ = table(&text).all_of(&wanted);
        }

        #[test]
        fn however_mounts_are_made_the_last_one_has_both_names(
            binds in proptest::collection::vec((path(), path()), 1..8),
            rest in path(),
        ) {
            // The root of a process is not covered by what is mounted over it.
            let binds: Vec<_> = binds.into_iter().filter(|(_, at)| at != Path::new("/")).collect();
            let mut mounts = Mounts::by_name();
            for (source, at) in &binds {
                let own = mounts.place(source).expect("it is mounted");
                bind(&mut mounts, source, at);
                let rest = rest.strip_prefix("/").expect("absolute");
                let place = mounts.place(&at.join(rest)).expect("it is mounted");
                prop_assert_eq!(&place, &own.below(rest));
                prop_assert!(place.overlaps(&own) && own.overlaps(&place));
                // By this name, by one in it, and by one above it.
                for path in [at.clone(), at.join(rest), at.parent().expect("not the root").to_owned()] {
                    let name = mounts.name_of_any(std::slice::from_ref(&own), &path).expect("it is mounted");
                    prop_assert!(name.is_some(), "{path:?}");
                }
            }
        }
    }
}
