//! One instance: from its goal to a server that answers, and back.
//!
//! One task per instance, one step after the other: install, start, probe, serve, and when it ends by
//! itself wait and begin again. The goal may change at any step. What the task does is told in its
//! [`Slot`]; nothing is told that was not observed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use toolyard_mcp::Room;
use toolyard_mcp::era::Handshake;
use toolyard_mcp::stdio::{Connection, Noise, Options};
use toolyard_types::agent::{BUSY, DesiredInstance, Era, Exit, Failure, LogStream, McpInfo, ObservedInstance};
use toolyard_types::state::{Phase, Reason, Status};
use toolyard_types::{Clock, CredentialId, Redaction, Secret, Timestamp};

use crate::agent::Context;
use crate::copies::LogPlace;
use crate::desired::{read_state, write_whole};
use crate::engine::{Line, Running, Streams};
use crate::packages::Prepared;
use crate::plan::Goal;
use crate::probe::{self, Check, Health, NotReady, Ready, Sign};
use crate::process::log::{LogWriter, telling_line};
use crate::process::wire::{Ended, Killed, ToAgent, ToSupervisor};
use crate::slot::Slot;

/// How often the line to one supervisor may break before its server counts as lost.
const MAX_RECONNECTS: usize = 5;
pub(crate) const ANSWERED_FILE: &str = "answered.json";
const RESTARTS_FILE: &str = "restarts.json";
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A server that ran this long has recovered: the next wait is short again.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);
/// So many exits in a row without recovering are a crash loop.
const CRASH_LOOP: u32 = 3;
/// How long a server that is to be stopped may go on with the calls it has; less where calls may take less.
const LONGEST_DRAIN: Duration = Duration::from_secs(30);
/// How long a server may live on after it closed its output, before it is stopped.
const CLOSED_GRACE: Duration = Duration::from_secs(2);
/// Longest wait for the last output of a server that has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A wait that lasts so long is told.
const LATE: Duration = Duration::from_secs(1);
/// Lines beside the protocol that wait to be logged. Full makes who reads them wait a moment.
const NOISE_BACKLOG: usize = 64;
/// What a server may take to write one message.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
const STOPPED_ANSWERING: &str = "it stopped answering";

/// What is kept about a server that answered, so that a restarted agent can go on with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answered {
    handshake: Handshake,
    tools: u32,
    #[serde(default)]
    tool_names: Vec<String>,
    ready_since: Timestamp,
    restarts: u32,
    /// What its process was started with; an agent of an earlier version did not write it.
    #[serde(default)]
    secret_versions: BTreeMap<CredentialId, u32>,
}

/// How serving ended.
#[derive(Debug)]
enum End {
    /// It ended by itself, or was ended for what it did.
    Exited(Ended),
    /// It ended because its goal is another one.
    Asked(Ended),
    /// It was stopped because it did not get ready, or did not answer any more.
    NotReady(Failure, Option<Ended>),
    /// It ended, or was ended, before it had said anything of itself. It had been asked `server/discover`, and asked
    /// nothing but `initialize` it may go on.
    Unspoken,
    /// It was stopped because Toolyard listens on ports by now that it was not kept from.
    Outdated(Ended),
    /// Its supervisor disappeared, and everything below it.
    Lost,
}

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    No,
    /// It may end the calls it has.
    Draining,
    /// Its keeper ends it.
    Told,
}

/// The task of one instance.
pub(crate) struct Instance {
    context: Arc<Context>,
    desired: DesiredInstance,
    slot: Arc<Slot>,
    goal: watch::Receiver<Goal>,
    dir: PathBuf,
    /// Whether its directory is there and its own.
    has_dir: bool,
    known_era: Option<Era>,
    was_ready: bool,
    /// What a person should know of its paths.
    remark: String,
    failures: u32,
}

impl Instance {
    pub(crate) fn new(
        context: Arc<Context>,
        desired: DesiredInstance,
        slot: Arc<Slot>,
        goal: watch::Receiver<Goal>,
        known_era: Option<Era>,
    ) -> Self {
        let dir = context.instance_dir(desired.id);
        let instance = Self {
            context,
            desired,
            slot,
            goal,
            dir,
            has_dir: false,
            known_era,
            was_ready: false,
            remark: String::new(),
            failures: 0,
        };
        // Before anything is told of it: the control plane takes a lower number for one that is counted anew.
        let restarts = instance.load_restarts();
        instance.slot.state().observed.restarts = restarts;
        instance
    }

    /// Runs until the task is aborted; `found` is a server that runs already.
    pub(crate) async fn run(mut self, found: Option<Running>) {
        if let Some(running) = found {
            // It is in its directory, which nobody removes.
            self.make_dir();
            let answered = self.load_answered();
            // It may be there only to be stopped.
            self.goal.mark_changed();
            self.serve_then_wait(running, answered).await;
        }
        loop {
            let goal = *self.goal.borrow_and_update();
            if goal != Goal::Stop && !self.has_dir && !self.way_is_clear().await {
                continue;
            }
            match goal {
                Goal::Stop => {
                    self.set(Phase::Stopped, Reason::Requested, "");
                    self.slot.update(|state| state.ended = true);
                    self.goal_changes().await;
                    self.slot.update(|state| (state.ended, state.reported) = (false, false));
                }
                Goal::Prepare => self.prepare_only().await,
                Goal::Run => self.attempt().await,
            }
        }
    }

    /// Makes its directory once what an earlier run left there is out of the way; false when the goal changed before that.
    async fn way_is_clear(&mut self) -> bool {
        let (context, dir) = (Arc::clone(&self.context), self.dir.clone());
        let gone = context.removals.out_of_the_way(&dir);
        tokio::pin!(gone);
        let late = tokio::time::sleep(LATE);
        tokio::pin!(late);
        loop {
            tokio::select! {
                () = &mut gone => break,
                // What cannot be moved away is removed where it is, and that may be very much.
                () = &mut late, if !late.is_elapsed() => {
                    let message = "waits until the directory of an earlier run is removed";
                    self.set(self.phase_while(Phase::Preparing), Reason::Installing, message);
                }
                () = self.goal_changes() => return false,
            }
        }
        self.make_dir();
        true
    }

    fn make_dir(&mut self) {
        self.has_dir = true;
        if let Err(error) = self.save() {
            tracing::error!(instance.id = %self.desired.id, %error, "write the instance's directory");
        }
    }

    async fn goal_changes(&mut self) {
        if self.goal.changed().await.is_err() {
            // The agent is gone and will abort this task.
            std::future::pending::<()>().await;
        }
    }

    /// What serves may be ended once this one says that it is prepared, so it says first what would keep it from starting.
    async fn prepare_only(&mut self) {
        let prepared = match self.prepare().await {
            Some(Ok(prepared)) => prepared,
            Some(Err(failure)) => return self.failed(failure).await,
            None => return,
        };
        let (context, desired, dir) = (Arc::clone(&self.context), self.desired.clone(), self.dir.clone());
        let checked = tokio::select! {
            checked = context.check(&desired, &dir, &prepared) => checked,
            () = self.goal_changes() => return,
        };
        match checked {
            Ok(()) => {
                self.set(Phase::Pending, Reason::Requested, "prepared");
                self.goal_changes().await;
            }
            Err(failure) => self.failed(failure).await,
        }
    }

    async fn attempt(&mut self) {
        let prepared = match self.prepare().await {
            Some(Ok(prepared)) => prepared,
            Some(Err(failure)) => return self.failed(failure).await,
            None => return,
        };
        self.set(self.phase_while(Phase::Starting), Reason::AwaitingProbe, "");
        // The same package speaks the same era again; what else an earlier process answered says nothing about this one.
        self.known_era = self.known_era.or_else(|| Some(self.load_answered()?.handshake.era));
        if self.context.revisions.is_plain(self.desired.revision) {
            self.known_era = Some(Era::Legacy);
        }
        let _ = std::fs::remove_file(self.dir.join(ANSWERED_FILE));
        self.context.end_leftovers(self.desired.id, &self.dir).await;
        match self.context.start(&self.desired, &self.dir, &prepared).await {
            Ok(running) => {
                self.slot.state().observed.secret_versions = self.desired.secret_versions.clone();
                self.serve_then_wait(running, None).await;
            }
            Err(failure) => self.failed(failure).await,
        }
    }

    /// Installs what the lock names; `None` when the goal changed meanwhile.
    async fn prepare(&mut self) -> Option<Result<Prepared, Failure>> {
        if let Some(current) = self.context.known(self.desired.id) {
            self.desired = current;
        }
        self.set(self.phase_while(Phase::Preparing), Reason::Installing, "");
        let (context, desired, slot) = (Arc::clone(&self.context), self.desired.clone(), Arc::clone(&self.slot));
        let log = Journal::open(&context, &context.log_place(desired.id, &self.dir), &desired.secrets);
        let work = async move {
            let progress = |text: &str| slot.update(|state| text.clone_into(&mut state.observed.status.message));
            context.prepare(&desired, &progress, &|text| log.write(text)).await
        };
        tokio::select! {
            result = work => Some(result),
            () = self.goal_changes() => None,
        }
    }

    async fn serve_then_wait(&mut self, running: Running, answered: Option<Answered>) {
        let mut end = self.serve(running, answered).await;
        // A broken line is not yet a dead supervisor; never start a second server beside the first.
        for _ in 0..MAX_RECONNECTS {
            if !matches!(end, End::Lost) {
                break;
            }
            let Some(running) = self.context.take_over(&self.desired, &self.dir).await else { break };
            // It may have been told to stop on the line that broke.
            self.goal.mark_changed();
            end = self.serve(running, self.load_answered()).await;
        }
        self.slot.update(|state| {
            state.connection = None;
            state.observed.pid = None;
            state.observed.container_id = None;
            state.observed.failures = 0;
            state.observed.ready_since = None;
            state.observed.usage = None;
            state.observed.secret_versions.clear();
        });
        if matches!(end, End::Lost) {
            self.context.end_leftovers(self.desired.id, &self.dir).await;
        }
        self.note_exit(&end);
        if matches!(end, End::Asked(_) | End::Outdated(_)) || *self.goal.borrow() != Goal::Run {
            return;
        }
        if matches!(end, End::Unspoken) {
            self.note("it did not get through `server/discover`; it is started again and asked `initialize` only");
            self.remember_plain(true);
            return;
        }
        self.count_restart();
        let failure = self.failure_of(&end);
        self.failed(failure).await;
    }

    /// Counts that it is started again, also for the agents after this one.
    fn count_restart(&self) {
        let restarts = self.slot.state().observed.restarts.saturating_add(1);
        if let Err(error) = write_whole(&self.dir.join(RESTARTS_FILE), restarts.to_string().as_bytes()) {
            tracing::warn!(instance.id = %self.desired.id, %error, "a restarted agent will not know of this restart");
        }
        self.slot.update(|state| state.observed.restarts = restarts);
    }

    fn note_exit(&self, end: &End) {
        let (End::Exited(ended) | End::Asked(ended) | End::NotReady(_, Some(ended)) | End::Outdated(ended)) = end
        else {
            return;
        };
        let Ended { code, signal, at, stderr_tail, .. } = ended.clone();
        let failure = if let End::NotReady(failure, _) = end { Some(failure.clone()) } else { None };
        self.slot.update(|state| state.observed.exit = Some(Exit { code, signal, at, stderr_tail, failure }));
    }

    fn failure_of(&self, end: &End) -> Failure {
        let ended = match end {
            End::NotReady(failure, _) => return failure.clone(),
            End::Lost | End::Unspoken => {
                let message = "the server's supervisor disappeared".to_owned();
                return Failure { reason: Reason::Exited, message };
            }
            End::Exited(ended) | End::Asked(ended) | End::Outdated(ended) => ended,
        };
        let (reason, message) = match (ended.killed, ended.code, ended.signal) {
            (Some(Killed::Memory), ..) => (Reason::OutOfMemory, "it used more memory than its limit".to_owned()),
            (Some(Killed::Disk), ..) => {
                let message = match &ended.excess {
                    Some(excess) => format!("it was stopped: {excess}; its own directory is as it left it"),
                    // An earlier version's supervisor, which says only that.
                    None => "it kept more on disk than its limit".to_owned(),
                };
                (Reason::OutOfDisk, message)
            }
            (Some(Killed::Processes), ..) => {
                let message = ended.excess.as_ref().map(|excess| format!("it was stopped: it {excess}"));
                (Reason::Exited, message.unwrap_or_else(|| "it had more processes than its limit".to_owned()))
            }
            (_, Some(code), _) => (Reason::Exited, format!("it ended by itself with exit code {code}{}", why(ended))),
            (_, _, Some(signal)) => (Reason::Exited, format!("it was ended by signal {signal}{}", why(ended))),
            _ => (Reason::Exited, "it ended".to_owned()),
        };
        let looping = reason == Reason::Exited && self.failures + 1 >= CRASH_LOOP;
        Failure { reason: if looping { Reason::CrashLoop } else { reason }, message }
    }

    /// Says why it does not run, waits, and returns when it is time to try again or the goal changed.
    async fn failed(&mut self, mut failure: Failure) {
        // It may quote the server, and a server may say its own secrets.
        failure.message = Redaction::of(self.desired.secrets.values()).clean(&failure.message).into_owned();
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(
            instance.id = %self.desired.id, server.name = %self.desired.server_name,
            reason = ?failure.reason, message = failure.message, "instance does not run"
        );
        self.note(&format!("does not run: {}", failure.message));
        let permanent =
            matches!(failure.reason, Reason::ConfigInvalid | Reason::UnsupportedByEngine | Reason::CredentialMissing);
        let delay = delay_after(self.failures, &failure);
        let now = self.context.clock.now();
        let trying_again = failure.reason == Reason::Exited;
        let phase = match (self.was_ready, trying_again) {
            (true, _) => Phase::Degraded,
            (false, true) => Phase::Starting,
            (false, false) => Phase::Failed,
        };
        let mut status = Status::new(phase, failure.reason, failure.message, now);
        status.next_attempt_at = (!permanent).then(|| now.plus(delay));
        self.slot.update(|state| state.enter(status));
        let wait = async { if permanent { std::future::pending().await } else { tokio::time::sleep(delay).await } };
        let (context, desired) = (Arc::clone(&self.context), self.desired.clone());
        tokio::select! {
            () = wait => {}
            () = context.desired_changed(desired.id, &desired) => {}
            () = self.goal_changes() => {}
        }
    }

    /// Speaks to a running server until it has ended.
    async fn serve(&mut self, running: Running, answered: Option<Answered>) -> End {
        let Running { hello, streams, mut line, container } = running;
        if let Some(ended) = hello.ended {
            self.log_unread(streams, hello.handed_over, &line).await;
            line.dismiss().await;
            return End::Exited(ended);
        }
        let open_ports = self.context.open_ports(&self.desired, &self.dir);
        if !open_ports.is_empty() {
            self.was_ready |= answered.is_some();
            // Held open, its input would not be seen to end.
            drop(streams);
            return self.end_outdated(&mut line, &open_ports).await;
        }
        let (noise, mut noises) = mpsc::channel(NOISE_BACKLOG);
        let room = self.context.room.of(self.desired.organization.as_u128());
        let connection = match streams.open(&self.dir, options(hello.handed_over, noise, room)) {
            Ok(connection) => connection,
            Err(error) => {
                let _ = line.commands.send(ToSupervisor::Stop).await;
                let failure = Failure { reason: Reason::EngineUnavailable, message: error.to_string() };
                return self.wait_for_exit(&mut line, failure).await;
            }
        };
        let (unknown, now) = (answered.is_none(), self.context.clock.now());
        let started_with = answered.as_ref().map(|answered| answered.secret_versions.clone());
        self.slot.update(|state| {
            state.observed.pid = Some(hello.pid);
            if let Some(versions) = started_with {
                state.observed.secret_versions = versions;
            }
            state.observed.container_id = container;
            if unknown && state.observed.status.phase == Phase::Pending {
                state.enter(Status::new(Phase::Starting, Reason::AwaitingProbe, "", now));
            }
        });
        let started = Instant::now();
        // Until the probe says that it would not help.
        let mut may_ask_otherwise = answered.is_none() && self.known_era.is_none();
        let mut health = Health::new(self.context.hang_wait);
        // How long of that it hung.
        let mut silence = Duration::ZERO;
        let mut probing = answered.is_none();
        if let Some(answered) = answered {
            let own = self.context.copy_of(self.desired.id).is_some();
            connection.resume(answered.handshake.clone(), own);
            self.ready(&connection, answered);
        }
        // Its paths may be slow to answer, and it serves meanwhile.
        let mut remark = Box::pin(self.ask_remark());
        let mut remarking = !probing;
        let mut probe = Box::pin(probe::probe(connection.clone(), self.desired.spec.clone(), self.known_era));
        let longest_call = Duration::from_millis(self.desired.spec.call_timeout_ms);
        let check_after = |pause, open| probe::check(connection.clone(), Check { pause, open, longest_call });
        let mut check = Box::pin(check_after(health.pause(0), None));
        let mut closed = Box::pin(closed_for(connection.clone(), CLOSED_GRACE));
        let mut drained = Box::pin(drained(Arc::clone(&self.context), connection.clone(), self.longest_drain()));
        let mut closed_seen = false;
        let mut stopping = Stopping::No;
        let mut not_ready: Option<Failure> = None;
        loop {
            tokio::select! {
                event = line.events.recv() => match event {
                    Some(ToAgent::Usage(usage)) => self.slot.state().observed.usage = Some(usage),
                    Some(ToAgent::Exited(ended)) => {
                        // What speaks HTTP says nothing there but messages.
                        if !self.speaks_http() {
                            log_rest(&connection, &mut noises, &line.commands).await;
                        }
                        line.dismiss().await;
                        if started.elapsed().saturating_sub(silence) >= RECOVERED_AFTER {
                            self.failures = 0;
                        }
                        let unspoken = may_ask_otherwise
                            && connection.handshake_result().is_none()
                            && matches!(ended.killed, None | Some(Killed::Asked));
                        return match not_ready {
                            _ if stopping == Stopping::Told => End::Asked(ended),
                            _ if stopping == Stopping::No && unspoken => End::Unspoken,
                            Some(failure) if ended.killed == Some(Killed::Asked) => End::NotReady(failure, Some(ended)),
                            _ => End::Exited(ended),
                        };
                    }
                    Some(_) => {}
                    None => return End::Lost,
                },
                Some(()) = log_noise(&mut noises, &line.commands) => {}
                result = &mut probe, if probing => {
                    probing = false;
                    match result {
                        Ok(Ready { handshake, tools, tool_names }) => {
                            let ObservedInstance { restarts, secret_versions, .. } = self.slot.observed();
                            let ready_since = self.context.clock.now();
                            let answered =
                                Answered { handshake, tools, tool_names, ready_since, restarts, secret_versions };
                            let text = format!("ready after {} ms", started.elapsed().as_millis());
                            let _ = line.commands.try_send(ToSupervisor::Log { stream: LogStream::Toolyard, text });
                            self.save_answered(&answered);
                            self.ready(&connection, answered);
                            (remark, remarking) = (Box::pin(self.ask_remark()), true);
                            health = Health::new(self.context.hang_wait);
                            check.set(check_after(health.pause(0), None));
                        }
                        // It closed its output; why, its exit says in a moment, or `closed` gives up on it.
                        Err(NotReady::Closed) => {}
                        Err(why @ (NotReady::Failed(_) | NotReady::Unspoken(_))) => {
                            may_ask_otherwise &= matches!(why, NotReady::Unspoken(_));
                            let (NotReady::Failed(failure) | NotReady::Unspoken(failure)) = why else { continue };
                            let text = format!("not ready: {}", failure.message);
                            let _ = line.commands.send(ToSupervisor::Log { stream: LogStream::Toolyard, text }).await;
                            not_ready = Some(failure);
                            // What was known of it may be what is wrong.
                            if !may_ask_otherwise {
                                self.known_era = None;
                                self.remember_plain(false);
                            }
                            let _ = line.commands.send(ToSupervisor::Stop).await;
                            closed_seen = true;
                            connection.close();
                        }
                    }
                }
                (sign, open) = &mut check, if !probing && stopping == Stopping::No && not_ready.is_none() => {
                    let verdict = self.judge(&mut health, sign);
                    if let Some(answers) = verdict {
                        let text = if answers { "it answers again" } else { STOPPED_ANSWERING }.to_owned();
                        let _ = line.commands.try_send(ToSupervisor::Log { stream: LogStream::Toolyard, text });
                    }
                    if verdict == Some(true) {
                        (remark, remarking) = (Box::pin(self.ask_remark()), true);
                    }
                    if self.context.engine_fails.load(Ordering::Relaxed) {
                        health.excuse();
                    }
                    // What was asked of it before it was taken over is not known.
                    let busy = connection.activity().busy_for.is_some() || connection.unheard_for() >= started.elapsed();
                    if let Some(hung) = health.hung_for(connection.unheard_for(), busy, longest_call) {
                        silence = hung;
                        let message = format!("it did not answer for {} s and was ended", hung.as_secs());
                        not_ready = Some(Failure { reason: Reason::ProbeFailed, message });
                        // Calls wait for the next one, as after an exit.
                        self.slot.update(|state| state.connection = None);
                        let _ = line.commands.send(ToSupervisor::Stop).await;
                        closed_seen = true;
                        connection.close();
                        continue;
                    }
                    check.set(check_after(health.pause(connection.activity().begun), open));
                }
                text = &mut remark, if remarking => {
                    remarking = false;
                    self.note_remark(text);
                }
                () = &mut closed, if !closed_seen => {
                    closed_seen = true;
                    let message = "it closed its standard output".to_owned();
                    not_ready.get_or_insert(Failure { reason: Reason::HandshakeFailed, message });
                    let _ = line.commands.send(ToSupervisor::Stop).await;
                }
                () = self.goal_changes() => {
                    if *self.goal.borrow() != Goal::Run && stopping == Stopping::No {
                        // From now on calls go elsewhere; those it has may come to their end.
                        self.slot.update(|state| state.connection = None);
                        self.set(Phase::Stopping, Reason::Requested, "");
                        (stopping, probing) = (Stopping::Draining, false);
                    }
                }
                () = &mut drained, if stopping == Stopping::Draining => {
                    let _ = line.commands.send(ToSupervisor::Stop).await;
                    (stopping, closed_seen) = (Stopping::Told, true);
                    connection.close();
                }
            }
        }
    }

    /// Notes whether servers of the revision are asked `initialize` only.
    fn remember_plain(&self, plain: bool) {
        self.context.revisions.note_plain(self.desired.revision, plain, self.context.clock.now());
    }

    fn longest_drain(&self) -> Duration {
        Duration::from_millis(self.desired.spec.call_timeout_ms).min(LONGEST_DRAIN)
    }

    async fn wait_for_exit(&self, line: &mut Line, failure: Failure) -> End {
        while let Some(event) = line.events.recv().await {
            if let ToAgent::Exited(ended) = event {
                line.dismiss().await;
                return End::NotReady(failure, Some(ended));
            }
        }
        End::NotReady(failure, None)
    }

    /// Ends a server that reaches ports of Toolyard's.
    async fn end_outdated(&self, line: &mut Line, open_ports: &[u16]) -> End {
        let ports: Vec<_> = open_ports.iter().map(u16::to_string).collect();
        let text =
            format!("it reaches port {}, which servers are kept from by now; it is started anew", ports.join(", "));
        tracing::warn!(instance.id = %self.desired.id, server.name = %self.desired.server_name, "{text}");
        let _ = line.commands.send(ToSupervisor::Log { stream: LogStream::Toolyard, text }).await;
        let _ = line.commands.send(ToSupervisor::Stop).await;
        while let Some(event) = line.events.recv().await {
            if let ToAgent::Exited(ended) = event {
                line.dismiss().await;
                return End::Outdated(ended);
            }
        }
        End::Lost
    }

    fn speaks_http(&self) -> bool {
        self.desired.spec.runtime.package().is_some_and(|package| package.http.is_some())
    }

    /// Has what a server that ended while no agent was there left unread written to the log.
    async fn log_unread(&self, streams: Streams, handed_over: u32, line: &Line) {
        let (noise, mut noises) = mpsc::channel(NOISE_BACKLOG);
        let room = self.context.room.of(self.desired.organization.as_u128());
        match streams.read_rest(options(handed_over, noise, room)) {
            Ok(connection) => log_rest(&connection, &mut noises, &line.commands).await,
            Err(error) => tracing::warn!(instance.id = %self.desired.id, %error, "read what a server wrote last"),
        }
    }

    fn ask_remark(&self) -> impl Future<Output = String> + use<> {
        let (context, desired) = (Arc::clone(&self.context), self.desired.clone());
        async move { context.remark(&desired).await }
    }

    fn note_remark(&mut self, remark: String) {
        if !remark.is_empty() {
            tracing::warn!(instance.id = %self.desired.id, server.name = %self.desired.server_name, "{remark}");
        }
        self.remark = remark;
        let status = self.slot.status();
        if status.phase == Phase::Ready && status.message != BUSY {
            self.set(Phase::Ready, Reason::Answered, &self.remark);
        }
    }

    fn ready(&mut self, connection: &Connection, answered: Answered) {
        let Answered { handshake, tools, tool_names, ready_since, restarts, .. } = answered;
        self.known_era = Some(handshake.era);
        self.was_ready = true;
        self.remark.clear();
        let now = self.context.clock.now();
        let mcp = McpInfo {
            era: handshake.era,
            protocol_version: handshake.protocol_version,
            server_name: handshake.server_name,
            server_version: handshake.server_version,
            tools,
            tool_names,
        };
        let mcp = mcp.redacted(&Redaction::of(self.desired.secrets.values()));
        self.slot.update(|state| {
            state.connection = Some(connection.clone());
            state.observed.ready_since = Some(ready_since);
            state.observed.restarts = restarts;
            state.observed.mcp = Some(mcp);
            state.observed.last_success_at = Some(now);
            state.observed.failures = 0;
            // One that was taken over has been ready since it first answered.
            let since = if state.observed.status.phase == Phase::Pending { ready_since } else { now };
            state.enter(Status::new(Phase::Ready, Reason::Answered, "", since));
        });
    }

    /// Takes a sign of how it is; says so when it stopped answering, or answers again.
    fn judge(&self, health: &mut Health, sign: Sign) -> Option<bool> {
        let verdict = health.note(sign);
        match sign {
            Sign::Busy if self.slot.status().phase == Phase::Ready => self.set(Phase::Ready, Reason::Answered, BUSY),
            Sign::Busy => {}
            Sign::Answered => {
                self.slot.note_answer(self.context.clock.now());
                if self.slot.status().message == BUSY {
                    self.set(Phase::Ready, Reason::Answered, &self.remark);
                }
            }
            Sign::Silent => {
                let failures = health.failures();
                self.slot.update(|state| state.observed.failures = failures);
            }
        }
        match verdict {
            Some(false) => self.set(Phase::Degraded, Reason::ProbeFailed, STOPPED_ANSWERING),
            Some(true) => self.set(Phase::Ready, Reason::Answered, &self.remark),
            None => {}
        }
        verdict
    }

    /// A server that was ready and comes back is degraded, not new.
    fn phase_while(&self, first: Phase) -> Phase {
        if self.was_ready { Phase::Degraded } else { first }
    }

    fn set(&self, phase: Phase, reason: Reason, message: &str) {
        let status = Status::new(phase, reason, message, self.context.clock.now());
        self.slot.update(|state| {
            if state.observed.status.differs_from(&status) {
                state.enter(status);
            }
        });
    }

    /// What a restarted agent needs to know of the instance; without secrets.
    fn save(&self) -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for (dir, mode) in [(self.dir.clone(), 0o711), (self.dir.join("logs"), 0o700), (self.dir.join("root"), 0o700)] {
            std::fs::create_dir_all(&dir)?;
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode))?;
        }
        if let Some(copy) = self.context.copy_of(self.desired.id) {
            copy.save(&self.dir)?;
        }
        let desired = DesiredInstance { secrets: BTreeMap::new(), ..self.desired.clone() };
        write_whole(&self.dir.join("instance.json"), &serde_json::to_vec(&desired)?)
    }

    /// Writes a line of our own to the log while no supervisor does.
    fn note(&self, text: &str) {
        let place = self.context.log_place(self.desired.id, &self.dir);
        Journal::open(&self.context, &place, &self.desired.secrets).write(text);
    }

    /// How often earlier agents started it again.
    fn load_restarts(&self) -> u32 {
        let counted = read_state::<u32>(&self.dir.join(RESTARTS_FILE), "its restarts are counted anew");
        // An agent of a version before that file wrote only this one.
        counted.max(self.load_answered().map(|answered| answered.restarts)).unwrap_or(0)
    }

    fn load_answered(&self) -> Option<Answered> {
        serde_json::from_slice(&std::fs::read(self.dir.join(ANSWERED_FILE)).ok()?).ok()
    }

    fn save_answered(&self, answered: &Answered) {
        let saved = serde_json::to_vec(answered)
            .map_err(std::io::Error::from)
            .and_then(|bytes| write_whole(&self.dir.join(ANSWERED_FILE), &bytes));
        if let Err(error) = saved {
            tracing::warn!(instance.id = %self.desired.id, %error, "a restarted agent will have to probe again");
        }
    }
}

/// Where lines of our own are written while no supervisor does. What cannot be written is lost.
pub(crate) struct Journal {
    log: Mutex<Option<LogWriter>>,
    clock: Clock,
}

impl Journal {
    pub(crate) fn open(context: &Context, place: &LogPlace, secrets: &BTreeMap<CredentialId, Secret>) -> Self {
        let log = LogWriter::open(&place.dir, &place.mark, secrets.values().cloned().collect());
        Self { log: Mutex::new(log.ok()), clock: context.clock.clone() }
    }

    pub(crate) fn write(&self, text: &str) {
        if let Some(log) = &mut *self.log.lock().unwrap_or_else(PoisonError::into_inner) {
            log.write(self.clock.now(), LogStream::Toolyard, text);
        }
    }
}

/// How to read and write the streams of a server, which `handed_over` agents had before.
///
/// Each gets ids of its own, however the clock was set meanwhile: a late answer to an earlier agent's call must
/// not look like one to ours. A million take-overs stay below what every JSON number keeps exactly.
fn options(handed_over: u32, noise: mpsc::Sender<Noise>, room: Room) -> Options {
    let (first_id, resumed) = (u64::from(handed_over) << 32, handed_over > 0);
    Options { first_id, resumed, noise, max_message_bytes: MAX_MESSAGE_BYTES, room }
}

/// Has what is no protocol written to the log, as fast as that takes it. May be dropped while it waits.
async fn log_noise(noises: &mut mpsc::Receiver<Noise>, commands: &mpsc::Sender<ToSupervisor>) -> Option<()> {
    let room = commands.reserve().await.ok()?;
    let (stream, text) = match noises.recv().await? {
        Noise::Line(text) => (LogStream::Stdout, text),
        Noise::Lost(count) => {
            let text = format!("lost lines of its standard output that came faster than they are written: {count}");
            (LogStream::Toolyard, text)
        }
    };
    room.send(ToSupervisor::Log { stream, text });
    Some(())
}

/// Has what a server that has ended left unread written to the log, as far as it comes soon.
async fn log_rest(connection: &Connection, noises: &mut mpsc::Receiver<Noise>, commands: &mpsc::Sender<ToSupervisor>) {
    let rest = async {
        loop {
            tokio::select! {
                biased;
                logged = log_noise(noises, commands) => if logged.is_none() { return },
                () = connection.closed() => break,
            }
        }
        while !noises.is_empty() && log_noise(noises, commands).await.is_some() {}
    };
    // Something else may hold its output open.
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
}

/// `: ` and what the server wrote last, as far as it says why it ended.
fn why(ended: &Ended) -> String {
    telling_line(&ended.stderr_tail).map_or(String::new(), |line| format!(": {line}"))
}

/// Waits until no call waits for the server any more, at most `limit`, and not at all when the agent is in a hurry.
async fn drained(context: Arc<Context>, connection: Connection, limit: Duration) {
    tokio::select! {
        () = connection.idle() => {}
        () = connection.closed() => {}
        () = context.hurry.cancelled() => {}
        () = tokio::time::sleep(limit) => tracing::info!("calls that were under way when their server was stopped end now"),
    }
}

async fn closed_for(connection: Connection, grace: Duration) {
    connection.closed().await;
    tokio::time::sleep(grace).await;
}

fn delay_after(failures: u32, failure: &Failure) -> Duration {
    let installing =
        matches!(failure.reason, Reason::PackageNotFound | Reason::ChecksumMismatch | Reason::InstallFailed);
    let first = if installing { FIRST_DELAY * 5 } else { FIRST_DELAY };
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_DELAY)
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_no_further() {
        let exited = Failure { reason: Reason::Exited, message: String::new() };
        let delays = [1, 2, 3, 4, 7, 100].map(|failures| delay_after(failures, &exited).as_secs());
        assert_eq!(delays, [1, 2, 4, 8, 60, 60]);
    }
}
