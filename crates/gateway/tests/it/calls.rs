use crate::world::*;
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use toolyard_gateway::Limits;
use toolyard_mcp::era::Era;
use toolyard_types::snapshot::CallOutcome;

const OLD: &str = "/mcp/default/servers/old";

const TWO: &str = "/mcp/default/servers/two";

fn call(id: &str, tool: &str, rest: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"{rest}}}}}"#)
}

#[tokio::test]
async fn a_result_arrives_byte_for_byte_as_plain_json() {
    let mut world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    world.record().await;
    let arguments =
        r#","arguments":{"z":1.0,"a":1234567890123456789012345678901234567890,"s":"\u00e9"},"future":[ 1.50 ]"#;
    let response = world.legacy(OLD, &session, call("1.0", "echo", arguments)).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let want = format!(
        r#"{{"jsonrpc":"2.0","id":1.0,"result":{{"content":[],"z":1.0,"a":[ 1 ,2 ],"n":1234567890123456789012345678901234567890,"params":{{"name":"echo"{arguments}}}}}}}"#
    );
    assert_eq!(text(response).await, want);
    let record = world.record().await;
    assert_eq!((record.outcome, record.target.as_str()), (CallOutcome::Ok, "echo"));
    assert_eq!(usize::try_from(record.response_bytes).unwrap(), want.len());
}

#[tokio::test]
async fn two_clients_with_equal_ids_and_tokens_do_not_mix_and_get_their_own_token_back() {
    let world = world().server("old", Era::Legacy).start().await;
    let (one, two) = (world.initialize(OLD, "2025-06-18").await, world.initialize(OLD, "2025-06-18").await);
    let with_token = |token: &str| call("1", "progress", &format!(r#","_meta":{{"progressToken":{token}}}"#));
    let (one, two) =
        tokio::join!(world.legacy(OLD, &one, with_token("\"tok\"")), world.legacy(OLD, &two, with_token("7.0")));
    for (response, token) in [(one, "\"tok\""), (two, "7.0")] {
        let progress = |n| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{n},"x":1.0}}}}"#
            )
        };
        let want = [progress(1), progress(2), r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#.to_owned()];
        assert_eq!(events(response).await, want);
    }
}

#[tokio::test]
async fn a_legacy_clients_cancellation_reaches_the_server_and_ends_the_call() {
    let mut world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    world.record().await;
    let cancel = async {
        world.fixture("old").line(|line| line.contains("slow")).await;
        let reason = format!("wrong {}", "\u{e9}".repeat(600));
        let params = format!(r#"{{"requestId":"c","reason":"{reason}"}}"#);
        let body = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
        let response = world.legacy(OLD, &session, body).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    };
    let (response, ()) = tokio::join!(world.legacy(OLD, &session, call("\"c\"", "slow", "")), cancel);
    assert_eq!(events(response).await, [""; 0]);
    assert_eq!(told_reason(&world).await, format!("wrong {}", "\u{e9}".repeat(494)), "in its words, cut");
    assert_eq!(world.record().await.outcome, CallOutcome::Cancelled);
}

/// Calls `slow` in a session and cancels it once it is at the server.
async fn cancelled(world: &World, session: &str) {
    let is_slow = |line: &str| line.contains("slow");
    let known = world.fixture("old").count(is_slow);
    let cancel = async {
        while world.fixture("old").count(is_slow) == known {
            tokio::task::yield_now().await;
        }
        let body = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c","reason":"no"}}"#;
        assert_eq!(world.legacy(OLD, session, body).await.status(), StatusCode::ACCEPTED);
    };
    let (response, ()) = tokio::join!(world.legacy(OLD, session, call("\"c\"", "slow", "")), cancel);
    assert_eq!(events(response).await, [""; 0]);
}

#[tokio::test]
async fn a_shutdown_waits_until_the_toolbox_has_heard_why_a_call_was_given_up() {
    let world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    world.be_deaf(true);
    cancelled(&world, &session).await;
    world.gateway.drain();
    let waiting = futures_util::FutureExt::now_or_never(world.gateway.drained());
    assert!(waiting.is_none(), "the toolbox has not heard it");
    assert_eq!(world.fixture("old").count(|line| line.contains("notifications/cancelled")), 0);
    world.be_deaf(false);
    tokio::time::timeout(LONG, world.gateway.drained()).await.expect("it has heard it");
    assert_eq!(told_reason(&world).await, "no");
}

#[tokio::test]
async fn a_call_that_was_given_up_keeps_its_places_until_the_toolbox_has_heard_why() {
    let limits = Limits { calls_per_server: 1, calls_per_key: 2, ..Limits::default() };
    let world = world().server("old", Era::Legacy).bounds(limits).start().await;
    let session = world.initialize(OLD, "2025-03-26").await;
    // Each has a place of the key.
    let two = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]"#;
    let refused_of_two = async || {
        let answers = json(world.post(OLD, &[("mcp-session-id", &session)], two).await).await;
        let is_refused = |answer: &&serde_json::Value| answer["error"]["data"]["code"] == "rate_limited";
        answers.as_array().unwrap().iter().filter(is_refused).count()
    };
    assert_eq!(refused_of_two().await, 0);
    world.be_deaf(true);
    cancelled(&world, &session).await;
    let refused = world.legacy(OLD, &session, call("1", "fail", "")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "its place at the server");
    assert_eq!(refused_of_two().await, 1, "its key's place");
    world.be_deaf(false);
    let answered = async {
        while world.legacy(OLD, &session, call("1", "fail", "")).await.status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, answered).await.expect("there is room again");
    assert_eq!(refused_of_two().await, 0);
}

/// Why the server was told that a call is given up.
async fn told_reason(world: &World) -> String {
    let line = world.fixture("old").line(|line| line.contains("notifications/cancelled")).await;
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    told["params"]["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn another_sessions_cancellation_touches_nothing() {
    let world = world().server("old", Era::Legacy).call_timeout_ms(300).start().await;
    let (one, two) = (world.initialize(OLD, "2025-06-18").await, world.initialize(OLD, "2025-06-18").await);
    let cancel = async {
        world.fixture("old").line(|line| line.contains("slow")).await;
        let body = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
        world.legacy(OLD, &two, body).await;
    };
    let (response, ()) = tokio::join!(world.legacy(OLD, &one, call("1", "slow", "")), cancel);
    let error = json(response).await;
    assert_eq!(error["error"]["data"]["code"], "upstream_timeout", "{error}");
    assert_eq!(error["id"], 1);
    assert_eq!(told_reason(&world).await, "the call's deadline passed");
}

#[tokio::test]
async fn a_modern_client_that_goes_away_cancels_its_call() {
    let mut world = world().server("old", Era::Legacy).start().await;
    let request = modern_request(OLD, "tools/call", Some("slow"), r#""name":"slow""#);
    let call = world.send(request);
    tokio::select! {
        _ = call => panic!("the server never answers"),
        _ = world.fixture("old").line(|line| line.contains("slow")) => {}
    }
    assert_eq!(told_reason(&world).await, "the caller went away");
    assert_eq!(world.record().await.outcome, CallOutcome::Cancelled);
}

#[tokio::test]
async fn a_legacy_client_that_goes_away_does_not_cancel_its_call() {
    let mut world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    world.record().await;
    let fixture = world.fixture("old").clone();
    tokio::select! {
        _ = world.legacy(OLD, &session, call("1", "slow", "")) => panic!("the server has not answered"),
        _ = fixture.line(|line| line.contains("slow")) => {}
    }
    let request = fixture.line(|line| line.contains("slow")).await;
    world.gateway.drain();
    let waiting = futures_util::FutureExt::now_or_never(world.gateway.drained());
    assert!(waiting.is_none(), "the call is waited for");
    let id = serde_json::from_str::<serde_json::Value>(&request).unwrap()["id"].clone();
    fixture.say(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
    world.gateway.drained().await;
    assert_eq!(world.records.try_recv().expect("a record").outcome, CallOutcome::Ok);
    assert_eq!(fixture.count(|line| line.contains("notifications/cancelled")), 0);
}

#[tokio::test]
async fn how_a_call_ends_is_told_apart_in_its_record() {
    let mut world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    world.record().await;
    for (tool, outcome) in [("fail", CallOutcome::ToolError), ("none", CallOutcome::ServerError)] {
        world.legacy(OLD, &session, call("1", tool, "")).await;
        assert_eq!(world.record().await.outcome, outcome);
    }
    world.break_toolbox();
    let error = json(world.legacy(OLD, &session, call("1", "echo", "")).await).await;
    assert_eq!(error["error"]["data"]["code"], "server_not_ready");
    assert_eq!(world.record().await.outcome, CallOutcome::ServerNotReady, "the word that its client was told");
}

#[tokio::test]
async fn a_server_that_is_not_ready_says_why() {
    let world = world().start().await;
    let response = world.modern("/mcp/default/servers/stopped", "tools/list", None, "").await;
    let error = json(response).await;
    assert_eq!(error["error"]["data"]["code"], "server_not_ready");
    assert_eq!(error["error"]["message"], "the server is failed: crash_loop");
}

#[tokio::test]
async fn a_2025_03_26_batch_is_answered_whole() {
    let world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-03-26").await;
    let body = format!(
        r#"[{},{{"jsonrpc":"2.0","method":"notifications/initialized"}},{{"jsonrpc":"2.0","id":"p","method":"ping"}}]"#,
        call("1", "fail", "")
    );
    let response = world.post(OLD, &[("mcp-session-id", &session)], body).await;
    let want =
        r#"[{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}},{"jsonrpc":"2.0","id":"p","result":{}}]"#;
    assert_eq!(text(response).await, want);
}

#[tokio::test]
async fn each_message_of_a_batch_has_a_place_of_its_own() {
    let limits = Limits { calls_per_key: 2, ..Limits::default() };
    let world = world().server("old", Era::Legacy).bounds(limits).start().await;
    let session = world.initialize(OLD, "2025-03-26").await;
    let slow = [call("1", "slow", ""), call("2", "slow", ""), call("3", "slow", "")].join(",");
    let headers = [("mcp-session-id", &*session)];
    let batch = world.post(OLD, &headers, format!("[{slow}]"));
    let answering = async {
        let is_slow = |line: &str| line.contains("slow");
        while world.fixture("old").count(is_slow) < 2 {
            tokio::task::yield_now().await;
        }
        for line in world.fixture("old").lines(is_slow) {
            let id = serde_json::from_str::<serde_json::Value>(&line).unwrap()["id"].clone();
            world.fixture("old").say(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[]}}}}"#));
        }
    };
    let (answers, ()) = tokio::join!(batch, answering);
    let answers = json(answers).await;
    let codes: Vec<_> = answers.as_array().unwrap().iter().map(|answer| &answer["error"]["data"]["code"]).collect();
    assert_eq!(codes.iter().filter(|code| ***code == "rate_limited").count(), 1, "{answers}");
    assert_eq!(codes.iter().filter(|code| code.is_null()).count(), 2, "{answers}");
}

#[tokio::test]
async fn one_key_leaves_streams_to_others() {
    let limits = Limits { calls_per_key: 2, calls_per_organization: 3, ..Limits::default() };
    let world = world().server("old", Era::Legacy).bounds(limits).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    let streams = [world.listen(OLD, &session).await, world.listen(OLD, &session).await];
    assert!(streams.iter().all(|stream| stream.status() == StatusCode::OK));
    let refused = json(world.listen(OLD, &session).await).await;
    assert!(refused["detail"].as_str().unwrap().contains("key has 2 streams open"), "{refused}");
    let asked = text(world.modern(OLD, "subscriptions/listen", None, r#""notifications":{}"#).await).await;
    assert!(asked.contains("key has 2 streams open"), "{asked}");
    assert_eq!(
        world.legacy(OLD, &session, call("1", "fail", "")).await.status(),
        StatusCode::OK,
        "calls are no streams"
    );
    drop(streams);
    assert_eq!(world.listen(OLD, &session).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_takes_only_streams_gets_one() {
    let world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    let mut request = post_request(OLD, &[("mcp-session-id", &session)], call("1", "fail", ""));
    request.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    assert_eq!(
        events(world.send(request).await).await,
        [r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#]
    );
}

#[tokio::test]
async fn beyond_its_limits_a_gateway_refuses_and_goes_on_when_there_is_room() {
    let world = world().server("old", Era::Legacy).limits(1, 1).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    let slow = world.modern(OLD, "tools/call", Some("slow"), r#""name":"slow""#);
    let meanwhile = async {
        world.fixture("old").line(|line| line.contains("slow")).await;
        let refused = world.legacy(OLD, &session, call("1", "fail", "")).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "1");
        assert_eq!(json(refused).await["code"], "rate_limited");
    };
    // The client of the slow call goes away.
    tokio::select! { _ = slow => unreachable!(), () = meanwhile => {} }
    assert_eq!(world.legacy(OLD, &session, call("1", "fail", "")).await.status(), StatusCode::OK);

    let stream = world.listen(OLD, &session).await;
    assert_eq!(stream.status(), StatusCode::OK);
    assert_eq!(world.listen(OLD, &session).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let asked = world.modern(OLD, "subscriptions/listen", None, r#""notifications":{}"#).await;
    assert!(text(asked).await.contains("too many streams"));
    assert_eq!(world.legacy(OLD, &session, call("1", "fail", "")).await.status(), StatusCode::OK);
    drop(stream);
    assert_eq!(world.listen(OLD, &session).await.status(), StatusCode::OK);
}

/// The raw id of a question that a client got.
fn question_id(event: &str) -> String {
    serde_json::from_str::<serde_json::Value>(event).unwrap()["id"].to_string()
}

#[tokio::test]
async fn only_the_session_that_was_asked_can_answer() {
    let world = world().server("old", Era::Legacy).start().await;
    let (asked, other) = (world.initialize(OLD, "2025-06-18").await, world.initialize(OLD, "2025-06-18").await);
    let ask = async {
        world.fixture("old").line(|line| line.contains("slow")).await;
        world.fixture("old").say(r#"{"jsonrpc":"2.0","id":5,"method":"roots/list"}"#);
    };
    let (response, ()) = tokio::join!(world.legacy(OLD, &asked, call("1", "slow", "")), ask);
    let mut stream = response.into_body();
    let question = next_event(&mut stream).await;
    assert!(question.contains("roots/list"));
    let id = question_id(&question);
    assert_ne!(id, "5", "the gateway's own");
    let answer = |id: &str, who: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"roots":[],"by":"{who}"}}}}"#);
    for (session, id, who) in [(&other, &*id, "intruder"), (&asked, "5", "guess"), (&asked, &*id, "asked")] {
        assert_eq!(world.legacy(OLD, session, answer(id, who)).await.status(), StatusCode::ACCEPTED);
    }
    let answered = world.fixture("old").line(|line| line.contains("asked")).await;
    assert!(answered.contains(r#""id":5"#), "the server's own again: {answered}");
    // The next answer comes by another replica of the gateway.
    world.fixture("old").say(r#"{"jsonrpc":"2.0","id":6,"method":"roots/list"}"#);
    let id = question_id(&next_event(&mut stream).await);
    for (session, who) in [(&other, "intruder"), (&asked, "replica"), (&asked, "again")] {
        let request = post_request(OLD, &[("mcp-session-id", session)], answer(&id, who));
        let answered = tower::ServiceExt::oneshot(world.replica.clone(), request).await.unwrap();
        assert_eq!(answered.status(), StatusCode::ACCEPTED);
    }
    let answered = world.fixture("old").line(|line| line.contains("replica")).await;
    assert!(answered.contains(r#""id":6"#), "{answered}");
    assert_eq!(world.legacy(OLD, &asked, answer(&id, "again")).await.status(), StatusCode::ACCEPTED);
    assert_eq!(world.fixture("old").count(|line| line.contains("intruder") || line.contains("guess")), 0);
}

#[tokio::test]
async fn replicas_that_ask_with_the_same_id_are_each_answered() {
    let world = world().replicated("two", &["a", "b"]).start().await;
    let path = "/mcp/default/servers/two";
    let session = world.initialize(path, "2025-06-18").await;
    let ask = async {
        for replica in ["a", "b"] {
            world.fixture(replica).line(|line| line.contains("slow")).await;
            let question =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{{"of":"{replica}"}}}}"#);
            world.fixture(replica).say(question);
        }
    };
    let (one, other, ()) = tokio::join!(
        world.legacy(path, &session, call("1", "slow", "")),
        world.legacy(path, &session, call("2", "slow", "")),
        ask
    );
    for response in [one, other] {
        let mut stream = response.into_body();
        let question = next_event(&mut stream).await;
        let replica = if question.contains(r#""of":"a""#) { "a" } else { "b" };
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"to":"{replica}"}}}}"#, question_id(&question));
        assert_eq!(world.legacy(path, &session, answer).await.status(), StatusCode::ACCEPTED);
        let answered = world.fixture(replica).line(|line| line.contains(r#""to""#)).await;
        assert!(answered.contains(&format!(r#""to":"{replica}""#)), "{answered}");
    }
}

#[tokio::test]
async fn nobody_gets_a_question_or_a_log_message_of_a_server_that_another_has_used() {
    let world = world().server("old", Era::Legacy).start().await;
    world.snapshots.send_modify(|snapshot| {
        let mut next = (**snapshot).clone();
        add_key_like(&mut next, KEY, "other");
        next.version += 1;
        *snapshot = Arc::new(next);
    });
    let (victim, other) = (world.initialize(OLD, "2025-06-18").await, world.initialize_as("other", OLD).await);
    // The first one's call goes on at the server after its answer; then the other is the only one that waits.
    assert_eq!(world.legacy(OLD, &victim, call("1", "fail", "")).await.status(), StatusCode::OK);
    let ask = async {
        world.fixture("old").line(|line| line.contains("progress")).await;
        world.fixture("old").say(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"secret"}}"#);
        world
            .fixture("old")
            .say(r#"{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{"message":"secret"}}"#);
        world.fixture("old").line(|line| line.contains(r#""id":7"#) && line.contains("error")).await;
        let asked = world.fixture("old").line(|line| line.contains("slow")).await;
        let id = serde_json::from_str::<serde_json::Value>(&asked).unwrap()["id"].clone();
        world.fixture("old").say(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[]}}}}"#));
    };
    let body = call("2", "slow", r#","arguments":{"a":"progress"}"#);
    let (response, ()) = tokio::join!(world.legacy_as("other", OLD, &other, body), ask);
    let seen = text(response).await;
    assert!(seen.contains("content") && !seen.contains("secret"), "{seen}");
}

#[tokio::test]
async fn what_hangs_fills_its_own_places_and_no_others() {
    let limits = Limits { calls_per_server: 2, calls_per_key: 4, calls_per_organization: 5, ..Limits::default() };
    let world = world()
        .server("old", Era::Legacy)
        .server("two", Era::Legacy)
        .toolset("all", &["old", "two"])
        .bounds(limits)
        .start()
        .await;
    let all = "/mcp/default/toolsets/all";
    world.modern(all, "tools/list", None, "").await;
    let slow = |path: &'static str| world.modern(path, "tools/call", Some("slow"), r#""name":"slow""#);
    let is_slow = |line: &str| line.contains(r#""slow""#);
    let session = world.initialize(OLD, "2025-06-18").await;
    let meanwhile = async {
        while world.fixture("old").count(is_slow) < 2 {
            tokio::task::yield_now().await;
        }
        let began = std::time::Instant::now();
        let refused = world.legacy(OLD, &session, call("1", "fail", "")).await;
        assert_eq!(
            (refused.status(), &refused.headers()["retry-after"]),
            (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
        );
        let refused = json(refused).await;
        assert_eq!((&refused["id"], &refused["error"]["data"]["code"]), (&1.into(), &"rate_limited".into()));
        let by_toolset = world.modern(all, "tools/call", Some("old__fail"), r#""name":"old__echo""#).await;
        assert_eq!(by_toolset.status(), StatusCode::BAD_REQUEST, "a header that differs is told first");
        let by_toolset = world.modern(all, "tools/call", Some("old__echo"), r#""name":"old__echo""#).await;
        assert_eq!(by_toolset.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(began.elapsed() < Duration::from_millis(100));
        world.initialize(OLD, "2025-06-18").await;
        let listed = json(world.modern(OLD, "tools/list", None, "").await).await;
        assert!(listed["result"]["tools"].is_array(), "what it is can be asked still: {listed}");
        let (status, answer) = world.call(TWO, "echo").await;
        assert_eq!(status, StatusCode::OK, "another server is called: {answer}");
        assert_eq!(world.call(all, "two__echo").await.0, StatusCode::OK);
    };
    tokio::select! { _ = slow(OLD) => unreachable!(), _ = slow(OLD) => unreachable!(), () = meanwhile => {} }
    assert_eq!(world.legacy(OLD, &session, call("1", "fail", "")).await.status(), StatusCode::OK, "they are gone");
    // A key's places, and its organization's for another key.
    world.snapshots.send_modify(|snapshot| {
        let mut next = (**snapshot).clone();
        add_key_like(&mut next, KEY, "other");
        next.version += 1;
        *snapshot = Arc::new(next);
    });
    let others = world.initialize_as("other", TWO).await;
    let meanwhile = async {
        while world.fixture("two").count(is_slow) < 2 || world.fixture("old").count(is_slow) < 4 {
            tokio::task::yield_now().await;
        }
        let refused = world.legacy(OLD, &session, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
        assert_eq!(
            (refused.status(), json(refused).await["code"].as_str()),
            (StatusCode::TOO_MANY_REQUESTS, Some("rate_limited"))
        );
        let ping = || world.legacy_as("other", TWO, &others, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_owned());
        assert_eq!(ping().await.status(), StatusCode::OK);
    };
    tokio::select! {
        _ = slow(OLD) => unreachable!(), _ = slow(OLD) => unreachable!(),
        _ = slow(TWO) => unreachable!(), _ = slow(TWO) => unreachable!(),
        () = meanwhile => {}
    }
}

const ASKS: &str = r#"{"jsonrpc":"2.0","id":5,"method":"elicitation/create","params":{"message":"?"}}"#;

/// Calls `slow` in a session; the server asks a question in it.
async fn asked(world: &World, session: &str) -> axum::body::Body {
    let ask = async {
        world.fixture("old").line(|line| line.contains("slow")).await;
        world.fixture("old").say(ASKS);
    };
    let (response, ()) = tokio::join!(world.legacy(OLD, session, call("1", "slow", "")), ask);
    let mut stream = response.into_body();
    assert!(next_event(&mut stream).await.contains("elicitation"));
    stream
}

#[tokio::test]
async fn a_question_ends_with_the_stream_that_it_was_asked_on() {
    let world = world().server("old", Era::Legacy).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    drop(asked(&world, &session).await);
    let declined = |line: &str| line.contains(r#""id":5"#) && line.contains("gone away");
    world.fixture("old").line(declined).await;
    world.fixture("old").say(ASKS.replace(":5", ":6"));
    world.fixture("old").line(|line| line.contains(r#""id":6"#) && line.contains("error")).await;
    assert_eq!(world.fixture("old").count(|line| line.contains("notifications/cancelled")), 0, "the call goes on");
}

#[tokio::test]
async fn the_calls_of_a_session_end_when_it_is_deleted() {
    let world = world().server("old", Era::Legacy).start().await;
    let (session, other) = (world.initialize(OLD, "2025-06-18").await, world.initialize(OLD, "2025-06-18").await);
    let stream = asked(&world, &session).await;
    for ended in [&other, &session] {
        let mut request = post_request(OLD, &[("mcp-session-id", ended)], axum::body::Body::empty());
        *request.method_mut() = http::Method::DELETE;
        assert_eq!(world.send(request).await.status(), StatusCode::NO_CONTENT);
        if ended == &other {
            assert_eq!(world.fixture("old").count(|line| line.contains("notifications/cancelled")), 0);
        }
    }
    http_body_util::BodyExt::collect(stream).await.expect("the stream ends");
    assert_eq!(told_reason(&world).await, "the client ended its session");
}

#[tokio::test]
async fn a_client_that_takes_no_streams_gets_the_answer_alone() {
    let world = world().server("old", Era::Legacy).start().await;
    let params = r#""name":"progress","_meta2":{},"arguments":{}"#;
    let mut request = modern_request(OLD, "tools/call", Some("progress"), params);
    let body = std::mem::take(request.body_mut());
    let body = String::from_utf8(http_body_util::BodyExt::collect(body).await.unwrap().to_bytes().to_vec()).unwrap();
    *request.body_mut() = body.replacen("\"_meta\":{", "\"_meta\":{\"progressToken\":7,", 1).into();
    request.headers_mut().insert("accept", "application/json".parse().unwrap());
    let response = world.send(request).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(json(response).await["result"]["content"].is_array());
    let mut request = modern_request(OLD, "subscriptions/listen", None, r#""notifications":{}"#);
    request.headers_mut().insert("accept", "application/json".parse().unwrap());
    assert_eq!(world.send(request).await.status(), StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn a_deadline_that_passes_after_progress_is_a_deadline() {
    let world = world().server("old", Era::Legacy).call_timeout_ms(500).start().await;
    let session = world.initialize(OLD, "2025-06-18").await;
    let progress = async {
        let sent = world.fixture("old").line(|line| line.contains("slow")).await;
        let token =
            serde_json::from_str::<serde_json::Value>(&sent).unwrap()["params"]["_meta"]["progressToken"].clone();
        let params = format!(r#"{{"progressToken":{token},"progress":1}}"#);
        world.fixture("old").say(format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#));
    };
    let body = call("1", "slow", r#","_meta":{"progressToken":"p"}"#);
    let (response, ()) = tokio::join!(world.legacy(OLD, &session, body), progress);
    let seen = events(response).await;
    assert!(seen[0].contains("progress") && seen[1].contains("upstream_timeout"), "{seen:?}");
}
