//! Looks at paths of this host, each by a process of its own and for a limited time.
//!
//! A file system may never answer: a network's whose server is away, or a FUSE whose program hangs. Who asks it waits in
//! the kernel, perhaps beyond any signal, and a thread that does keeps its whole process, with what that listens on and
//! has locked. So whatever a deployment names is looked at by a supervisor process that has nothing of ours, and that is
//! left alone when it does not answer. Of those that hang there is one for each path, and there are few for each
//! organization and, once many hang, at most one: nobody's retries pile up, and what hangs costs others nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use toolyard_types::OrganizationId;

use crate::grants::{Answer, Question};
use crate::process::wire::{Incoming, Order, ToAgent};

/// How long a path may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long is waited for a place among those that look.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Looks of one organization, and of all, at once. Those that hang count. Half of the places are for organizations that
/// have none: eight whose paths all hang take none from others.
const MOST_OF_ONE: usize = 4;
const MOST: usize = 64;

/// Why nothing is known of a path.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// It does not answer.
    Hangs,
    /// So many others do not that it is not looked at.
    TooMany,
    /// So many others were looked at that there was no place in time.
    Late,
    /// Nobody could look.
    Broke(io::Error),
}

/// Starts them, and knows which are under way.
#[derive(Clone, Debug)]
pub(crate) struct Looks {
    program: PathBuf,
    patience: Duration,
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    looks: Mutex<BTreeMap<PathBuf, Look>>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Look {
    of: Option<OrganizationId>,
    hangs: bool,
}

impl Looks {
    /// `program` is one whose `supervise` argument runs [`crate::supervise::main`].
    pub(crate) fn new(program: PathBuf, patience: Duration) -> Self {
        let table = Table { looks: Mutex::default(), changed: watch::Sender::new(()) };
        Self { program, patience, table: Arc::new(table) }
    }

    /// Asks something about a path, for an organization if it is one's wish. At most one asks about a path at a time.
    ///
    /// # Errors
    /// When there is no answer in time, or nobody to ask.
    pub(crate) async fn ask(
        &self,
        path: &Path,
        of: Option<OrganizationId>,
        question: Question,
    ) -> Result<Answer, NoAnswer> {
        let place = tokio::time::timeout(LONGEST_WAIT, Table::begin(&self.table, path, of)).await;
        let mark = place.unwrap_or(Err(NoAnswer::Late))?;
        let (program, patience) = (self.program.clone(), self.patience);
        // A task of its own: whoever asked may wait no longer, and what hangs is to be known all the same.
        let asked = tokio::spawn(async move { ask(&program, patience, question, mark).await });
        asked.await.unwrap_or_else(|error| Err(NoAnswer::Broke(io::Error::other(error))))
    }
}

async fn ask(program: &Path, patience: Duration, question: Question, mark: Mark) -> Result<Answer, NoAnswer> {
    let (child, stream) = start(program, &mark.path).map_err(NoAnswer::Broke)?;
    let answered = tokio::time::timeout(patience, converse(stream, Order::Look(question))).await;
    let answer = match answered {
        Ok(told) => told.map_err(NoAnswer::Broke),
        Err(_) => {
            mark.hangs();
            Err(NoAnswer::Hangs)
        }
    };
    tokio::spawn(end(child, mark));
    answer
}

/// Ends it, which what hangs may not hear until its file system answers.
async fn end(mut child: Child, mark: Mark) {
    // It may have ended already.
    let _ = child.start_kill();
    let _ = child.wait().await;
    drop(mark);
}

fn start(program: &Path, path: &Path) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let child = Command::new(program)
        .arg("supervise")
        .env_clear()
        // For a person who finds one that hangs.
        .env("TOOLYARD_LOOKS_AT", path)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, ours))
}

async fn converse(stream: UnixStream, order: Order) -> io::Result<Answer> {
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    let mut line = serde_json::to_vec(&order)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut incoming = Incoming::default();
    let mut chunk = vec![0_u8; 16 << 10];
    loop {
        match incoming.next::<ToAgent>()? {
            Some(ToAgent::Looked(answer)) => return Ok(answer),
            Some(other) => return Err(io::Error::other(format!("the supervisor answered {other:?}"))),
            None => {}
        }
        match stream.read(&mut chunk).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => incoming.push(&chunk[..count])?,
        }
    }
}

impl Table {
    /// Waits for a place.
    async fn begin(table: &Arc<Self>, path: &Path, of: Option<OrganizationId>) -> Result<Mark, NoAnswer> {
        let mut changed = table.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if Self::enter(table, path, of)? {
                return Ok(Mark { table: Arc::clone(table), path: path.to_owned() });
            }
            // Each that holds a place leaves it, or is known to hang, in a moment.
            if changed.changed().await.is_err() {
                return Err(NoAnswer::Broke(io::Error::other("the agent ends")));
            }
        }
    }

    /// Takes a place, if there is one now.
    fn enter(table: &Self, path: &Path, of: Option<OrganizationId>) -> Result<bool, NoAnswer> {
        let mut looks = table.looks();
        match looks.get(path) {
            Some(look) if look.hangs => return Err(NoAnswer::Hangs),
            Some(_) => return Ok(false),
            None => {}
        }
        let is_full = |hanging: bool| {
            let counted = || looks.values().filter(|look| look.hangs || !hanging);
            let all = counted().count();
            let most_of_one = if all < MOST / 2 { MOST_OF_ONE } else { 1 };
            all >= MOST || counted().filter(|look| look.of == of).count() >= most_of_one
        };
        if is_full(true) {
            return Err(NoAnswer::TooMany);
        }
        if is_full(false) {
            return Ok(false);
        }
        looks.insert(path.to_owned(), Look { of, hangs: false });
        Ok(true)
    }

    /// A poisoned lock means a panic between two whole changes.
    fn looks(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Look>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That a path is looked at.
#[derive(Debug)]
struct Mark {
    table: Arc<Table>,
    path: PathBuf,
}

impl Mark {
    fn hangs(&self) {
        tracing::warn!(path = %self.path.display(), "a path of this host does not answer; its file system hangs");
        if let Some(look) = self.table.looks().get_mut(&self.path) {
            look.hangs = true;
        }
        self.table.changed.send_replace(());
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.table.looks().remove(&self.path);
        self.table.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn table() -> Arc<Table> {
        Arc::clone(&Looks::new("/no/such/program".into(), PATIENCE).table)
    }

    async fn begin(table: &Arc<Table>, path: &str, of: OrganizationId) -> Result<Mark, NoAnswer> {
        let soon = Duration::from_secs(30);
        tokio::time::timeout(soon, Table::begin(table, Path::new(path), Some(of))).await.expect("there is a place")
    }

    #[tokio::test]
    async fn a_path_that_hangs_is_not_looked_at_again_until_its_look_has_ended() {
        let (table, one) = (table(), OrganizationId::generate());
        let first = begin(&table, "/srv/hang", one).await.expect("a place");
        assert!(!Table::enter(&table, Path::new("/srv/hang"), Some(one)).expect("nothing hangs yet"));
        first.hangs();
        assert!(matches!(begin(&table, "/srv/hang", one).await, Err(NoAnswer::Hangs)));
        assert!(matches!(begin(&table, "/srv/hang", OrganizationId::generate()).await, Err(NoAnswer::Hangs)));
        begin(&table, "/srv/good", one).await.expect("another path is looked at");
        drop(first);
        begin(&table, "/srv/hang", one).await.expect("it is looked at again");
    }

    #[tokio::test]
    async fn what_hangs_for_one_organization_takes_no_place_of_another() {
        let (table, one) = (table(), OrganizationId::generate());
        let mut hanging = Vec::new();
        for number in 0..MOST_OF_ONE {
            hanging.push(begin(&table, &format!("/srv/hang/{number}"), one).await.expect("a place"));
        }
        assert!(!Table::enter(&table, Path::new("/srv/more"), Some(one)).expect("nothing hangs yet"));
        hanging.iter().for_each(Mark::hangs);
        assert!(matches!(begin(&table, "/srv/more", one).await, Err(NoAnswer::TooMany)));
        begin(&table, "/srv/more", OrganizationId::generate()).await.expect("others are looked for");
        hanging.pop();
        begin(&table, "/srv/more", one).await.expect("there is a place again");
    }

    #[tokio::test]
    async fn however_many_organizations_there_are_only_so_many_looks_hang() {
        let table = table();
        let mut hanging = Vec::new();
        for number in 0..MOST {
            let mark = begin(&table, &format!("/srv/hang/{number}"), OrganizationId::generate()).await;
            hanging.push(mark.expect("a place"));
        }
        hanging.iter().for_each(Mark::hangs);
        assert!(matches!(begin(&table, "/srv/more", OrganizationId::generate()).await, Err(NoAnswer::TooMany)));
    }

    #[tokio::test]
    async fn organizations_whose_paths_all_hang_leave_a_place_to_each_that_has_none_that_hangs() {
        let table = table();
        let mut hanging = Vec::new();
        for organization in 0..MOST / 2 / MOST_OF_ONE {
            let of = OrganizationId::generate();
            for number in 0..MOST_OF_ONE {
                let mark = begin(&table, &format!("/srv/hang/{organization}/{number}"), of).await.expect("a place");
                mark.hangs();
                hanging.push(mark);
            }
        }
        let other = OrganizationId::generate();
        let first = begin(&table, "/srv/more", other).await.expect("it has none that hangs");
        assert!(!Table::enter(&table, Path::new("/srv/next"), Some(other)).expect("it waits for its place"));
        drop(first);
        let hangs = begin(&table, "/srv/next", other).await.expect("one after the other");
        hangs.hangs();
        assert!(matches!(begin(&table, "/srv/more", other).await, Err(NoAnswer::TooMany)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_for_a_place_is_not_told_that_file_systems_hang() {
        let looks = Looks::new("/no/such/program".into(), PATIENCE);
        let path = Path::new("/srv");
        let _looked_at = begin(&looks.table, "/srv", OrganizationId::generate()).await.expect("a place");
        assert!(matches!(looks.ask(path, None, Question::LeadsTo(path.into())).await, Err(NoAnswer::Late)));
    }

    #[tokio::test]
    async fn who_does_not_answer_in_time_is_given_up_and_its_path_is_free_once_it_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("silent");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("made a program");
        let looks = Looks::new(program, Duration::from_millis(100));
        let path = Path::new("/srv/hang");
        let answer = looks.ask(path, None, Question::LeadsTo(path.into())).await;
        assert!(matches!(answer, Err(NoAnswer::Hangs)), "{answer:?}");
        let mut changed = looks.table.changed.subscribe();
        let gone = async {
            while !looks.table.looks().is_empty() {
                changed.changed().await.expect("the table is there");
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("it was ended");
    }

    #[tokio::test]
    async fn a_look_that_cannot_be_started_says_so_and_holds_no_place() {
        let looks = Looks::new("/no/such/program".into(), PATIENCE);
        let path = Path::new("/srv");
        assert!(matches!(looks.ask(path, None, Question::LeadsTo(path.into())).await, Err(NoAnswer::Broke(_))));
        assert!(looks.table.looks().is_empty());
    }
}
