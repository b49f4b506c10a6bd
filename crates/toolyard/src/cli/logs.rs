//! `toolyard servers logs`: printed once, or followed over restarts of the server and of Toolyard.
//!
//! A log that ends is over. One that breaks off, because Toolyard stops or the network does, is asked for again and goes on
//! behind the last line that was printed of the same instance: instances write beside each other, and by the clocks of
//! their hosts. Where it begins with another instance, the rest of the one before comes first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;
use toolyard_client::ApiError;
use toolyard_types::agent::{LogLine, LogStream};
use toolyard_types::api::servers::Server;
use toolyard_types::{Code, InstanceId, Name, Timestamp};

use super::context::{Context, Failure};
use super::options;
use super::output::{self, Format, safe};
use super::wait::Pauses;

/// How long a log that is followed is asked for again after its connection was lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// A connection that lasted so long was one: the next loss is another.
const LASTED: Duration = Duration::from_secs(10);
/// All that an agent gives of what was written before.
const WHOLE: u32 = 10_000;
/// How long the rest of an instance's log may take before the next one goes on.
const REST_PATIENCE: Duration = Duration::from_secs(30);
/// Whose log an answer begins with.
const LOG_INSTANCE: &str = "toolyard-instance";

/// Which log, and how much of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The server.
    pub name: Name,
    /// Its path.
    pub server: String,
    /// How many lines from the end.
    pub tail: u32,
    /// Whether to go on as lines arrive.
    pub follow: bool,
    /// That of the instance that ended last.
    pub previous: bool,
    /// That of an instance of this revision.
    pub revision: Option<u32>,
    /// That of this instance.
    pub instance: Option<String>,
}

impl Asked {
    /// Whether it is that of one instance, and ends with it.
    fn is_chosen(&self) -> bool {
        self.previous || self.revision.is_some() || self.instance.is_some()
    }

    async fn open(&self, context: &Context, tail: u32) -> Result<reqwest::Response, ApiError> {
        let query = json!({
            "tail": tail,
            "follow": self.follow,
            "previous": self.previous.then_some(true),
            "revision": self.revision,
            "instance": self.instance,
        });
        context.client.stream(&format!("{}/logs", self.server), &query).await
    }

    /// Of a log that is not there although its server is, the name is right: where else to look is told instead.
    async fn failure(&self, context: &Context, error: ApiError) -> Failure {
        let is_missing = error.problem().is_some_and(|problem| problem.code == Code::NotFound);
        let mut failure = Failure::from(error);
        if is_missing && !self.is_gone(context).await {
            let help = options::help(Code::NotFound);
            let show = context.command(&["servers", "show", self.name.as_str()]);
            failure.details.retain(|detail| *detail != help);
            failure.details.insert(0, format!("`{show}` tells what runs of it, and why nothing else does"));
        }
        failure
    }

    async fn is_gone(&self, context: &Context) -> bool {
        let asked = context.client.get::<Server>(&self.server).await;
        asked.is_err_and(|error| error.problem().is_some_and(|problem| problem.code == Code::NotFound))
    }
}

/// Prints a log, and goes on for as long as it is followed.
pub(crate) async fn run(context: &Context, asked: &Asked) -> Result<(), Failure> {
    let mut answer = match asked.open(context, asked.tail).await {
        Ok(answer) => answer,
        Err(error) => return Err(asked.failure(context, error).await),
    };
    let mut printed = Printed::default();
    let mut lost: Option<Lost> = None;
    loop {
        let (began, before) = (Instant::now(), printed.clone());
        let end = print(context.format, answer, &before, &mut printed).await;
        if !asked.follow {
            return match end {
                End::Whole => Ok(()),
                // What was printed are lines, which no document belongs behind.
                End::Broken => Err(Failure::told("the connection broke")),
            };
        }
        // Of a log without a choice that ends while its server is there it was somebody between who ended it.
        if end == End::Whole && (asked.is_chosen() || asked.is_gone(context).await) {
            return Ok(());
        }
        if printed.count > before.count || began.elapsed() >= LASTED {
            lost = None;
        }
        let tail = printed.tail(asked.tail);
        match lost.get_or_insert_with(Lost::now).again(context, asked, tail).await? {
            Some(next) => {
                change(context, asked, instance_of(&next), &mut printed).await;
                answer = next;
            }
            None => return Ok(()),
        }
    }
}

/// Says that a log goes on with another instance than before, if it does, and prints the rest of that one first.
async fn change(context: &Context, asked: &Asked, next: Option<InstanceId>, printed: &mut Printed) {
    if next == printed.of {
        return;
    }
    let next = next.map_or_else(|| "that of a revision without one".to_owned(), |id| id.to_string());
    // What was done before there was an instance has no log to choose.
    let Some(before) = printed.of else {
        eprintln!("toolyard: the log goes on with an instance, {next}; what came before it is left out");
        return;
    };
    eprintln!(
        "toolyard: the log goes on with another instance, {next}; the rest of instance {before}, as far as it is written, \
         comes first, and instances between the two are left out: `--instance ID` shows one"
    );
    let (instance, tail) = (Some(before.to_string()), printed.tail(asked.tail));
    let rest = Asked { follow: false, previous: false, revision: None, instance, ..asked.clone() };
    let known = printed.clone();
    let read = async {
        match rest.open(context, tail).await {
            Ok(answer) => print(context.format, answer, &known, printed).await,
            Err(_) => End::Broken,
        }
    };
    if tokio::time::timeout(REST_PATIENCE, read).await != Ok(End::Whole) {
        eprintln!("toolyard: the rest of instance {before} cannot be read now");
    }
}

fn instance_of(answer: &reqwest::Response) -> Option<InstanceId> {
    answer.headers().get(LOG_INSTANCE)?.to_str().ok()?.parse().ok()
}

/// A connection that was lost, until there is another one that lasts.
struct Lost {
    until: Instant,
    pauses: Pauses,
}

impl Lost {
    fn now() -> Self {
        // Told where lines are not, for whoever waits for them: also where nobody watches.
        let seconds = PATIENCE.as_secs();
        eprintln!("toolyard: the connection to the log was lost; asking for it again for {seconds} s");
        Self { until: Instant::now() + PATIENCE, pauses: Pauses::new() }
    }

    /// Asks again until there is an answer; none when the server is gone.
    async fn again(
        &mut self,
        context: &Context,
        asked: &Asked,
        tail: u32,
    ) -> Result<Option<reqwest::Response>, Failure> {
        loop {
            self.pauses.pause().await;
            let error = match asked.open(context, tail).await {
                Ok(answer) if Instant::now() <= self.until => return Ok(Some(answer)),
                Ok(_) => return Err(Failure::told("the connection to the log is lost again and again")),
                Err(error) => error,
            };
            if error.problem().is_some_and(|problem| problem.code == Code::NotFound) && asked.is_gone(context).await {
                return Ok(None);
            }
            if !may_pass(&error) || Instant::now() > self.until {
                let failure = Failure::from(error);
                let message = format!("the connection to the log was lost: {}", failure.message);
                return Err(Failure { message, is_told: true, ..failure });
            }
        }
    }
}

/// Whether asking again may help: Toolyard or a proxy is away, or the toolbox with the log is not back yet.
fn may_pass(error: &ApiError) -> bool {
    match error.problem() {
        Some(problem) => problem.status >= 500 || matches!(problem.code, Code::RateLimited | Code::NotFound),
        None => true,
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

async fn print(format: Format, answer: reqwest::Response, before: &Printed, printed: &mut Printed) -> End {
    printed.of = instance_of(&answer);
    let mut chunks = answer.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else { return End::Broken };
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let parsed = serde_json::from_slice::<LogLine>(&line).ok();
            if printed.takes(before, parsed.as_ref(), &line) {
                print_line(format, parsed.as_ref(), &line);
            }
        }
    }
    End::Whole
}

/// What was printed last of each instance: a log that is read again begins before it.
#[derive(Clone, Debug, Default)]
struct Printed {
    count: u64,
    /// Whose lines come now; none for what was done before there was an instance.
    of: Option<InstanceId>,
    last: BTreeMap<Option<InstanceId>, Last>,
}

/// The last moment of which lines were printed.
#[derive(Clone, Debug)]
struct Last {
    at: Timestamp,
    /// The lines of that moment, as they came.
    known: Vec<Vec<u8>>,
}

impl Printed {
    /// How much is asked for again: all, to go on behind the last line, once there was one.
    fn tail(&self, asked: u32) -> u32 {
        if self.count == 0 { asked } else { WHOLE }
    }

    /// Notes a line, if it comes behind what was printed `before` this connection.
    fn takes(&mut self, before: &Self, parsed: Option<&LogLine>, line: &[u8]) -> bool {
        // Between two logs, and in neither.
        if let Some(next) = parsed.and_then(|line| line.instance) {
            self.of = Some(next);
            self.count += 1;
            return true;
        }
        let at = parsed.map(|line| line.at);
        let is_known = |at: Timestamp, last: &Last| {
            at < last.at || (at == last.at && last.known.iter().any(|known| known == line))
        };
        if let Some(at) = at
            && before.last.get(&self.of).is_some_and(|last| is_known(at, last))
        {
            return false;
        }
        self.count += 1;
        if let Some(at) = at {
            let last = self.last.entry(self.of).or_insert_with(|| Last { at, known: Vec::new() });
            if last.at != at {
                last.known.clear();
            }
            last.at = at;
            last.known.push(line.to_vec());
        }
        true
    }
}

fn print_line(format: Format, parsed: Option<&LogLine>, line: &[u8]) {
    match parsed {
        Some(line) if format == Format::Table => {
            let stream = match line.stream {
                LogStream::Stderr => "stderr",
                LogStream::Stdout => "stdout",
                LogStream::Toolyard => "toolyard",
            };
            output::print_line(&format!("{}  {stream:8}  {}", line.at, safe(&line.text)));
        }
        _ => output::print_line(String::from_utf8_lossy(line).trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ms: i64, text: &str) -> Vec<u8> {
        let line = LogLine { at: Timestamp::from_ms(ms), stream: LogStream::Stderr, text: text.into(), instance: None };
        [serde_json::to_vec(&line).expect("JSON"), b"\n".to_vec()].concat()
    }

    /// Which of these lines are printed on one connection.
    fn read(printed: &mut Printed, lines: &[(i64, &str)]) -> Vec<String> {
        let before = printed.clone();
        let mut shown = Vec::new();
        for (ms, text) in lines {
            let line = line(*ms, text);
            let parsed = serde_json::from_slice::<LogLine>(&line).ok();
            if printed.takes(&before, parsed.as_ref(), &line) {
                shown.push((*text).to_owned());
            }
        }
        shown
    }

    #[test]
    fn a_log_that_is_read_again_goes_on_behind_its_last_line() {
        let mut printed = Printed::default();
        let first = [(1, "a"), (2, "b"), (2, "b"), (2, "c")];
        assert_eq!(read(&mut printed, &first), ["a", "b", "b", "c"], "what repeats on one connection is printed");
        let again = [(0, "before"), (1, "a"), (2, "b"), (2, "b"), (2, "c"), (2, "d"), (3, "e")];
        assert_eq!(read(&mut printed, &again), ["d", "e"]);
        assert_eq!(read(&mut printed, &again), Vec::<String>::new());
        assert_eq!(read(&mut printed, &[(3, "e"), (4, "f")]), ["f"]);
        // What is no line of a log has no place in it.
        assert!(printed.takes(&printed.clone(), None, b"half a line\n"));
        assert_eq!(read(&mut printed, &[(4, "f"), (5, "g")]), ["g"]);
    }

    /// The lines of a connection that begins with an instance.
    fn read_of(printed: &mut Printed, of: InstanceId, lines: &[(i64, &str)]) -> Vec<String> {
        printed.of = Some(of);
        read(printed, lines)
    }

    #[test]
    fn a_reconnect_that_begins_with_another_instance_drops_no_line_of_it() {
        let (old, new) = (InstanceId::generate(), InstanceId::generate());
        let mut printed = Printed::default();
        assert_eq!(read_of(&mut printed, old, &[(5, "a"), (10, "b")]), ["a", "b"]);
        // It was started beside the other, or its host's clock is behind.
        assert_eq!(read_of(&mut printed, new, &[(1, "c"), (7, "d"), (10, "e")]), ["c", "d", "e"]);
        let rest = [(5, "a"), (10, "b"), (11, "f")];
        assert_eq!(read_of(&mut printed, old, &rest), ["f"], "each goes on behind its own last line");
        assert_eq!(read_of(&mut printed, new, &[(7, "d"), (10, "e"), (12, "g")]), ["g"]);
    }

    #[test]
    fn a_connection_that_breaks_right_behind_the_line_between_two_logs_loses_nothing_of_the_second() {
        let (old, new) = (InstanceId::generate(), InstanceId::generate());
        let mut printed = Printed::default();
        assert_eq!(read_of(&mut printed, old, &[(5, "a")]), ["a"]);
        // By the control plane's clock, which is ahead of the toolbox's.
        let between = LogLine {
            at: Timestamp::from_ms(100),
            stream: LogStream::Toolyard,
            text: "-- goes on with the next instance".into(),
            instance: Some(new),
        };
        let bytes = serde_json::to_vec(&between).expect("JSON");
        assert!(printed.takes(&printed.clone(), Some(&between), &bytes));
        assert_eq!((printed.of, printed.tail(3)), (Some(new), WHOLE));
        assert_eq!(read_of(&mut printed, new, &[(6, "b"), (7, "c")]), ["b", "c"]);
        assert_eq!((printed.count, Printed::default().tail(3)), (4, 3));
    }

    #[test]
    fn what_may_pass_is_asked_again_and_a_refusal_is_not() {
        let problem = |code| ApiError::Problem(Box::new(toolyard_types::Problem::new(code, "no")));
        for code in [Code::ServerNotReady, Code::UpstreamFailed, Code::ShuttingDown, Code::RateLimited, Code::NotFound]
        {
            assert!(may_pass(&problem(code)), "{code:?}");
        }
        for code in [Code::Unauthenticated, Code::Forbidden, Code::ValidationFailed, Code::Conflict] {
            assert!(!may_pass(&problem(code)), "{code:?}");
        }
        let status = reqwest::StatusCode::BAD_GATEWAY;
        assert!(may_pass(&ApiError::NotToolyard { url: "http://t.example".into(), status }), "a proxy answers");
    }
}
