//! The supervisor of one instance: a small process with one thread that owns the server.
//!
//! It starts the server, hands its pipes to the agent (so that no call passes through here), reads its
//! standard error into the log, and outlives the agent by the orphan grace. Within it a restarted agent
//! connects to the socket in the instance's directory and gets the same pipes; after it everything the
//! server started is killed. It never restarts a server: that is the agent's decision.
//!
//! Invariants: when it ends, no descendant is left but one that waits in the kernel beyond any signal, such as for a
//! file system that hangs: killed already, it runs nothing more. Should it be killed itself, the namespace's
//! first process dies with it and takes the rest along.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use toolyard_types::Clock;
use toolyard_types::agent::LogStream;

use super::cgroup::Cgroup;
use super::log::{LineSplitter, LogWriter};
use super::platform::{self, ChildPipes, Spawned};
use super::remove;
use super::tree;
use super::watch::{Excess, Watch};
use super::wire::{self, Ended, Hello, Incoming, Killed, Order, SOCKET_NAME, StartOrder, ToAgent, ToSupervisor};

/// Where a server or a package client may always write, in its directory; the second is scratch space.
const OWN: [&str; 2] = ["work", TEMPORARY];
const TEMPORARY: &str = "tmp";
const AGENT_WRITE_TIMEOUT: Duration = Duration::from_secs(2);
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what was killed may take to end, before it is looked at why.
const LONGEST_DEATH: Duration = Duration::from_secs(5);
const HANGS_AFTER: Duration = Duration::from_secs(2);
const TAIL_BYTES: usize = 4 << 10;
/// A pipe holds 64 KiB unless it was told to hold up to 1 MiB.
const MAX_LAST_READS: usize = 64;

/// Runs as a supervisor. The process must have one thread still, and a socket as standard input.
#[must_use]
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("supervise: {error} (it is started by an agent, never by hand)");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    platform::close_inherited();
    // Servers and package clients are other users who must pass through what is made here, and their own files do not
    // depend on the shell that Toolyard was started from. What is private has its mode said.
    nix::sys::stat::umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let agent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    agent.set_read_timeout(Some(ORDER_TIMEOUT))?;
    agent.set_write_timeout(Some(AGENT_WRITE_TIMEOUT))?;
    let mut incoming = Incoming::default();
    match incoming.wait(&agent)? {
        Order::Probe { dir } => wire::send(&agent, &ToAgent::Probed(platform::probe(&dir)), &[]),
        Order::Client { order, own_network } => client(&order, own_network, &agent),
        Order::TryNetwork => {
            let answer = match platform::own_network() {
                Ok(_) => ToAgent::Client,
                Err(message) => ToAgent::NotStarted { message },
            };
            wire::send(&agent, &answer, &[])
        }
        Order::Look(question) => wire::send(&agent, &ToAgent::Looked(question.answer()), &[]),
        Order::Start(order) => start(*order, AgentSide { stream: agent, incoming }),
    }
}

struct AgentSide {
    stream: UnixStream,
    incoming: Incoming,
}

fn start(order: StartOrder, agent: AgentSide) -> io::Result<()> {
    platform::prepare_process()?;
    std::env::set_current_dir(&order.dir)?;
    let listener = listen()?;
    // Only now: a process that is not dumpable cannot look into its own /proc unless it is root.
    platform::hide_memory()?;
    let log = LogWriter::open(order.log_dir.as_deref().unwrap_or(&order.dir), &order.log_mark, order.redact.clone())?;
    // Named after us too: the next supervisor of the instance must not meet what this one is ending.
    let mut cgroup = Cgroup::create(&format!("{}.{}", order.instance, std::process::id()), &order.limits);
    match spawn(&order, &mut cgroup) {
        Ok((server, pipes)) => {
            let mut supervisor = Supervisor::new(order, log, cgroup, listener, server, pipes);
            supervisor.greet(agent);
            supervisor.run()
        }
        Err(message) => {
            cgroup.remove();
            let _ = std::fs::remove_file(SOCKET_NAME);
            let message = log.clean(&message);
            wire::send(&agent.stream, &ToAgent::NotStarted { message }, &[])
        }
    }
}

/// Runs a package client and ends as it did. It dies with us, and we with our agent's wish to wait for it.
fn client(order: &StartOrder, own_network: bool, agent: &UnixStream) -> io::Result<()> {
    platform::prepare_process()?;
    let listener = if own_network { platform::own_network().map(Some) } else { Ok(None) };
    let listener = match listener {
        Ok(listener) => listener,
        Err(message) => return wire::send(agent, &ToAgent::NotStarted { message }, &[]),
    };
    platform::hide_memory()?;
    let null = std::fs::File::open("/dev/null")?;
    let pipes = ChildPipes {
        stdin: null.into(),
        stdout: io::stdout().as_fd().try_clone_to_owned()?,
        stderr: io::stderr().as_fd().try_clone_to_owned()?,
    };
    let mut cgroup = Cgroup::create(&format!("{}.{}", order.instance, std::process::id()), &order.limits);
    let spawned = platform::spawn(order, pipes, |pid| {
        cgroup.add(pid.as_raw());
        Ok(())
    });
    let code = match spawned {
        Ok(client) => {
            let fds: Vec<_> = listener.iter().map(AsFd::as_fd).collect();
            wire::send(agent, &ToAgent::Client, &fds)?;
            drop(listener);
            let dirs = own_dirs(order).chain(order.isolation.granted.iter().map(|granted| granted.path.clone()));
            let mut watch = Watch::new(&order.limits, cgroup, dirs.collect());
            let code = wait_for_client(client, &mut watch);
            cgroup = watch.cgroup;
            code
        }
        Err(message) => {
            wire::send(agent, &ToAgent::NotStarted { message }, &[])?;
            1
        }
    };
    cgroup.remove();
    std::process::exit(code)
}

fn own_dirs(order: &StartOrder) -> impl Iterator<Item = PathBuf> {
    OWN.iter().map(|name| order.dir.join(name))
}

/// Waits for a client's end, which comes early when it uses more than it may; its exit code, as a shell has it.
fn wait_for_client(client: Spawned, watch: &mut Watch) -> i32 {
    let code = |status: WaitStatus| match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => 1,
    };
    let mut said = false;
    let ended = loop {
        match waitpid(client.child, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::EINTR) | Ok(WaitStatus::StillAlive) => {}
            Ok(status) => break code(status),
            Err(_) => break 1,
        }
        let measured = watch.measure(|cgroup| processes(&client, cgroup)).and_then(|(_, excess)| excess);
        let excess = measured.or_else(|| watch.look_at_disk(|cgroup| processes(&client, cgroup)));
        if let Some(excess) = excess.filter(|_| !said) {
            kill_whole(&client);
            say_of_client(&excess);
            said = true;
        }
        let mut wake: Vec<_> =
            platform::child_signal().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).into_iter().collect();
        let next = watch.next().min(platform::LONGEST_POLL);
        // Whatever it says, we look again.
        let _ = poll(&mut wake, PollTimeout::try_from(next).unwrap_or(PollTimeout::ZERO));
        platform::clear_child_signal();
    };
    kill_descendants(&watch.cgroup, client.child);
    if let Some(excess) = watch.killed_by_kernel().filter(|_| !said) {
        say_of_client(&excess);
    }
    // The first process of a namespace ends well and writes how the client did.
    let Some(status) = client.status else { return ended };
    let raw = wire::read_to_end(status, 4);
    let raw = raw.try_into().ok().map(i32::from_ne_bytes);
    raw.and_then(|raw| WaitStatus::from_raw(client.server, raw).ok()).map_or(ended.max(1), code)
}

/// Beside what the client itself complained about.
fn say_of_client(excess: &Excess) {
    eprintln!("it was ended: {}", excess.text);
}

/// Listens in the current directory: its full path may be longer than a socket's address can be.
fn listen() -> io::Result<UnixListener> {
    match std::fs::remove_file(SOCKET_NAME) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(SOCKET_NAME)?;
    std::fs::set_permissions(SOCKET_NAME, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Our ends of the server's pipes.
struct Pipes {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
}

fn spawn(order: &StartOrder, cgroup: &mut Cgroup) -> Result<(Spawned, Pipes), String> {
    let pipe = || platform::pipe().map_err(|error| format!("pipe: {error}"));
    let (stdin_read, stdin_write) = pipe()?;
    let (stdout_read, stdout_write) = pipe()?;
    let (stderr_read, stderr_write) = pipe()?;
    let child = ChildPipes { stdin: stdin_read, stdout: stdout_write, stderr: stderr_write };
    let spawned = platform::spawn(order, child, |pid| {
        cgroup.add(pid.as_raw());
        match order.limits.cpu_millis > 0 && !cgroup.limits_cpu() {
            true => Err("this host cannot limit processor time".to_owned()),
            false => Ok(()),
        }
    })?;
    let _ = nix::fcntl::fcntl(&stderr_read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    Ok((spawned, Pipes { stdin: Some(stdin_write), stdout: stdout_read, stderr: Some(stderr_read) }))
}

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    No,
    InputClosed { since: Instant },
    Terminated { since: Instant },
    Killed { since: Instant },
}

struct Supervisor {
    order: StartOrder,
    clock: Clock,
    log: LogWriter,
    lines: LineSplitter,
    tail: String,
    watch: Watch,
    listener: UnixListener,
    socket_inode: Option<u64>,
    agent: Option<AgentSide>,
    alone_since: Instant,
    server: Spawned,
    hello: Hello,
    pipes: Pipes,
    stopping: Stopping,
    killed: Option<Killed>,
    excess: Option<String>,
    done: bool,
}

impl Supervisor {
    fn new(
        order: StartOrder,
        log: LogWriter,
        cgroup: Cgroup,
        listener: UnixListener,
        server: Spawned,
        pipes: Pipes,
    ) -> Self {
        let clock = Clock::system();
        let pid = u32::try_from(server.server.as_raw()).unwrap_or(0);
        let hello = Hello { pid, started_at: clock.now(), handed_over: 0, ended: None };
        let watch = Watch::new(&order.limits, cgroup, own_dirs(&order).collect());
        let mut supervisor = Self {
            order,
            clock,
            log,
            lines: LineSplitter::default(),
            tail: String::new(),
            watch,
            listener,
            socket_inode: inode(SOCKET_NAME),
            agent: None,
            alone_since: Instant::now(),
            server,
            hello,
            pipes,
            stopping: Stopping::No,
            killed: None,
            excess: None,
            done: false,
        };
        supervisor.say(&format!("started process {pid}"));
        supervisor
    }

    fn run(&mut self) -> io::Result<()> {
        while !self.done {
            let ready = self.wait()?;
            if ready.sockets.contains(PollFlags::POLLIN) {
                self.make_socket();
            } else if ready.sockets.contains(PollFlags::POLLHUP) {
                // Nobody is left who could ask for one; asking for a call that does not come would be waiting.
                self.server.sockets = None;
            }
            if ready.stderr {
                self.read_stderr();
            }
            if ready.agent {
                self.hear_agent();
            }
            if ready.listener {
                self.accept();
            }
            self.reap();
            self.keep_time();
        }
        self.end();
        Ok(())
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let wake = platform::child_signal();
        let sockets_at = self.server.sockets.as_ref().map(|maker| push(&mut fds, maker.calls().as_fd()));
        let stderr_at = self.pipes.stderr.as_ref().map(|fd| push(&mut fds, fd.as_fd()));
        let agent_at = self.agent.as_ref().map(|agent| push(&mut fds, agent.stream.as_fd()));
        if let Some(wake) = wake {
            push(&mut fds, wake);
        }
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        platform::clear_child_signal();
        let any = |at: Option<usize>| at.and_then(|at| fds.get(at)?.any()).unwrap_or(false);
        let sockets = sockets_at.and_then(|at| fds.get(at)?.revents()).unwrap_or(PollFlags::empty());
        Ok(Ready { listener: any(Some(0)), sockets, stderr: any(stderr_at), agent: any(agent_at) })
    }

    fn timeout(&self) -> PollTimeout {
        let next = if self.stopping != Stopping::No && self.hello.ended.is_none() {
            Duration::from_millis(50)
        } else if self.hello.ended.is_some() || self.agent.is_none() {
            Duration::from_millis(100)
        } else {
            self.watch.next()
        };
        PollTimeout::try_from(next.min(platform::LONGEST_POLL)).unwrap_or(PollTimeout::ZERO)
    }

    fn keep_time(&mut self) {
        if self.hello.ended.is_some() {
            if self.agent.is_none() && self.alone_since.elapsed() >= self.grace() {
                self.done = true;
            }
            return;
        }
        if self.agent.is_none() && self.alone_since.elapsed() >= self.grace() && self.stopping == Stopping::No {
            self.say("no agent came back in time");
            self.kill_now(Killed::Orphaned);
        }
        self.step_stopping();
        self.measure();
    }

    /// The server waits for it.
    fn make_socket(&self) {
        if let Some(maker) = &self.server.sockets {
            // Who asked may have ended meanwhile.
            let _ = maker.answer();
        }
    }

    fn grace(&self) -> Duration {
        Duration::from_millis(self.order.orphan_grace_ms)
    }

    fn measure(&mut self) {
        let measured = self.watch.measure(|cgroup| processes(&self.server, cgroup));
        let on_disk = self.watch.look_at_disk(|cgroup| processes(&self.server, cgroup));
        let (measured, excess) = measured.unzip();
        if let Some(Excess { killed, text }) = excess.flatten().or(on_disk).filter(|_| self.excess.is_none()) {
            self.say(&text);
            self.excess = Some(text);
            self.kill_now(killed);
        }
        if let Some(measured) = measured {
            let usage = measured.usage(self.clock.now());
            self.tell(&ToAgent::Usage(usage));
        }
    }

    fn step_stopping(&mut self) {
        let wait = Duration::from_millis(self.order.stop_wait_ms);
        match self.stopping {
            Stopping::InputClosed { since } if since.elapsed() >= wait => {
                self.say("did not end when its input was closed; sending SIGTERM");
                self.signal(Signal::SIGTERM);
                self.stopping = Stopping::Terminated { since: Instant::now() };
            }
            Stopping::Terminated { since } if since.elapsed() >= wait => {
                self.say("did not end on SIGTERM; killing it");
                self.kill_now(Killed::Asked);
            }
            Stopping::Killed { since } if since.elapsed() >= LONGEST_DEATH => self.give_up(),
            _ => {}
        }
    }

    fn stop(&mut self) {
        if self.stopping == Stopping::No && self.hello.ended.is_none() {
            self.say("stopping");
            self.killed.get_or_insert(Killed::Asked);
            self.pipes.stdin = None;
            self.stopping = Stopping::InputClosed { since: Instant::now() };
        }
    }

    fn signal(&self, signal: Signal) {
        // It may have ended in between; then there is nothing to signal.
        let _ = kill(self.server.server, signal);
        let _ = killpg(self.server.server, signal);
    }

    fn kill_now(&mut self, why: Killed) {
        self.killed.get_or_insert(why);
        self.stopping = Stopping::Killed { since: Instant::now() };
        kill_whole(&self.server);
    }

    /// Waits no longer for a server that was killed and hangs in the kernel.
    fn give_up(&mut self) {
        if !tree::hang(&processes(&self.server, &self.watch.cgroup)) {
            return;
        }
        self.say("a process of it was killed and hangs in the kernel; it is not waited for");
        // Nobody writes there in time.
        self.server.status = None;
        self.ended(WaitStatus::StillAlive);
    }

    /// Notices when the server has ended, then ends what it left behind.
    fn reap(&mut self) {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => status,
            };
            if status.pid() == Some(self.server.child) && self.hello.ended.is_none() {
                self.ended(status);
            }
        }
    }

    fn ended(&mut self, status: WaitStatus) {
        kill_descendants(&self.watch.cgroup, self.server.child);
        self.read_last_words();
        let (code, signal) = self.exit_of(status);
        if self.watch.cgroup.memory_kills() > 0 {
            self.killed = Some(Killed::Memory);
        }
        let (excess, stderr_tail) = (self.excess.clone(), self.tail.clone());
        let ended = Ended { code, signal, at: self.clock.now(), killed: self.killed, excess, stderr_tail };
        // What it kept in its own directory stays: that may be the work of days.
        if self.killed == Some(Killed::Disk) && !remove::empty(&self.order.dir.join(TEMPORARY)) {
            self.say("could not remove all that it kept in its temporary directory");
        }
        self.say(&describe(&ended));
        self.hello.ended = Some(ended.clone());
        self.server.sockets = None;
        self.pipes.stdin = None;
        self.watch.cgroup.remove();
        self.alone_since = Instant::now();
        self.tell(&ToAgent::Exited(ended));
    }

    fn exit_of(&mut self, status: WaitStatus) -> (Option<i32>, Option<i32>) {
        let mut raw = [0_u8; 4];
        if let Some(pipe) = self.server.status.take()
            && wire::read_some(&pipe, &mut raw).is_ok_and(|count| count == raw.len())
            && let Ok(told) = WaitStatus::from_raw(self.server.server, i32::from_ne_bytes(raw))
        {
            return code_and_signal(told);
        }
        code_and_signal(status)
    }

    /// Takes what is left in the pipe: why a server crashed stands at the end.
    fn read_last_words(&mut self) {
        for _ in 0..MAX_LAST_READS {
            if !self.read_stderr() {
                break;
            }
        }
        self.end_lines();
    }

    /// Reads once; whether there may be more.
    fn read_stderr(&mut self) -> bool {
        let Some(stderr) = &self.pipes.stderr else { return false };
        let mut buffer = [0_u8; 32 << 10];
        let count = match wire::read_some(stderr, &mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => 0,
        };
        let (now, log, tail) = (self.clock.now(), &mut self.log, &mut self.tail);
        let mut each = |line: &str| {
            log.write(now, LogStream::Stderr, line);
            add_to_tail(tail, &log.clean(line));
        };
        self.lines.push(&buffer[..count], &mut each);
        if count == 0 {
            self.pipes.stderr = None;
            self.end_lines();
        }
        count > 0
    }

    /// A last line without its line break still counts.
    fn end_lines(&mut self) {
        let (now, log, tail) = (self.clock.now(), &mut self.log, &mut self.tail);
        self.lines.finish(|line| {
            log.write(now, LogStream::Stderr, line);
            add_to_tail(tail, &log.clean(line));
        });
    }

    fn say(&mut self, text: &str) {
        self.log.write(self.clock.now(), LogStream::Toolyard, text);
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let usable = stream.set_nonblocking(false).is_ok()
            && stream.set_read_timeout(Some(AGENT_WRITE_TIMEOUT)).is_ok()
            && stream.set_write_timeout(Some(AGENT_WRITE_TIMEOUT)).is_ok()
            && platform::same_user(&stream);
        if usable {
            self.greet(AgentSide { stream, incoming: Incoming::default() });
        }
    }

    /// Takes a new agent; the newest one counts, because the one before has died or soon will.
    fn greet(&mut self, agent: AgentSide) {
        let stdin = self.pipes.stdin.as_ref().unwrap_or(&self.pipes.stdout);
        let fds = [stdin.as_fd(), self.pipes.stdout.as_fd()];
        let sent = wire::send(&agent.stream, &ToAgent::Hello(self.hello.clone()), &fds);
        // Counted even when it failed: what was sent may have arrived.
        self.hello.handed_over = self.hello.handed_over.saturating_add(1);
        if sent.is_ok() {
            self.agent = Some(agent);
        }
    }

    fn tell(&mut self, message: &ToAgent) {
        let Some(agent) = &self.agent else { return };
        if wire::send(&agent.stream, message, &[]).is_err() {
            self.lose_agent();
        }
    }

    fn lose_agent(&mut self) {
        self.agent = None;
        self.alone_since = Instant::now();
    }

    fn hear_agent(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let open = agent.incoming.read_from(&agent.stream).unwrap_or(false);
        let mut messages = Vec::new();
        while let Some(message) = agent.incoming.next_known() {
            messages.push(message);
        }
        for message in messages {
            match message {
                ToSupervisor::Stop => self.stop(),
                ToSupervisor::Log { stream, text } => self.log.write(self.clock.now(), stream, &text),
                ToSupervisor::Done => self.done = self.hello.ended.is_some(),
            }
        }
        if !open {
            self.lose_agent();
        }
    }

    fn end(&mut self) {
        kill_descendants(&self.watch.cgroup, self.server.child);
        self.watch.cgroup.remove();
        // The next supervisor of the instance may listen here by now.
        if inode(SOCKET_NAME) == self.socket_inode {
            let _ = std::fs::remove_file(SOCKET_NAME);
        }
    }
}

/// The processes of a server or a package client.
fn processes(spawned: &Spawned, cgroup: &Cgroup) -> Vec<i32> {
    let child = spawned.child.as_raw();
    let mut pids = cgroup.processes().unwrap_or_else(|| {
        let mut pids = tree::descendants(child);
        pids.push(child);
        pids
    });
    if spawned.status.is_some() {
        // The namespace's first process is ours, not the server's.
        pids.retain(|pid| *pid != child);
    }
    pids
}

fn kill_whole(spawned: &Spawned) {
    let _ = kill(spawned.child, Signal::SIGKILL);
    if spawned.status.is_none() {
        let _ = killpg(spawned.server, Signal::SIGKILL);
    }
}

/// Kills until nothing is left but what hangs, and `child`, which waits for it when it is a namespace's first process; each
/// pass may find what was forked during the last one.
fn kill_descendants(cgroup: &Cgroup, child: Pid) {
    let (own, began) = (nix::unistd::getpid().as_raw(), Instant::now());
    for _ in 0..1000 {
        let mut left = tree::descendants(own);
        left.extend(cgroup.processes().unwrap_or_default());
        left.retain(|pid| *pid != own);
        left.sort_unstable();
        left.dedup();
        let hangs = |pid: &i32| tree::hang(std::slice::from_ref(pid));
        let waits = |pid: &i32| *pid == child.as_raw() && left.len() > 1;
        if left.is_empty() || (began.elapsed() >= HANGS_AFTER && left.iter().all(|pid| waits(pid) || hangs(pid))) {
            return;
        }
        for pid in left {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn inode(path: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

struct Ready {
    listener: bool,
    sockets: PollFlags,
    stderr: bool,
    agent: bool,
}

fn push<'a>(fds: &mut Vec<PollFd<'a>>, fd: std::os::fd::BorrowedFd<'a>) -> usize {
    fds.push(PollFd::new(fd, PollFlags::POLLIN));
    fds.len() - 1
}

fn add_to_tail(tail: &mut String, line: &str) {
    tail.push_str(line);
    tail.push('\n');
    if tail.len() > TAIL_BYTES {
        let mut from = tail.len() - TAIL_BYTES;
        while !tail.is_char_boundary(from) {
            from += 1;
        }
        tail.drain(..from);
    }
}

fn code_and_signal(status: WaitStatus) -> (Option<i32>, Option<i32>) {
    match status {
        WaitStatus::Exited(_, code) => (Some(code), None),
        WaitStatus::Signaled(_, signal, _) => (None, Some(signal as i32)),
        _ => (None, None),
    }
}

fn describe(ended: &Ended) -> String {
    let how = match (ended.code, ended.signal) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    let why = match ended.killed {
        None => "",
        Some(Killed::Asked) => ", as asked",
        Some(Killed::Memory) => ": out of memory",
        Some(Killed::Processes) => ": too many processes",
        Some(Killed::Disk) => ": for what it keeps on disk",
        Some(Killed::Orphaned) => ": no agent came back",
    };
    format!("{how}{why}")
}
