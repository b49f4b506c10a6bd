//! System calls that no server needs, refused by seccomp filters that are installed last before `execve`.
//!
//! What is named here is refused, everything else is allowed: a list of what a server may do would break with the
//! next version of its runtime. `EPERM` is what a program expects that lacks a privilege; `ENOSYS` makes it fall back
//! to an older call, and is for what hides its flags from a filter (`clone3`, `openat2`) or goes past it (`io_uring`).
//! Nothing is killed: libraries ask for such calls only to see whether they are there.
//!
//! A filter has one action, so there is one for each; the kernel takes the strictest answer of all.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

use super::sockets::{self, Taken};

type Step<T> = Result<T, String>;

/// Refused with `EPERM`. Most need a capability that no server has; a kernel bug is often where that is decided.
const REFUSED: &[libc::c_long] = &[
    // Namespaces and mounts that somebody else made.
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    SYS_QUOTACTL_FD,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // Keys belong to a user, not to a namespace.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Programs inside the kernel, its counters and its memory.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_syslog,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // The whole machine.
    libc::SYS_reboot,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_vhangup,
];

/// Ports of the processor.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_uselib, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// Refused with `ENOSYS`.
const ABSENT: &[libc::c_long] = &[
    libc::SYS_clone3,
    libc::SYS_openat2,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    MEMFD_SECRET,
];

/// `memfd_secret`, the same number everywhere: memory that shows in no account of its process once it is unmapped.
const MEMFD_SECRET: libc::c_long = 447;

/// `quotactl_fd`, the same number everywhere.
const SYS_QUOTACTL_FD: libc::c_long = 443;
/// `open_tree_attr`, the same number everywhere.
const OPEN_TREE_ATTR: libc::c_long = 467;
/// `fchmodat2`, the same number everywhere.
const FCHMODAT2: libc::c_long = 452;
/// Calls that give a file its mode, and which argument that is. Of the mode of `mkdir` the kernel itself leaves these bits
/// out, so it may name them: programs do that make a directory like another one.
const GIVES_MODE: &[(libc::c_long, u8)] =
    &[(libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2), (FCHMODAT2, 2), (libc::SYS_mknodat, 2)];
/// Calls that open a file, and which argument their flags are; the next one is the mode of a file that they make.
const OPENS: &[(libc::c_long, u8)] = &[(libc::SYS_openat, 2)];
/// The older ones of both kinds.
#[cfg(target_arch = "x86_64")]
const GIVES_MODE_HERE: &[(libc::c_long, u8)] = &[(libc::SYS_chmod, 1), (libc::SYS_creat, 1), (libc::SYS_mknod, 1)];
#[cfg(target_arch = "x86_64")]
const OPENS_HERE: &[(libc::c_long, u8)] = &[(libc::SYS_open, 1)];
#[cfg(not(target_arch = "x86_64"))]
const GIVES_MODE_HERE: &[(libc::c_long, u8)] = &[];
#[cfg(not(target_arch = "x86_64"))]
const OPENS_HERE: &[(libc::c_long, u8)] = &[];
/// Who runs a file with one of these has the rights of its owner or its group.
const SET_ID: [libc::c_int; 2] = [libc::S_ISUID.cast_signed(), libc::S_ISGID.cast_signed()];
/// What makes a file, in the flags of an open: without one of these the mode is whatever stands in its register.
const MAKES_FILE: [libc::c_int; 2] = [libc::O_CREAT, libc::O_TMPFILE];
/// What makes a new namespace, in `clone` and `unshare`.
const NEW_NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// The same for time, in `unshare` only: `clone` has the signal there.
const CLONE_NEWTIME: libc::c_int = 0x80;
/// Kinds of sockets there are; a kernel has about forty, most of them seldom looked at.
const SOCKETS: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// What is spoken over IP: the lists of ports and the filters that servers have know nothing else, so that multipath
/// TCP would reach every port and listen on any.
const STREAMS: &[libc::c_int] = &[0, libc::IPPROTO_TCP];
const DATAGRAMS: &[libc::c_int] = &[0, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];
/// Kinds of sockets of which the kernel makes none over IP but those of SCTP, DCCP and the like. Raw ones need a
/// capability.
const ELSE_OVER_IP: &[libc::c_int] = &[libc::SOCK_RDM, libc::SOCK_SEQPACKET, SOCK_DCCP];
const SOCK_DCCP: libc::c_int = 6;
/// Where the kind of a socket stands beside its flags.
const KIND: libc::c_int = 0xf;

/// Filters that are ready to install.
#[derive(Debug)]
pub(super) struct Filters(Vec<BpfProgram>);

/// Makes the filters of a server. To be done before its process is made: it takes memory.
///
/// # Errors
/// When there are none for this processor.
pub(super) fn filters(new_namespaces: bool) -> Step<Filters> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = always(REFUSED.iter().chain(REFUSED_HERE));
    refused.insert(libc::SYS_socket, vec![rule(SOCKETS.iter().map(|kind| (0, SeccompCmpOp::Ne, *kind)))?]);
    refused.insert(libc::SYS_socketpair, vec![rule([(0, SeccompCmpOp::Ne, libc::AF_UNIX)])?]);
    // Limits of another process, such as of its supervisor; its own are set without a number.
    refused.insert(libc::SYS_prlimit64, vec![limits_of_another()?]);
    refused.extend(set_id_files()?);
    if !new_namespaces {
        let any = |flags: &[libc::c_int]| flags.iter().map(|flag| rule([has(0, *flag)])).collect::<Step<Vec<_>>>();
        refused.insert(libc::SYS_clone, any(NEW_NAMESPACES)?);
        refused.insert(libc::SYS_unshare, any(&[NEW_NAMESPACES, &[CLONE_NEWTIME]].concat())?);
        // Of use only to who has a user namespace of his own.
        refused.insert(libc::SYS_chroot, Vec::new());
    }
    let absent = compile(always(ABSENT), libc::ENOSYS)?;
    let refused = compile(refused, libc::EPERM)?;
    let protocols = compile(BTreeMap::from([(libc::SYS_socket, other_protocols()?)]), libc::EPROTONOSUPPORT)?;
    let mut filters = vec![absent, refused, protocols, compile(unseen_connections()?, libc::EOPNOTSUPP)?];
    filters.extend(other_numbers());
    Ok(Filters(filters))
}

fn always<'a>(calls: impl IntoIterator<Item = &'a libc::c_long>) -> BTreeMap<i64, Vec<SeccompRule>> {
    calls.into_iter().map(|call| (*call, Vec::new())).collect()
}

/// Sets limits of a process that is named by its number. Reading them is another matter.
fn limits_of_another() -> Step<SeccompRule> {
    let is = |argument, operator| SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, 0);
    let named = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0);
    let conditions = [named, is(2, SeccompCmpOp::Ne)].into_iter().collect::<Result<Vec<_>, _>>();
    conditions.and_then(SeccompRule::new).map_err(|error| format!("seccomp: {error}"))
}

/// Files that give who runs them the rights of the server's user. On the host nothing keeps other local users from such
/// a file in a path that a server may write, and where servers have no user of their own it would be Toolyard's.
fn set_id_files() -> Step<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for bit in SET_ID {
        for (call, mode) in GIVES_MODE.iter().chain(GIVES_MODE_HERE) {
            rules.entry(*call).or_default().push(rule([has(*mode, bit)])?);
        }
        for (call, flags) in OPENS.iter().chain(OPENS_HERE) {
            for makes in MAKES_FILE {
                rules.entry(*call).or_default().push(rule([has(*flags, makes), has(flags + 1, bit)])?);
            }
        }
    }
    Ok(rules)
}

/// What is asked of one argument, by its place.
type Condition = (u8, SeccompCmpOp, libc::c_int);

fn has(argument: u8, flag: libc::c_int) -> Condition {
    (argument, SeccompCmpOp::MaskedEq(number(flag)), flag)
}

/// Sockets over IP for everything but TCP, UDP and pings.
fn other_protocols() -> Step<Vec<SeccompRule>> {
    let mut rules = Vec::new();
    for domain in [libc::AF_INET, libc::AF_INET6] {
        let of = |kind| [(0, SeccompCmpOp::Eq, domain), (1, SeccompCmpOp::MaskedEq(number(KIND)), kind)];
        for (kind, known) in [(libc::SOCK_STREAM, STREAMS), (libc::SOCK_DGRAM, DATAGRAMS)] {
            rules.push(rule(of(kind).into_iter().chain(known.iter().map(|it| (2, SeccompCmpOp::Ne, *it))))?);
        }
        for kind in ELSE_OVER_IP {
            rules.push(rule(of(*kind))?);
        }
    }
    Ok(rules)
}

/// Ways to connect that Landlock is not asked about: with the first bytes (TCP fast open), and by a socket that another
/// protocol takes over.
fn unseen_connections() -> Step<BTreeMap<i64, Vec<SeccompRule>>> {
    let fast = |argument| Ok::<_, String>(vec![rule([has(argument, libc::MSG_FASTOPEN)])?]);
    let taken_over = [(1, SeccompCmpOp::Eq, libc::IPPROTO_TCP), (2, SeccompCmpOp::Eq, libc::TCP_ULP)];
    Ok(BTreeMap::from([
        (libc::SYS_sendto, fast(3)?),
        (libc::SYS_sendmsg, fast(2)?),
        (libc::SYS_sendmmsg, fast(3)?),
        (libc::SYS_setsockopt, vec![rule(taken_over)?]),
    ]))
}

fn rule(conditions: impl IntoIterator<Item = Condition>) -> Step<SeccompRule> {
    let condition =
        |(argument, operator, value)| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, number(value));
    let conditions = conditions.into_iter().map(condition).collect::<Result<Vec<_>, _>>();
    conditions.and_then(SeccompRule::new).map_err(|error| format!("seccomp: {error}"))
}

fn number(flag: libc::c_int) -> u64 {
    u64::from(flag.cast_unsigned())
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: libc::c_int) -> Step<BpfProgram> {
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into().map_err(|error| format!("seccomp: {error}"))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture);
    filter.and_then(TryInto::try_into).map_err(|error| format!("seccomp: {error}"))
}

/// The same calls have second numbers on this processor (x32), which no list above names.
#[cfg(target_arch = "x86_64")]
fn other_numbers() -> Option<BpfProgram> {
    const X32: u32 = 0x4000_0000;
    Some(vec![
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ])
}

#[cfg(not(target_arch = "x86_64"))]
fn other_numbers() -> Option<BpfProgram> {
    None
}

/// One instruction of a filter.
pub(super) fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

/// Takes calls out of this process and all it becomes and starts; to be answered by whoever holds what this returns.
///
/// # Errors
/// When the kernel does not do that.
pub(super) fn take_out(taken: Taken) -> Step<OwnedFd> {
    nix::sys::prctl::set_no_new_privs().map_err(|error| format!("no new privileges: {error}"))?;
    let program = sockets::takes_out(taken);
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // A signal must not make a call begin anew that is being answered; older kernels do not know how to say so.
    let listener = install(&program, flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
        .or_else(|_| install(&program, flags))
        .map_err(|error| format!("seccomp: {error}"))?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

impl Filters {
    /// Installs them for this process and all it becomes and starts. It must have given up new privileges.
    ///
    /// # Errors
    /// When the kernel does not take them.
    pub(super) fn install(&self) -> Step<()> {
        self.0.iter().try_for_each(|program| install(program, 0).map(drop).map_err(|error| format!("seccomp: {error}")))
    }
}

/// Without the slowdown that older kernels put on what is filtered: no secret of another process is in this one.
fn install(program: &[sock_filter], flags: libc::c_ulong) -> io::Result<RawFd> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        // The two are the same structure of the kernel, by two crates.
        filter: program.as_ptr().cast_mut().cast::<libc::sock_filter>(),
    };
    let flags = flags | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the program lives through the call, which copies it.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

/// Installs them here and tries what they refuse. For a process that ends at once.
///
/// # Errors
/// When they cannot be installed, or refuse nothing.
pub(super) fn try_here() -> Step<()> {
    nix::sys::prctl::set_no_new_privs().map_err(|error| format!("no new privileges: {error}"))?;
    filters(false)?.install()?;
    // SAFETY: plain numbers; and null pointers for which a kernel without the filter answers `EFAULT`.
    let (unshared, cloned) = unsafe {
        let unshared = libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER);
        let unshared = (unshared, io::Error::last_os_error().raw_os_error());
        (unshared, (libc::syscall(libc::SYS_clone3, 0, 0), io::Error::last_os_error().raw_os_error()))
    };
    // SAFETY: plain numbers, and no bytes to send. Without the filter it is answered `EBADF`.
    let sent = unsafe {
        let sent = libc::send(-1, std::ptr::null(), 0, libc::MSG_FASTOPEN);
        (sent, io::Error::last_os_error().raw_os_error())
    };
    if unshared != (-1, Some(libc::EPERM)) || cloned != (-1, Some(libc::ENOSYS)) || sent != (-1, Some(libc::EOPNOTSUPP))
    {
        return Err("the filters are taken and refuse nothing".to_owned());
    }
    Ok(())
}
