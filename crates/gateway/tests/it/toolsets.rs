use crate::world::*;
use std::time::{Duration, Instant};
use toolyard_mcp::era::Era;
use toolyard_types::snapshot::{Target, ToolOverride};
use toolyard_types::state::Phase;

const ALL: &str = "/mcp/default/toolsets/all";

#[tokio::test]
async fn a_toolset_lists_and_calls_tools_of_servers_of_both_eras() {
    let mut world =
        world().server("old", Era::Legacy).server("new", Era::Modern).toolset("all", &["old", "new"]).start().await;
    let list = json(world.modern(ALL, "tools/list", None, "").await).await;
    let want = ["old__echo", "old__progress", "old__slow", "new__echo", "new__progress", "new__slow"];
    assert_eq!(tool_names(&list), want);
    world.record().await;
    for name in ["old__echo", "new__echo"] {
        let params = format!(r#""name":"{name}","arguments":{{"name":"{name}"}}"#);
        let result = json(world.modern(ALL, "tools/call", Some(name), &params).await).await;
        assert_eq!(result["result"]["params"]["name"], "echo", "{result}");
        assert_eq!(result["result"]["params"]["arguments"]["name"], name);
        let record = world.record().await;
        assert!(record.server.is_some() && record.toolset.is_some());
        assert_eq!(record.target, "echo");
    }
}

#[tokio::test]
async fn a_broken_server_costs_only_its_own_tools() {
    let world =
        world().server("old", Era::Legacy).broken("gone").toolset("all", &["gone", "old", "stopped"]).start().await;
    let list = json(world.modern(ALL, "tools/list", None, "").await).await;
    assert_eq!(tool_names(&list), ["old__echo", "old__progress", "old__slow"]);
    let session = world.initialize(ALL, "2025-06-18").await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"old__echo"}}"#;
    assert!(json(world.legacy(ALL, &session, body).await).await["result"].is_object());
    let (took, _) = listed(&world).await;
    assert!(took < Duration::from_millis(500), "only the first one waits: {took:?}");
}

/// How long listing the toolset's tools takes, and which.
async fn listed(world: &World) -> (Duration, Vec<String>) {
    let began = Instant::now();
    let list = json(world.modern(ALL, "tools/list", None, "").await).await;
    (began.elapsed(), tool_names(&list))
}

const CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
const BOTH: [&str; 4] = ["old__echo", "old__progress", "old__slow", "bad__t"];

#[tokio::test]
async fn a_member_that_hangs_costs_nobody_time_and_its_last_list_stands() {
    let world =
        world().server("old", Era::Legacy).server("bad", Era::Legacy).toolset("all", &["old", "bad"]).start().await;
    world.fixture("bad").set_tools(r#"{"name":"t"}"#);
    assert_eq!(listed(&world).await.1, BOTH);
    let mut stream = world.listen(ALL, &world.initialize(ALL, "2025-06-18").await).await.into_body();
    next_event_or_comment(&mut stream).await;
    world.fixture("bad").set_tools(HANGS);
    world.fixture("bad").say(CHANGED);
    assert!(next_event(&mut stream).await.contains("tools/list_changed"));
    let mut slow = 0;
    for _ in 0..20 {
        let (took, names) = listed(&world).await;
        assert_eq!(names, BOTH);
        assert!(took < Duration::from_secs(1), "{took:?}");
        slow += usize::from(took > Duration::from_millis(100));
    }
    assert!(slow <= 1, "only while it may still answer in time");
}

#[tokio::test]
async fn many_members_that_hang_cost_the_time_of_one() {
    let hanging: Vec<&'static str> =
        (0..70).map(|number| &*Box::leak(format!("bad-{number}").into_boxed_str())).collect();
    let mut world = world().server("old", Era::Legacy);
    for name in &hanging {
        world = world.server(name, Era::Legacy);
    }
    let members: Vec<_> = hanging.iter().copied().chain(["old"]).collect();
    let world = world.toolset("all", &members).start().await;
    for name in &hanging {
        world.fixture(name).set_tools(HANGS);
    }
    let (took, names) = listed(&world).await;
    assert_eq!(names, BOTH[..3]);
    assert!(took < Duration::from_secs(4), "they are waited for together: {took:?}");
}

#[tokio::test]
async fn what_a_member_lists_too_late_is_told_to_who_was_given_the_old_list() {
    let world =
        world().server("old", Era::Legacy).server("bad", Era::Legacy).toolset("all", &["old", "bad"]).start().await;
    world.fixture("bad").set_tools(HANGS);
    let (took, names) = listed(&world).await;
    assert_eq!(names, BOTH[..3]);
    assert!(took < Duration::from_secs(4), "the first one waits a little: {took:?}");
    let (took, _) = listed(&world).await;
    assert!(took < Duration::from_millis(500), "and the next ones do not: {took:?}");
    let mut stream = world.listen(ALL, &world.initialize(ALL, "2025-06-18").await).await.into_body();
    next_event_or_comment(&mut stream).await;
    // It answers at last.
    let asked = world.fixture("bad").line(|line| line.contains("tools/list")).await;
    let id = serde_json::from_str::<serde_json::Value>(&asked).unwrap()["id"].clone();
    world.fixture("bad").say(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tools":[{{"name":"t"}}]}}}}"#));
    assert!(next_event(&mut stream).await.contains("tools/list_changed"));
    assert_eq!(listed(&world).await.1, BOTH);
}

#[tokio::test]
async fn a_member_that_is_known_as_failed_is_not_asked() {
    let world =
        world().server("old", Era::Legacy).server("bad", Era::Legacy).toolset("all", &["old", "bad"]).start().await;
    world.fixture("bad").set_tools(r#"{"name":"t"}"#);
    assert_eq!(listed(&world).await.1, BOTH);
    let asked = || world.fixture("bad").count(|line| line.contains("tools/list"));
    let before = asked();
    world.fixture("bad").set_tools(HANGS);
    world.reroute("bad", |route| route.phase = Phase::Failed);
    world.fixture("bad").say(CHANGED);
    for _ in 0..3 {
        let (took, names) = listed(&world).await;
        assert!(took < Duration::from_millis(500), "{took:?}");
        assert_eq!(names, BOTH);
    }
    assert_eq!(asked(), before);
    world.reroute("bad", |route| (route.phase, route.target) = (Phase::Stopped, Target::None));
    assert_eq!(listed(&world).await.1, BOTH[..3], "what was stopped has no tools");
}

#[tokio::test]
async fn only_selected_tools_are_listed_and_called() {
    let world = world().server("old", Era::Legacy).selection("some", "old", &["slow"]).start().await;
    let path = "/mcp/default/toolsets/some";
    assert_eq!(tool_names(&json(world.modern(path, "tools/list", None, "").await).await), ["old__slow"]);
    for name in ["old__echo", "echo", "old__none", "new__slow", "\u{202e}"] {
        let session = world.initialize(path, "2025-06-18").await;
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}"}}}}"#);
        let error = json(world.legacy(path, &session, body).await).await;
        assert_eq!(error["error"]["code"], -32602, "{name}");
    }
    assert_eq!(world.fixture("old").count(|line| line.contains("tools/call")), 0);
}

#[tokio::test]
async fn a_tool_is_called_and_described_as_the_toolset_says() {
    let said = ToolOverride { name: Some("say".into()), description: Some("Says \"it\" again.".into()) };
    let mut world = world().server("old", Era::Legacy).described("all", "old", "echo", said).start().await;
    let list = json(world.modern(ALL, "tools/list", None, "").await).await;
    assert_eq!(tool_names(&list), ["say", "old__progress", "old__slow"]);
    let tool = &list["result"]["tools"][0];
    assert_eq!(tool["description"], "Says \"it\" again.");
    assert!(tool["inputSchema"].is_object(), "the rest stays: {tool}");
    world.record().await;
    let result = json(world.modern(ALL, "tools/call", Some("say"), r#""name":"say","arguments":{}"#).await).await;
    assert_eq!(result["result"]["params"]["name"], "echo", "{result}");
    assert_eq!(world.record().await.target, "echo");
    let session = world.initialize(ALL, "2025-06-18").await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"old__echo"}}"#;
    assert_eq!(json(world.legacy(ALL, &session, body).await).await["error"]["code"], -32602);
}

#[tokio::test]
async fn prompts_and_resources_find_their_server() {
    let world =
        world().server("old", Era::Legacy).server("two", Era::Legacy).toolset("all", &["old", "two"]).start().await;
    let prompts = json(world.modern(ALL, "prompts/list", None, "").await).await;
    assert_eq!(prompts["result"]["prompts"][1]["name"], "two__greet");
    let got = json(world.modern(ALL, "prompts/get", Some("two__greet"), r#""name":"two__greet""#).await).await;
    assert!(got["result"]["messages"].is_array(), "{got}");
    world.fixture("two").line(|line| line.contains(r#""name":"greet""#)).await;
    let resources = json(world.modern(ALL, "resources/list", None, "").await).await;
    assert_eq!(resources["result"]["resources"].as_array().unwrap().len(), 1, "an equal URI is listed once");
    for uri in ["file:///a", "db://7"] {
        let error = json(world.modern(ALL, "resources/read", Some(uri), &format!(r#""uri":"{uri}""#)).await).await;
        assert_eq!(error["error"]["message"], "no such thing", "the server was asked: {error}");
        world.fixture("old").line(|line| line.contains(uri)).await;
    }
    let unknown = json(world.modern(ALL, "resources/read", Some("x://y"), r#""uri":"x://y""#).await).await;
    assert_eq!(unknown["error"]["code"], -32602);
    let complete = r#""ref":{"type":"ref/prompt","name":"two__greet"},"argument":{"name":"a","value":"b"}"#;
    world.modern(ALL, "completion/complete", None, complete).await;
    world.fixture("two").line(|line| line.contains("completion/complete") && line.contains(r#""name":"greet""#)).await;
}

#[tokio::test]
async fn a_toolset_describes_itself_with_the_instructions_of_its_servers() {
    let world =
        world().server("old", Era::Legacy).server("new", Era::Modern).toolset("all", &["old", "new"]).start().await;
    let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
    let result = json(world.post(ALL, &[], body).await).await;
    assert_eq!(result["result"]["instructions"], "All of it.\n\n# old\nBe kind.");
    assert_eq!(result["result"]["serverInfo"]["name"], "all");
    assert_eq!(result["result"]["capabilities"]["tools"]["listChanged"], true);
}

const TWO_ECHO: &str = "two__echo";

#[tokio::test(start_paused = true)]
async fn a_call_to_a_member_whose_tools_are_not_known_yet_is_held_like_a_direct_one() {
    let world = world().replicated("two", &["a"]).selection("all", "two", &["echo"]).start().await;
    world.cut("a");
    let healed = async {
        tokio::time::sleep(Duration::from_millis(3500)).await;
        world.heal("a");
    };
    let (answer, ()) = tokio::join!(world.call(ALL, TWO_ECHO), healed);
    assert_eq!(answer.1["result"]["params"]["name"], "echo", "{answer:?}");
    assert_eq!(world.call(ALL, TWO_ECHO).await.1["result"]["params"]["name"], "echo");
    assert_eq!(tool_names(&json(world.modern(ALL, "tools/list", None, "").await).await), [TWO_ECHO]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_stays_away_is_not_ready_and_its_tools_are_not_called_missing() {
    let world = world().replicated("two", &["a"]).selection("all", "two", &["echo"]).start().await;
    world.cut("a");
    let (_, answer) = world.call(ALL, TWO_ECHO).await;
    assert_eq!(answer["error"]["data"]["code"], "upstream_failed", "{answer}");
    for name in ["two__slow", "echo", "three__echo"] {
        let (_, answer) = world.call(ALL, name).await;
        assert_eq!(answer["error"]["code"], -32602, "not selected, or nobody's: {answer}");
    }
    world.heal("a");
    assert_eq!(world.call(ALL, TWO_ECHO).await.1["result"]["params"]["name"], "echo", "a failed list is no knowledge");
}

#[tokio::test(start_paused = true)]
async fn what_must_be_looked_up_waits_for_the_members_lists() {
    let world = world().replicated("two", &["a"]).toolset("all", &["two"]).start().await;
    let read = || async { json(world.modern(ALL, "resources/read", Some("db://7"), r#""uri":"db://7""#).await).await };
    world.cut("a");
    let healed = async {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        world.heal("a");
    };
    let (answer, ()) = tokio::join!(read(), healed);
    assert_eq!(answer["error"]["message"], "no such thing", "the server was asked: {answer}");
    world.reroute("two", |route| route.id = toolyard_types::ServerId::generate());
    world.cut("a");
    world.lose("a");
    world.reroute("two", |route| route.target = Target::Instances(vec![world.other_instance()]));
    let answer = read().await;
    assert_eq!(answer["error"]["data"]["code"], "server_not_ready", "{answer}");
}

#[tokio::test(start_paused = true)]
async fn what_a_member_without_a_list_lists_at_last_is_told_though_nobody_asks_again() {
    let world =
        world().server("old", Era::Legacy).replicated("two", &["a"]).toolset("all", &["old", "two"]).start().await;
    let session = world.initialize(ALL, "2025-06-18").await;
    let mut stream = world.listen(ALL, &session).await.into_body();
    next_event_or_comment(&mut stream).await;
    world.cut("a");
    assert_eq!(listed(&world).await.1, BOTH[..3]);
    world.heal("a");
    assert!(next_event(&mut stream).await.contains("tools/list_changed"));
    assert!(listed(&world).await.1.contains(&TWO_ECHO.to_owned()));
}
