//! A file system that does not answer: a FUSE whose program is the test.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Of the protocol (`linux/fuse.h`): what is answered.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const READDIRPLUS: u32 = 44;
const DIRECTORY: u32 = 0o40_777;

/// What of it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Nothing.
    Nothing,
    /// That it is an empty directory; not what is asked about a name in it.
    Itself,
}

/// Mounted until it is dropped, when whoever waits for it gets an error.
pub(crate) struct Hanging(PathBuf);

impl Hanging {
    /// Mounts one; none, and says so, where only root may and we are not, or where there is no FUSE.
    pub(crate) fn at(path: &Path, answers: Answers) -> Option<Self> {
        std::fs::create_dir(path).expect("made");
        let device = match File::options().read(true).write(true).open("/dev/fuse") {
            Ok(device) => device,
            Err(error) => {
                eprintln!("not tested: no file system can be made to hang here: `/dev/fuse`: {error}");
                return None;
            }
        };
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        if let Err(error) = mount(Some("hangs"), path, Some("fuse"), MsFlags::empty(), Some(options.as_str())) {
            assert!(!nix::unistd::Uid::effective().is_root(), "root mounts a file system that hangs: {error}");
            eprintln!("not tested: no file system can be made to hang here: {error}");
            return None;
        }
        std::thread::spawn(move || serve(&device, answers));
        Some(Self(path.to_owned()))
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // The first ends the requests that wait, and what is in use stays; the second takes it away.
        let _ = umount2(&self.0, MntFlags::MNT_FORCE);
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Takes requests, so that who waits is beyond any signal.
fn serve(mut device: &File, answers: Answers) {
    let mut request = vec![0_u8; 1 << 17];
    while let Ok(count) = device.read(&mut request) {
        let Some((operation, id)) = request.get(..count).and_then(read) else { return };
        let itself = answers == Answers::Itself;
        let (error, body) = match operation {
            INIT => (0, init()),
            GETATTR if itself => (0, attributes()),
            OPENDIR if itself => (0, vec![0; 16]),
            READDIR | READDIRPLUS | RELEASEDIR if itself => (0, Vec::new()),
            LOOKUP | FORGET | INTERRUPT => continue,
            _ if itself => (-(Errno::ENOSYS as i32), Vec::new()),
            _ => continue,
        };
        let length = u32::try_from(16 + body.len()).expect("short");
        let header = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &id.to_ne_bytes()].concat();
        let _ = device.write(&[header, body].concat());
    }
}

/// What is asked, and the number of the request.
fn read(request: &[u8]) -> Option<(u32, u64)> {
    let operation = u32::from_ne_bytes(request.get(4..8)?.try_into().ok()?);
    Some((operation, u64::from_ne_bytes(request.get(8..16)?.try_into().ok()?)))
}

/// Version 7.31.
fn init() -> Vec<u8> {
    let mut body = vec![0; 64];
    body[..8].copy_from_slice(&[7_u32.to_ne_bytes(), 31_u32.to_ne_bytes()].concat());
    body[20..28].copy_from_slice(&[4096_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat());
    body
}

/// Of a directory that everybody may use.
fn attributes() -> Vec<u8> {
    let mut body = vec![0; 104];
    body[..8].copy_from_slice(&1000_u64.to_ne_bytes());
    let attributes = &mut body[16..];
    attributes[..8].copy_from_slice(&1_u64.to_ne_bytes());
    attributes[60..68].copy_from_slice(&[DIRECTORY.to_ne_bytes(), 2_u32.to_ne_bytes()].concat());
    body
}
