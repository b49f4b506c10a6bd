use super::*;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};

const LONG: Duration = Duration::from_secs(20);
const LEGACY_RESULT: &str = r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"old","version":"1.0"},"x":1.0}"#;
const MODERN_RESULT: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28","2025-11-25"],"capabilities":{"tools":{"listChanged":true}},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"new","version":"2.0"}}}"#;

/// The server's side of a connection, driven line by line by the test.
struct Server {
    lines: tokio::io::Lines<BufReader<ReadHalf<DuplexStream>>>,
    out: WriteHalf<DuplexStream>,
}

impl Server {
    async fn line(&mut self) -> String {
        tokio::time::timeout(LONG, self.lines.next_line()).await.expect("in time").unwrap().expect("open")
    }

    async fn read(&mut self) -> Message {
        Message::parse(Bytes::from(self.line().await)).unwrap()
    }

    async fn write(&mut self, line: impl AsRef<[u8]>) {
        self.out.write_all(line.as_ref()).await.unwrap();
        self.out.write_all(b"\n").await.unwrap();
    }

    async fn answer(&mut self, request: &Message, result: &str) {
        self.write(envelope::result(request.raw_id().unwrap(), result)).await;
    }
}

fn open(max_message_bytes: usize) -> (Connection, Server, mpsc::Receiver<Noise>) {
    open_with(max_message_bytes, Room::default())
}

fn open_with(max_message_bytes: usize, room: Room) -> (Connection, Server, mpsc::Receiver<Noise>) {
    open_after(false, max_message_bytes, room)
}

/// A connection to a server that somebody else used before.
fn take_over(own: bool) -> (Connection, Server, mpsc::Receiver<Noise>) {
    let (connection, server, noises) = open_after(true, MAX_MESSAGE_BYTES, Room::default());
    connection.resume(Handshake::from_initialize(bytes(LEGACY_RESULT)).unwrap(), own);
    (connection, server, noises)
}

fn open_after(resumed: bool, max_message_bytes: usize, room: Room) -> (Connection, Server, mpsc::Receiver<Noise>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (stdout, stdin) = tokio::io::split(ours);
    let (input, out) = tokio::io::split(theirs);
    let (noise, noises) = mpsc::channel(16);
    let options = Options { first_id: 100, resumed, noise, max_message_bytes, room };
    let connection = Connection::open(stdout, stdin, options);
    (connection, Server { lines: BufReader::new(input).lines(), out }, noises)
}

fn text(message: Option<Result<Bytes, CallError>>) -> String {
    String::from_utf8(message.expect("a message").expect("no error").to_vec()).unwrap()
}

fn line(text: &str) -> Noise {
    Noise::Line(text.to_owned())
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn next(stream: &mut Stream) -> Option<Result<Bytes, CallError>> {
    tokio::time::timeout(LONG, stream.next()).await.expect("in time")
}

#[tokio::test]
async fn a_result_arrives_byte_for_byte_under_the_callers_own_id() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let params = r#"{"name":"t","arguments":{"z":1.0,"a":1234567890123456789012345678901234567890},"later":[ 1 ]}"#;
    let mut stream = connection
        .send(Bytes::from(format!(r#"{{"jsonrpc":"2.0", "id":1.0,"method":"tools/call","params":{params}}}"#)))
        .unwrap();
    let request = server.read().await;
    assert_eq!(request.payload().unwrap(), params);
    let result = r#"{"unknown":true,"content":[],"n":1234567890123456789012345678901234567890,"f":1.0}"#;
    server.answer(&request, result).await;
    assert_eq!(text(next(&mut stream).await), format!(r#"{{"jsonrpc":"2.0","id":1.0,"result":{result}}}"#));
    assert!(next(&mut stream).await.is_none());
}

#[tokio::test]
async fn two_callers_with_equal_ids_and_tokens_do_not_mix() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let call = |name: &str, token: &str| {
        bytes(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","_meta":{{"progressToken":{token}}}}}}}"#
        ))
    };
    let mut first = connection.send(call("a", "\"p\"")).unwrap();
    let mut second = connection.send(call("b", "7.0")).unwrap();
    let (a, b) = (server.read().await, server.read().await);
    for (request, name) in [(&b, "b"), (&a, "a")] {
        let token = request.text(request.progress_token().unwrap().unwrap()).to_owned();
        server.write(format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progress":1,"progressToken":{token}}}}}"#)).await;
        server.answer(request, &format!(r#"{{"from":"{name}"}}"#)).await;
    }
    let progress = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progress":1,"progressToken":{token}}}}}"#
        )
    };
    assert_eq!(text(next(&mut first).await), progress("\"p\""));
    assert_eq!(text(next(&mut first).await), r#"{"jsonrpc":"2.0","id":1,"result":{"from":"a"}}"#);
    assert_eq!(text(next(&mut second).await), progress("7.0"));
    assert_eq!(text(next(&mut second).await), r#"{"jsonrpc":"2.0","id":1,"result":{"from":"b"}}"#);
}

fn call(id: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":"{id}","method":"tools/call","params":{{"_meta":{{"progressToken":1}}}}}}"#
    ))
}

/// Which request a cancellation is for.
fn cancelled(message: &Message) -> String {
    assert_eq!(message.method(), "notifications/cancelled");
    let params = message.payload_object().unwrap();
    message.text(params.get("requestId").unwrap().unwrap()).to_owned()
}

#[tokio::test]
async fn dropping_a_stream_cancels_at_the_server_with_its_id_once_the_server_has_taken_it_up() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let stream = connection.send(call("mine")).unwrap();
    let request = server.read().await;
    drop(stream);
    let sign = server.read().await;
    assert_eq!(sign.method(), "ping");
    server.answer(&sign, "{}").await;
    assert_eq!(cancelled(&server.read().await), request.raw_id().unwrap());
}

#[tokio::test]
async fn a_call_that_has_said_something_or_that_a_later_answer_followed_is_cancelled_at_once() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let mut telling = connection.send(call("telling")).unwrap();
    let request = server.read().await;
    let id = request.raw_id().unwrap();
    let progress = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{id},"progress":1}}}}"#
    );
    server.write(progress).await;
    next(&mut telling).await;
    drop(telling);
    assert_eq!(cancelled(&server.read().await), id);
    let earlier = connection.send(call("earlier")).unwrap();
    let request = server.read().await;
    connection.request_is_taken(&mut server).await;
    drop(earlier);
    assert_eq!(cancelled(&server.read().await), request.raw_id().unwrap());
}

#[tokio::test]
async fn calls_given_up_while_the_server_is_held_up_are_never_told_when_it_answers_them_after_all() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let mut holding = connection.send(call("holding")).unwrap();
    let given_up: Vec<_> = (0..3).map(|n| connection.send(call(&n.to_string())).unwrap()).collect();
    drop(given_up);
    let held_up = server.read().await;
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(server.read().await);
    }
    // One sign is asked for, however many wait for it.
    let sign = server.read().await;
    assert_eq!(sign.method(), "ping");
    server.answer(&held_up, "{}").await;
    text(next(&mut holding).await);
    for request in &requests[..2] {
        server.answer(request, "{}").await;
    }
    server.answer(&sign, "{}").await;
    assert_eq!(cancelled(&server.read().await), requests[2].raw_id().unwrap());
    connection.request_is_taken(&mut server).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_connection_asks_for_itself_is_never_cancelled_and_may_be_waited_for_again() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let mut asked = connection.begin_request("ping", None).unwrap();
    let request = server.read().await;
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::from_secs(1), asked.result()).await.is_err());
    }
    let late = connection.request("ping", None, Duration::from_secs(1)).await;
    assert_eq!(late, Err(CallError::Timeout(Duration::from_secs(1))));
    assert_eq!(server.read().await.method(), "ping");
    server.answer(&request, "{}").await;
    assert_eq!(asked.result().await, Ok(bytes("{}")));
    connection.request_is_taken(&mut server).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_is_busy_from_the_first_call_it_does_not_answer_until_it_is_heard() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    assert_eq!(connection.activity().busy_for, None);
    let mut last = None;
    for n in 0..4 {
        // Each is given up before the next: it is one and the same silence.
        drop(last.take());
        last = Some(connection.send(call(&n.to_string())).unwrap());
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    drop(last);
    tokio::time::advance(Duration::from_secs(1)).await;
    let activity = connection.activity();
    assert_eq!((activity.awaited, activity.busy_for), (0, Some(Duration::from_secs(5))));
    server.read().await;
    server.write(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#).await;
    connection.unsolicited().recv().await.unwrap();
    assert_eq!(connection.activity().busy_for, None);
}

#[tokio::test]
async fn a_callers_own_cancellation_reaches_the_server_under_its_id_and_ends_the_call() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let mut stream = connection.send(bytes(r#"{"jsonrpc":"2.0","id":"mine","method":"tools/call"}"#)).unwrap();
    let request = server.read().await;
    connection.request_is_taken(&mut server).await;
    connection
        .send(bytes(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"mine"}}"#))
        .unwrap();
    assert!(server.line().await.contains(&format!(r#""requestId":{}"#, request.raw_id().unwrap())));
    assert_eq!(next(&mut stream).await, Some(Err(CallError::Cancelled)));
}

#[tokio::test]
async fn a_cancellation_under_a_calls_name_ends_that_one_of_several_with_one_id_and_carries_its_reason() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let from = |call| MessageContext { caller: A, share: A, call: Some(call) };
    let (mut stays, mut ends) =
        (connection.send_from(from(1), call("same")).unwrap(), connection.send_from(from(2), call("same")).unwrap());
    let (first, second) = (server.read().await, server.read().await);
    connection.request_is_taken(&mut server).await;
    for name in [3, 2] {
        connection.send_from(from(name), envelope::cancelled("\"same\"", "enough \"now\"")).unwrap();
    }
    let told = server.read().await;
    assert_eq!(cancelled(&told), second.raw_id().unwrap());
    assert_eq!(told.payload_string("reason").unwrap().unwrap(), "enough \"now\"");
    assert_eq!(next(&mut ends).await, Some(Err(CallError::Cancelled)));
    server.answer(&first, "{}").await;
    text(next(&mut stays).await);
}

#[tokio::test]
async fn a_server_is_told_why_a_call_is_given_up_when_who_gives_it_up_says_so() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    for why in [Some(CancelReason::DEADLINE_PASSED), None] {
        let stream = connection.send(call("mine")).unwrap();
        server.read().await;
        connection.request_is_taken(&mut server).await;
        match why {
            Some(why) => stream.give_up(why),
            None => drop(stream),
        }
        let told = server.read().await;
        assert_eq!(told.payload_string("reason").unwrap().unwrap(), why.unwrap_or("the caller went away"));
    }
}

#[tokio::test]
async fn noise_is_kept_apart_and_never_answered() {
    let (connection, mut server, mut noise) = open(MAX_MESSAGE_BYTES);
    let mut stream = connection.send(bytes(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#)).unwrap();
    let request = server.read().await;
    server.write("Listening on stdio").await;
    server.write([0xff, 0xfe]).await;
    server.write("{\"a\":1}").await;
    server.answer(&request, "{}").await;
    assert_eq!(text(next(&mut stream).await), r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert_eq!(noise.recv().await.unwrap(), line("Listening on stdio"));
    assert_eq!(noise.recv().await.unwrap(), line("\u{fffd}\u{fffd}"));
    assert_eq!(noise.recv().await.unwrap(), line("{\"a\":1}"));
    connection.close();
    assert_eq!(server.lines.next_line().await.unwrap(), None);
}

#[tokio::test]
async fn an_answer_of_100_mb_fails_its_call_and_the_next_one_works() {
    let (connection, mut server, _noise) = open(1 << 20);
    for id_first in [true, false] {
        let mut big = connection.send(bytes(r#"{"jsonrpc":"2.0","id":1,"method":"big"}"#)).unwrap();
        let mut other = connection.send(bytes(r#"{"jsonrpc":"2.0","id":2,"method":"other"}"#)).unwrap();
        let (request, second) = (server.read().await, server.read().await);
        let id = request.raw_id().unwrap().to_owned();
        let (head, tail) = if id_first {
            (format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"text":""#), "\"}}".to_owned())
        } else {
            (r#"{"result":{"text":""#.to_owned(), format!(r#""}},"jsonrpc":"2.0","id":{id}}}"#))
        };
        server.out.write_all(head.as_bytes()).await.unwrap();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            server.out.write_all(&chunk).await.unwrap();
        }
        server.write(tail).await;
        assert_eq!(next(&mut big).await, Some(Err(CallError::TooLong { limit_bytes: 1 << 20 })));
        server.answer(&second, "{}").await;
        assert_eq!(text(next(&mut other).await), r#"{"jsonrpc":"2.0","id":2,"result":{}}"#);
    }
}

#[tokio::test]
async fn a_caller_that_does_not_read_loses_notifications_but_not_its_response() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let mut stream = connection
        .send(bytes(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"progressToken":1}}}"#))
        .unwrap();
    let request = server.read().await;
    let id = request.raw_id().unwrap().to_owned();
    for n in 0..3 * CALL_BACKLOG {
        server.write(format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{id},"progress":{n}}}}}"#)).await;
    }
    server.answer(&request, "{}").await;
    connection.request_is_taken(&mut server).await;
    let mut seen = 0;
    while let Some(message) = next(&mut stream).await {
        seen += 1;
        if text(Some(message)).contains("result") {
            break;
        }
    }
    assert_eq!(seen, CALL_BACKLOG + 1);
}

/// Room for so many bytes of each caller.
fn room(most: usize) -> Room {
    struct Taken(Arc<Mutex<std::collections::HashMap<Caller, usize>>>, Caller, usize);
    impl Drop for Taken {
        fn drop(&mut self) {
            *self.0.lock().unwrap().get_mut(&self.1).unwrap() -= self.2;
        }
    }
    let taken = Arc::new(Mutex::new(std::collections::HashMap::new()));
    Room::new(Arc::new(move |account, bytes| {
        let caller = account.caller;
        let mut all = taken.lock().unwrap();
        let own = all.entry(caller).or_insert(0);
        (*own + bytes <= most).then(|| {
            *own += bytes;
            Box::new(Taken(taken.clone(), caller, bytes)) as crate::Held
        })
    }))
}

#[tokio::test]
async fn a_caller_that_reads_nothing_fills_its_own_room_and_is_told_so() {
    let (connection, mut server, _noise) = open_with(MAX_MESSAGE_BYTES, room(50 << 10));
    let long = |n: u8| format!(r#"{{"text":"{}"}}"#, char::from(b'a' + n).to_string().repeat(20 << 10));
    let (greedy, other) = (Caller::Principal(Principal(1)), Caller::Principal(Principal(2)));
    let mut unread: Vec<_> = (0..3).map(|n| connection.send_for(greedy, call(&n.to_string())).unwrap()).collect();
    for n in 0..3 {
        let request = server.read().await;
        server.answer(&request, &long(n)).await;
    }
    let mut stream = connection.send_for(other, call("o")).unwrap();
    let request = server.read().await;
    server.answer(&request, &long(9)).await;
    assert!(text(next(&mut stream).await).contains("jjj"), "another caller has room");
    assert_eq!(next(&mut unread[2]).await, Some(Err(CallError::NoRoom)));
    let kept = text(next(&mut unread[0]).await);
    assert!(kept.contains("aaa"));
    drop((kept, unread));
    let mut stream = connection.send_for(greedy, call("again")).unwrap();
    loop {
        let request = server.read().await;
        if request.method() == "tools/call" {
            server.answer(&request, &long(4)).await;
            break;
        }
    }
    assert!(text(next(&mut stream).await).contains("eee"), "what was read is given back");
}

impl Connection {
    /// Returns once everything the server has written so far was read.
    async fn request_is_taken(&self, server: &mut Server) {
        let mut stream = self.send(bytes(r#"{"jsonrpc":"2.0","id":"fence","method":"fence"}"#)).unwrap();
        let request = server.read().await;
        server.answer(&request, "{}").await;
        next(&mut stream).await;
    }
}

#[tokio::test]
async fn a_legacy_server_is_recognised_by_any_error_and_initialized() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let script = async {
        let probe = server.read().await;
        assert_eq!(probe.method(), "server/discover");
        server.write(envelope::error(probe.raw_id(), -32001, "not initialized", None)).await;
        let initialize = server.read().await;
        assert_eq!(initialize.method(), "initialize");
        server.answer(&initialize, LEGACY_RESULT).await;
        assert_eq!(server.read().await.method(), "notifications/initialized");
    };
    let (handshake, ()) = tokio::join!(connection.handshake(None, LONG), script);
    let handshake = handshake.unwrap();
    assert_eq!((handshake.era, handshake.protocol_version.as_str()), (Era::Legacy, "2025-06-18"));
    assert_eq!((handshake.server_name.as_str(), &handshake.result), ("old", &bytes(LEGACY_RESULT)));
    assert_eq!(connection.handshake_result(), Some(handshake));
}

#[tokio::test(start_paused = true)]
async fn a_legacy_server_that_never_answers_the_probe_is_initialized_after_a_short_wait() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let script = async {
        assert_eq!(server.read().await.method(), "server/discover");
        let initialize = server.read().await;
        server.answer(&initialize, LEGACY_RESULT).await;
        assert_eq!(server.read().await.method(), "notifications/initialized");
    };
    let (handshake, ()) = tokio::join!(connection.handshake(None, LONG), script);
    assert_eq!(handshake.unwrap().era, Era::Legacy);
}

#[tokio::test]
async fn a_server_of_both_eras_counts_as_modern_and_is_subscribed_to() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let script = async {
        let probe = server.read().await;
        assert!(probe.meta().unwrap().unwrap().get(era::meta::PROTOCOL_VERSION).unwrap().is_some());
        server.answer(&probe, MODERN_RESULT).await;
        server.read().await
    };
    let (handshake, listen) = tokio::join!(connection.handshake(None, LONG), script);
    let handshake = handshake.unwrap();
    assert_eq!((handshake.era, handshake.server_version.as_str()), (Era::Modern, "2.0"));
    assert_eq!(listen.method(), "subscriptions/listen");
    let mut unsolicited = connection.unsolicited();
    let changed = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{}}}}}}}"#,
        listen.raw_id().unwrap()
    );
    server.write(&changed).await;
    assert_eq!(unsolicited.recv().await.unwrap(), changed);
}

#[tokio::test(start_paused = true)]
async fn a_slow_modern_server_is_recognised_after_initialize_was_refused() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let script = async {
        let (probe, initialize) = (server.read().await, server.read().await);
        server.answer(&probe, MODERN_RESULT).await;
        server.write(envelope::error(initialize.raw_id(), -32601, "no such method", None)).await;
    };
    let (handshake, ()) = tokio::join!(connection.handshake(None, LONG), script);
    assert_eq!(handshake.unwrap().era, Era::Modern);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_prints_only_garbage_is_named_as_such() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    server.write("Usage: server \u{1b}[31m--port").await;
    let error = connection.handshake(None, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error, HandshakeError::NotMcp { sample: "Usage: server \\u{1b}[31m--port".into() });
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_times_out_and_one_that_ends_is_noticed() {
    let (connection, server, _noise) = open(MAX_MESSAGE_BYTES);
    let timeout = Duration::from_secs(5);
    assert_eq!(connection.handshake(None, timeout).await.unwrap_err(), HandshakeError::Timeout(timeout));
    drop(server);
    connection.closed().await;
    assert_eq!(connection.handshake(None, timeout).await.unwrap_err(), HandshakeError::Closed);
}

#[tokio::test]
async fn a_taken_over_server_is_called_without_a_handshake_and_gets_nothing_but_messages() {
    let (connection, mut server, mut noise) = take_over(false);
    server.write(r#"lf of an old answer"}}"#).await;
    server.write(r#"{"jsonrpc":"2.0","id":3,"result":{}}"#).await;
    server.write("noise").await;
    let listed = async {
        let request = server.read().await;
        server.answer(&request, r#"{"tools":[{"name":"a"}],"nextCursor":"2"}"#).await;
        let request = server.read().await;
        assert_eq!(request.payload().unwrap(), r#"{"cursor":"2"}"#);
        server.answer(&request, r#"{"tools":[{"name":"b","x":1.0}]}"#).await;
    };
    let (tools, ()) = tokio::join!(connection.list_tools(LONG), listed);
    let tools: Vec<_> = tools.unwrap().iter().map(|tool| tool.get().to_owned()).collect();
    assert_eq!(tools, [r#"{"name":"a"}"#, r#"{"name":"b","x":1.0}"#]);
    assert_eq!(noise.recv().await.unwrap(), line("noise"));
}

#[tokio::test]
async fn what_a_taken_over_server_says_first_is_noise_unless_it_may_be_the_end_of_a_message() {
    let whole = ["a line", r#"{"level":"info","at":[1]}"#, "[info] ready", "[1]"];
    let ends = [r#"lf of an old answer"}}"#, "}", "]  ", r#"{"a":1}}"#, r#""text":"[a]"}}]"#];
    for (first, is_noise) in whole.map(|it| (it, true)).into_iter().chain(ends.map(|it| (it, false))) {
        let (_connection, mut server, mut noise) = take_over(false);
        server.write(first).await;
        server.write("then {").await;
        assert_eq!(noise.recv().await.unwrap(), line(if is_noise { first } else { "then {" }));
    }
}

#[tokio::test]
async fn only_the_first_line_of_a_taken_over_server_may_be_the_end_of_a_message() {
    let message = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
    for first in ["", "  ", "noise", message] {
        let (_connection, mut server, mut noise) = take_over(false);
        server.write(first).await;
        server.write("shut }").await;
        if first == "noise" {
            assert_eq!(noise.recv().await.unwrap(), line("noise"));
        }
        assert_eq!(noise.recv().await.unwrap(), line("shut }"), "after {first:?}");
    }
}

/// All noise until the server, which ends at once, has ended.
async fn noise_until_the_end(connection: &Connection, server: Server, mut noise: mpsc::Receiver<Noise>) -> Vec<Noise> {
    drop(server);
    tokio::time::timeout(LONG, connection.closed()).await.expect("it ends");
    std::iter::from_fn(|| noise.try_recv().ok()).collect()
}

#[tokio::test]
async fn a_message_that_the_end_of_the_server_tore_is_no_noise() {
    for torn in [r#"{"jsonrpc":"2.0","id":100,"result":{"secret"#, "  {\"jso", r#"[{"jsonrpc":"2.0","id":1"#, "{"] {
        let (connection, mut server, noise) = open(MAX_MESSAGE_BYTES);
        server.write("before").await;
        server.out.write_all(torn.as_bytes()).await.unwrap();
        assert_eq!(noise_until_the_end(&connection, server, noise).await, [line("before")], "{torn}");
    }
}

#[tokio::test]
async fn a_last_line_without_its_line_break_counts() {
    let (connection, mut server, noise) = open(MAX_MESSAGE_BYTES);
    let mut stream = connection.send(bytes(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#)).unwrap();
    let request = server.read().await;
    server.out.write_all(&envelope::result(request.raw_id().unwrap(), "{}")).await.unwrap();
    assert!(noise_until_the_end(&connection, server, noise).await.is_empty());
    assert_eq!(text(next(&mut stream).await), r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    let (connection, mut server, noise) = open(MAX_MESSAGE_BYTES);
    server.out.write_all(b"last words").await.unwrap();
    assert_eq!(noise_until_the_end(&connection, server, noise).await, [line("last words")]);
}

#[tokio::test]
async fn an_only_line_without_its_line_break_of_a_taken_over_server_is_no_noise() {
    for rest in ["the middle of an answer", r#"{"jsonrpc":"2.0","#, r#"an end"}}"#] {
        let (connection, mut server, noise) = take_over(false);
        server.out.write_all(rest.as_bytes()).await.unwrap();
        assert!(noise_until_the_end(&connection, server, noise).await.is_empty(), "{rest}");
    }
    let (connection, mut server, noise) = take_over(false);
    server.write("whole").await;
    server.out.write_all(b"last words").await.unwrap();
    assert_eq!(noise_until_the_end(&connection, server, noise).await, [line("whole"), line("last words")]);
}

#[tokio::test(start_paused = true)]
async fn lines_that_were_lost_are_counted_also_when_the_server_ends_while_nobody_takes_them() {
    let (connection, mut server, mut noise) = open(MAX_MESSAGE_BYTES);
    let burst: String = (0..100).map(|number| format!("line {number}\n")).collect();
    server.out.write_all(burst.as_bytes()).await.unwrap();
    drop(server);
    // While it waits for whoever takes noise, and before it gives up.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!connection.is_closed());
    for number in 0..16 {
        assert_eq!(noise.recv().await.unwrap(), line(&format!("line {number}")));
    }
    assert_eq!(noise.recv().await.unwrap(), Noise::Lost(84));
    connection.closed().await;
}

#[tokio::test]
async fn noise_that_comes_at_once_is_handed_on_whole_to_who_takes_it() {
    let (_connection, mut server, mut noise) = open(MAX_MESSAGE_BYTES);
    let burst: String = (0..1000).map(|number| format!("line {number}\n")).collect();
    server.out.write_all(burst.as_bytes()).await.unwrap();
    for number in 0..1000 {
        assert_eq!(noise.recv().await.unwrap(), line(&format!("line {number}")));
    }
}

#[tokio::test(start_paused = true)]
async fn noise_that_nobody_takes_holds_up_the_protocol_for_a_moment_only_and_is_counted() {
    let (connection, mut server, mut noise) = open(MAX_MESSAGE_BYTES);
    let began = Instant::now();
    let burst: String = (0..100).map(|number| format!("line {number}\n")).collect();
    server.out.write_all(burst.as_bytes()).await.unwrap();
    let mut asked = connection.begin_request("ping", None).unwrap();
    let request = server.read().await;
    server.answer(&request, "{}").await;
    assert_eq!(asked.result().await, Ok(bytes("{}")));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    for number in 0..16 {
        assert_eq!(noise.recv().await.unwrap(), line(&format!("line {number}")));
    }
    server.write("after").await;
    assert_eq!(noise.recv().await.unwrap(), Noise::Lost(84));
    assert_eq!(noise.recv().await.unwrap(), line("after"));
}

const QUESTION: &str = r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}"#;
const LOG: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
const A: Caller = Caller::Principal(Principal(1));
const B: Caller = Caller::Principal(Principal(2));

#[tokio::test]
async fn a_question_of_the_server_goes_to_the_only_caller_and_its_answer_back() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    server.write(QUESTION).await;
    assert!(server.line().await.contains("-32601"), "nobody is calling");
    let mut list = connection.send_for(Caller::Gateway, bytes(r#"{"jsonrpc":"2.0","id":1,"method":"l"}"#)).unwrap();
    let request = server.read().await;
    server.answer(&request, "{}").await;
    next(&mut list).await.unwrap().unwrap();
    let mut stream = connection.send_for(A, bytes(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#)).unwrap();
    server.read().await;
    server.write(QUESTION).await;
    assert_eq!(text(next(&mut stream).await), QUESTION);
    connection.send_for(A, bytes(r#"{"jsonrpc":"2.0","id":"other","result":{}}"#)).unwrap();
    connection.send_for(A, bytes(r#"{"jsonrpc":"2.0","id":"q","result":{"action":"accept"}}"#)).unwrap();
    assert_eq!(server.line().await, r#"{"jsonrpc":"2.0","id":"q","result":{"action":"accept"}}"#);
}

#[tokio::test]
async fn once_two_have_used_a_server_nobody_gets_its_questions_and_log_messages() {
    for (first, second) in [(A, B), (A, Caller::Unknown), (Caller::Unknown, A), (Caller::Unknown, Caller::Unknown)] {
        let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
        let call = bytes(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#);
        let mut ended = connection.send_for(first, call.clone()).unwrap();
        let request = server.read().await;
        server.answer(&request, "{}").await;
        next(&mut ended).await.unwrap().unwrap();
        // Its work goes on, and says something while another is the only one that waits.
        let mut stream = connection.send_for(second, call).unwrap();
        let request = server.read().await;
        server.write(LOG).await;
        server.write(QUESTION).await;
        assert!(server.line().await.contains("-32601"), "{first:?} {second:?}");
        server.answer(&request, r#"{"of":"the second"}"#).await;
        assert!(text(next(&mut stream).await).contains("of"), "{first:?} {second:?}");
    }
}

#[tokio::test]
async fn a_server_that_was_taken_over_asks_nobody_unless_it_is_one_principals_own() {
    for own in [true, false] {
        let (connection, mut server, _noise) = take_over(own);
        let mut stream = connection.send_for(A, bytes(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#)).unwrap();
        let request = server.read().await;
        server.write(LOG).await;
        server.answer(&request, "{}").await;
        assert_eq!(text(next(&mut stream).await) == LOG, own);
    }
}

#[tokio::test]
async fn what_a_server_asks_while_the_gateway_alone_waits_is_answered_with_an_error() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    drop(connection.send_for(A, bytes(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#)).unwrap());
    let request = server.read().await;
    server.answer(&request, "{}").await;
    let mut list = connection.send_for(Caller::Gateway, bytes(r#"{"jsonrpc":"2.0","id":1,"method":"l"}"#)).unwrap();
    let mut line = server.line().await;
    while !line.contains("\"l\"") {
        line = server.line().await;
    }
    let request = Message::parse(Bytes::from(line)).unwrap();
    server.write(QUESTION).await;
    assert!(server.line().await.contains("-32601"));
    server.answer(&request, r#"{"of":"the list"}"#).await;
    assert!(text(next(&mut list).await).contains("the list"));
}

#[tokio::test]
async fn a_question_that_is_taken_back_is_taken_back_from_who_was_asked() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let mut asked = connection.send_for(A, bytes(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#)).unwrap();
    server.read().await;
    server.write(QUESTION).await;
    assert_eq!(text(next(&mut asked).await), QUESTION);
    let _other = connection.send_for(B, bytes(r#"{"jsonrpc":"2.0","id":2,"method":"m"}"#)).unwrap();
    server.read().await;
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q"}}"#;
    server.write(cancelled).await;
    assert_eq!(text(next(&mut asked).await), cancelled);
}

#[tokio::test]
async fn the_servers_ping_is_answered_and_log_messages_find_the_only_caller() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    server.write(r#"{"jsonrpc":"2.0","id":5.0,"method":"ping"}"#).await;
    assert_eq!(server.line().await, r#"{"jsonrpc":"2.0","id":5.0,"result":{}}"#);
    let mut unsolicited = connection.unsolicited();
    server.write(LOG).await;
    let mut stream = connection.send_for(A, bytes(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#)).unwrap();
    server.read().await;
    server.write(LOG).await;
    assert_eq!(text(next(&mut stream).await), LOG);
    assert!(unsolicited.try_recv().is_err(), "the first was nobody's");
}

#[tokio::test]
async fn calls_fail_when_the_server_goes_and_after_the_last_clone_is_dropped() {
    let (connection, server, _noise) = open(MAX_MESSAGE_BYTES);
    let mut stream = connection.send(bytes(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#)).unwrap();
    drop(server);
    assert_eq!(next(&mut stream).await, Some(Err(CallError::Ended)));
    assert!(connection.is_closed());

    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let mut stream = connection.send(bytes(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#)).unwrap();
    drop(connection);
    assert_eq!(next(&mut stream).await, Some(Err(CallError::Ended)));
    while server.lines.next_line().await.unwrap().is_some() {}
}

#[tokio::test]
async fn a_message_over_several_lines_is_written_as_one() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let _stream = connection.send(bytes("{\"jsonrpc\":\"2.0\",\n\"id\":1,\r\n\"method\":\"m\"}")).unwrap();
    assert_eq!(server.read().await.method(), "m");
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let (connection, _server, _noise) = open(MAX_MESSAGE_BYTES);
    for bad in ["", "[]", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}", "{\"jsonrpc\":\"2.0\"}"] {
        assert!(matches!(connection.send(bytes(bad)), Err(CallError::Invalid(_))), "{bad}");
    }
}

#[tokio::test]
async fn what_callers_wait_for_is_counted_and_its_end_awaited_but_subscriptions_are_not() {
    let (connection, mut server, _noise) = open(MAX_MESSAGE_BYTES);
    let _listening =
        connection.send(bytes(r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}"#)).unwrap();
    server.read().await;
    tokio::time::timeout(LONG, connection.idle()).await.expect("nobody waits");
    let mut call = connection.send(bytes(r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{}}"#)).unwrap();
    let activity = connection.activity();
    assert_eq!((activity.begun, activity.awaited, activity.silent_for.is_some()), (1, 1, true));
    let request = server.read().await;
    let answered = async {
        server.answer(&request, "{}").await;
        text(next(&mut call).await)
    };
    let ((), answer) = tokio::join!(connection.idle(), answered);
    assert!(answer.contains("result"));
    let activity = connection.activity();
    assert_eq!((activity.begun, activity.awaited, activity.silent_for), (1, 0, None));
}
