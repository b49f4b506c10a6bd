//! Signing in, sessions, API keys and members.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use toolyard_types::access::Role;
use toolyard_types::snapshot::KeyGrant;
use toolyard_types::{Clock, Name};

use crate::harness::{
    ADMIN_EMAIL, ADMIN_PASSWORD, Answer, OWNER_KEY, TestControl, TestDatabase, both_engines, started_at,
};
use crate::upkeep::Events;

async fn sign_in(test: &TestControl, email: &str, password: &str) -> Answer {
    let body = json!({ "email": email, "password": password }).to_string();
    let request = Request::post("/api/v1/session").header("content-type", "application/json");
    test.send(request.body(Body::from(body)).unwrap()).await
}

fn cookie_of(answer: &Answer) -> String {
    let set = answer.headers[header::SET_COOKIE].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

async fn with_cookie(test: &TestControl, method: Method, path: &str, cookie: &str, site: Option<&str>) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("cookie", cookie);
    if let Some(site) = site {
        request = request.header("sec-fetch-site", site);
    }
    test.send(request.body(Body::empty()).unwrap()).await
}

/// The connection of a proxy that is trusted.
fn peer() -> axum::extract::ConnectInfo<std::net::SocketAddr> {
    axum::extract::ConnectInfo(([127, 0, 0, 1], 4711).into())
}

/// The administrator signs in from an address, behind a proxy, in a browser that may be known.
async fn sign_in_from(test: &TestControl, address: &str, device: Option<&str>, password: &str) -> Answer {
    let body = json!({ "email": ADMIN_EMAIL, "password": password }).to_string();
    let request = Request::post("/api/v1/session").header("content-type", "application/json").extension(peer());
    let forwarded = format!("198.51.100.1, {address}");
    let request = request.header("x-forwarded-for", forwarded).header("cookie", device.unwrap_or_default());
    test.send(request.body(Body::from(body)).unwrap()).await
}

/// The cookie by which a browser is known.
fn device_of(answer: &Answer) -> String {
    let mut cookies = answer.headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookie = cookies.find(|cookie| cookie.starts_with("toolyard_device=")).unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// Asks in a session, as the console does.
async fn in_session(test: &TestControl, cookie: &str, method: Method, path: &str, body: Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("cookie", cookie);
    let request = request.header("sec-fetch-site", "same-origin").header("content-type", "application/json");
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    test.send(request.body(body).unwrap()).await
}

/// Asks in a session, as a page of the console that believes itself to be of this account.
async fn as_account(test: &TestControl, cookie: &str, account: &str, method: Method, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header("cookie", cookie);
    let request = request.header("sec-fetch-site", "same-origin").header("x-toolyard-account", account);
    test.send(request.body(Body::empty()).unwrap()).await
}

async fn make_key(test: &TestControl, by: &str, body: Value) -> Answer {
    test.ask_as(by, Method::POST, "/api/v1/keys", Some(body)).await
}

fn key_of(answer: &Answer) -> String {
    answer.body["key"].as_str().unwrap().to_owned()
}

/// What the gateway knows about a key now.
async fn grant_of(test: &TestControl, key: &str) -> Option<std::sync::Arc<KeyGrant>> {
    let digest: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    test.control.snapshots().borrow().keys.get(&digest).cloned()
}

async fn wait_until_unknown(test: &TestControl, key: &str) {
    let digest: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut snapshots = test.control.snapshots();
    let gone = snapshots.wait_for(|snapshot| !snapshot.keys.contains_key(&digest));
    tokio::time::timeout(Duration::from_secs(1), gone).await.expect("within a second").expect("snapshots go on");
}

async fn status_of(test: &TestControl, key: &str, path: &str) -> u16 {
    test.ask_as(key, Method::GET, path, None).await.status.as_u16()
}

both_engines! {
    async fn an_address_belongs_to_one_member_in_each_organization(engine) {
        let t = TestControl::start(engine).await;
        let store = t.database().open(t.clock.clone()).await;
        let tx = store.system_read("finding the administrator").await.unwrap();
        let (administrator, _) = tx.member_by_email(ADMIN_EMAIL, None).await.unwrap().unwrap();
        drop(tx);
        let mut tx = store.system("making a second tenant").await.unwrap();
        let other = tx.create_organization(&Name::new("other").unwrap()).await.unwrap();
        let mut tx = tx.into_org(other.id);
        for email in [ADMIN_EMAIL, "only@example.test"] {
            tx.create_member(email, &administrator.password_hash, Role::Viewer).await.unwrap();
        }
        tx.commit().await.unwrap();
        store.close().await;

        for (organization, expected) in [(None, "default"), (Some("default"), "default"), (Some("other"), "other")] {
            let body = json!({ "email": ADMIN_EMAIL, "password": ADMIN_PASSWORD, "organization": organization });
            let answer = t.post("/api/v1/session", body).await.expect(201);
            assert_eq!((&answer.body["organization"], &answer.body["display"]), (&json!(expected), &json!(ADMIN_EMAIL)));
        }
        let body = json!({ "email": ADMIN_EMAIL, "password": ADMIN_PASSWORD, "organization": "nobody" });
        assert_eq!(t.post("/api/v1/session", body).await.expect(401).body["code"], "invalid_credentials");
        // Whether an address is known elsewhere is not told.
        let body = json!({ "email": "only@example.test", "password": "another long password", "role": "viewer" });
        t.post("/api/v1/members", body.clone()).await.expect(201);
        t.post("/api/v1/members", body).await.expect(409);
    }

    async fn the_first_administrator_signs_in_and_the_session_cookie_is_for_this_site_only(engine) {
        let test = TestControl::start(engine).await;
        let answer = sign_in(&test, "Admin@Example.test", ADMIN_PASSWORD).await.expect(201);
        assert_eq!(answer.body["role"], json!("owner"));
        let set = answer.headers[header::SET_COOKIE].to_str().unwrap();
        for flag in ["toolyard_session=", "HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(set.contains(flag), "{set}");
        }
        let me = with_cookie(&test, Method::GET, "/api/v1/session", &cookie_of(&answer), None).await.expect(200);
        assert_eq!((&me.body["kind"], &me.body["display"]), (&json!("user"), &json!(ADMIN_EMAIL)));
    }

    async fn a_wrong_password_and_an_unknown_address_are_answered_alike(engine) {
        let test = TestControl::start(engine).await;
        let wrong = sign_in(&test, ADMIN_EMAIL, "not the password").await.expect(401);
        let unknown = sign_in(&test, "nobody@example.test", "not the password").await.expect(401);
        assert_eq!((wrong.code(), unknown.code()), ("invalid_credentials", "invalid_credentials"));
        assert_eq!(wrong.body["detail"], unknown.body["detail"]);
    }

    async fn after_five_wrong_passwords_each_further_one_has_to_wait(engine) {
        let test = TestControl::start(engine).await;
        for _ in 0..5 {
            sign_in(&test, ADMIN_EMAIL, "wrong wrong wrong").await.expect(401);
        }
        let limited = sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(429);
        assert_eq!((limited.code(), &limited.headers["retry-after"]), ("rate_limited", &"2".parse().unwrap()));
        test.clock.step_ms(2_000);
        sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201);
    }

    async fn a_session_lives_as_long_as_it_is_used_and_ends_when_it_is_not(engine) {
        let test = TestControl::start(engine).await;
        let cookie = cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await);
        for _ in 0..3 {
            test.clock.step_ms(8 * 3600 * 1000);
            with_cookie(&test, Method::GET, "/api/v1/session", &cookie, None).await.expect(200);
        }
        test.clock.step_ms(12 * 3600 * 1000);
        with_cookie(&test, Method::GET, "/api/v1/session", &cookie, None).await.expect(401);
    }

    async fn signing_out_ends_the_session(engine) {
        let test = TestControl::start(engine).await;
        let cookie = cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await);
        let out = with_cookie(&test, Method::DELETE, "/api/v1/session", &cookie, Some("same-origin")).await.expect(204);
        assert!(out.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
        with_cookie(&test, Method::GET, "/api/v1/session", &cookie, None).await.expect(401);
    }

    async fn a_revoked_key_is_refused_at_once(engine) {
        let test = TestControl::start(engine).await;
        let made = make_key(&test, OWNER_KEY, json!({ "name": "ci", "role": "developer" })).await.expect(201);
        let key = key_of(&made);
        assert!(key.starts_with("ty_") && key.len() == 67);
        assert_eq!(status_of(&test, &key, "/api/v1/session").await, 200);
        let id = made.body["id"].as_str().unwrap();
        test.delete(&format!("/api/v1/keys/{id}")).await.expect(204);
        assert_eq!(status_of(&test, &key, "/api/v1/session").await, 401);
        let listed = test.get(&format!("/api/v1/keys/{id}")).await.expect(200);
        assert!(listed.body["revoked_at"].is_string() && listed.body["key"].is_null());
    }

    async fn a_key_ends_when_its_days_are_over(engine) {
        let test = TestControl::start(engine).await;
        let made = make_key(&test, OWNER_KEY, json!({ "name": "ci", "role": "viewer", "expires_in_days": 1 })).await;
        let key = key_of(&made.expect(201));
        test.clock.step_ms(24 * 3600 * 1000 - 1);
        assert_eq!(status_of(&test, &key, "/api/v1/session").await, 200);
        test.clock.step_ms(1);
        assert_eq!(status_of(&test, &key, "/api/v1/session").await, 401);
    }

    async fn a_key_reaches_no_further_than_its_maker(engine) {
        let test = TestControl::start(engine).await;
        let developer = key_of(&make_key(&test, OWNER_KEY, json!({ "name": "dev", "role": "developer" })).await);
        let above = make_key(&test, &developer, json!({ "name": "up", "role": "admin" })).await.expect(403);
        assert_eq!(above.code(), "forbidden");
        make_key(&test, &developer, json!({ "name": "same", "role": "developer" })).await.expect(201);

        let scope = json!({ "actions": ["key:manage", "server:read"], "resources": ["a"] });
        let narrow = json!({ "name": "narrow", "role": "owner", "scope": scope });
        let narrow = key_of(&make_key(&test, OWNER_KEY, narrow).await.expect(201));
        make_key(&test, &narrow, json!({ "name": "wide", "role": "owner" })).await.expect(403);
        let within = json!({ "actions": ["server:read"], "resources": ["a"] });
        make_key(&test, &narrow, json!({ "name": "within", "role": "owner", "scope": within })).await.expect(201);
    }

    async fn a_narrowed_key_does_only_its_actions_and_why_names_the_rule(engine) {
        let test = TestControl::start(engine).await;
        let scope = json!({ "actions": ["member:read"], "resources": [] });
        let made = make_key(&test, OWNER_KEY, json!({ "name": "narrow", "role": "owner", "scope": scope })).await;
        let key = key_of(&made.expect(201));
        assert_eq!(status_of(&test, &key, "/api/v1/members").await, 200);
        assert_eq!(status_of(&test, &key, "/api/v1/audit").await, 403);
        let why = test.get("/api/v1/why?action=audit:read&key=narrow").await.expect(200);
        assert_eq!(why.body["allowed"], json!(false));
        assert!(why.body["because"][0].as_str().unwrap().starts_with("key-scope-actions: "), "{}", why.text);
        let why = test.get("/api/v1/why?action=server:delete&resource=server/x").await.expect(200);
        assert_eq!((&why.body["allowed"], &why.body["because"]), (&json!(true), &json!(["owner-all: owners do everything"])));
    }

    async fn developers_see_and_revoke_only_their_own_keys(engine) {
        let test = TestControl::start(engine).await;
        let other = make_key(&test, OWNER_KEY, json!({ "name": "other", "role": "viewer" })).await.expect(201);
        let developer = key_of(&make_key(&test, OWNER_KEY, json!({ "name": "dev", "role": "developer" })).await);
        let own = make_key(&test, &developer, json!({ "name": "own", "role": "viewer" })).await.expect(201);

        let listed = test.ask_as(&developer, Method::GET, "/api/v1/keys", None).await.expect(200);
        let names: Vec<_> = listed.body["items"].as_array().unwrap().iter().map(|key| key["name"].clone()).collect();
        assert_eq!(names, [json!("own")]);
        let path = |answer: &Answer| format!("/api/v1/keys/{}", answer.body["id"].as_str().unwrap());
        test.ask_as(&developer, Method::DELETE, &path(&other), None).await.expect(404);
        test.ask_as(&developer, Method::DELETE, &path(&own), None).await.expect(204);
    }

    async fn the_last_owner_stays_and_a_second_one_frees_the_first(engine) {
        let test = TestControl::start(engine).await;
        let members = test.get("/api/v1/members").await.expect(200);
        let path = format!("/api/v1/members/{}", members.body["items"][0]["id"].as_str().unwrap());
        assert_eq!(test.delete(&path).await.expect(409).code(), "conflict");
        assert_eq!(test.patch(&path, json!({ "role": "viewer" })).await.expect(409).code(), "conflict");
        let second = json!({ "email": "second@example.test", "role": "owner", "password": "another-long-password" });
        test.post("/api/v1/members", second).await.expect(201);
        test.patch(&path, json!({ "role": "viewer" })).await.expect(200);
    }

    async fn admins_cannot_make_or_change_owners(engine) {
        let test = TestControl::start(engine).await;
        let admin = key_of(&make_key(&test, OWNER_KEY, json!({ "name": "admin", "role": "admin" })).await);
        let owner = json!({ "email": "o@example.test", "role": "owner", "password": "another-long-password" });
        test.ask_as(&admin, Method::POST, "/api/v1/members", Some(owner)).await.expect(403);
        let members = test.get("/api/v1/members").await;
        let path = format!("/api/v1/members/{}", members.body["items"][0]["id"].as_str().unwrap());
        let password = json!({ "password": "taken-over-by-admin" });
        test.ask_as(&admin, Method::PATCH, &path, Some(password)).await.expect(403);
    }

    async fn a_narrowed_key_gives_nobody_a_role_that_it_does_not_hold_itself(engine) {
        let test = TestControl::start(engine).await;
        let narrowed = async |name: &str, scope: Value| {
            let key = json!({ "name": name, "role": "owner", "scope": scope });
            key_of(&make_key(&test, OWNER_KEY, key).await.expect(201))
        };
        let member = |email: &str, role: &str| json!({ "email": email, "role": role, "password": "a-first-password" });
        let viewer = test.post("/api/v1/members", member("v@example.test", "viewer")).await.expect(201);
        let developer = test.post("/api/v1/members", member("d@example.test", "developer")).await.expect(201);
        let path = |member: &Answer| format!("/api/v1/members/{}", member.body["id"].as_str().unwrap());
        let refused = async |key: &str, method: Method, path: &str, body: Value, why: &str| {
            let refused = test.ask_as(key, method, path, Some(body)).await.expect(403);
            let detail = refused.body["detail"].as_str().unwrap();
            assert!(refused.code() == "forbidden" && detail.contains(why), "{detail}");
        };
        let more = "is more than you may do: `catalog:read`, ";

        let manages = narrowed("manages", json!({ "actions": ["member:manage"] })).await;
        for role in ["owner", "admin", "operator", "developer", "viewer"] {
            refused(&manages, Method::POST, "/api/v1/members", member("new@example.test", role), more).await;
        }
        sign_in(&test, "new@example.test", "a-first-password").await.expect(401);
        for change in [json!({ "password": "a-taken-over-one" }), json!({ "role": "owner" }), json!({ "role": "viewer" })] {
            refused(&manages, Method::PATCH, &path(&viewer), change, more).await;
        }
        let keys = json!({ "revoke_keys": true });
        refused(&manages, Method::PATCH, &path(&viewer), keys, "`key:manage` is refused: key-scope-actions").await;
        sign_in(&test, "v@example.test", "a-first-password").await.expect(201);

        // With all of a viewer's actions it makes viewers, and no developer a viewer.
        let actions = [
            "member:manage", "catalog:read", "server:read", "toolset:read", "toolbox:read", "flag:read", "event:read",
            "policy:explain",
        ];
        let invites = narrowed("invites", json!({ "actions": actions })).await;
        let new = member("new@example.test", "viewer");
        test.ask_as(&invites, Method::POST, "/api/v1/members", Some(new)).await.expect(201);
        let password = json!({ "password": "another-first-one" });
        test.ask_as(&invites, Method::PATCH, &path(&viewer), Some(password.clone())).await.expect(200);
        let more = "is more than you may do: `catalog:rate`, ";
        refused(&invites, Method::POST, "/api/v1/members", member("e@example.test", "developer"), more).await;
        refused(&invites, Method::PATCH, &path(&viewer), json!({ "role": "developer" }), more).await;
        refused(&invites, Method::PATCH, &path(&developer), json!({ "role": "viewer" }), more).await;
        refused(&invites, Method::PATCH, &path(&developer), password, more).await;
        // Nor does it take a role away that it does not hold, with the keys that were made with it.
        for (key, member) in [(&manages, &viewer), (&invites, &developer)] {
            let kept = test.ask_as(key, Method::DELETE, &path(member), None).await.expect(403);
            assert!(kept.text.contains("is more than you may do: "), "{}", kept.text);
        }
        test.ask_as(&invites, Method::DELETE, &path(&viewer), None).await.expect(204);

        let servers = narrowed("servers", json!({ "resources": ["a"] })).await;
        let rule = "key-scope-manages-nothing-else";
        refused(&servers, Method::POST, "/api/v1/members", member("f@example.test", "viewer"), rule).await;
        let admin = key_of(&make_key(&test, OWNER_KEY, json!({ "name": "admin", "role": "admin" })).await.expect(201));
        let second = Some(member("a@example.test", "admin"));
        test.ask_as(&admin, Method::POST, "/api/v1/members", second).await.expect(201);
    }

    async fn members_hear_of_their_own_session_and_of_what_their_role_of_now_reads(engine) {
        let test = TestControl::start(engine).await;
        let member = json!({ "email": "d@example.test", "role": "developer", "password": "a-first-password" });
        let member = test.post("/api/v1/members", member).await.expect(201);
        let id = member.body["id"].as_str().unwrap();
        let session = cookie_of(&sign_in(&test, "d@example.test", "a-first-password").await.expect(201));
        let others = cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201));
        for cookie in [&others, &session] {
            let path = "/api/v1/session/mcp-key";
            with_cookie(&test, Method::POST, path, cookie, Some("same-origin")).await.expect(201);
        }
        let mut events = Events::open_with(&test, ("cookie", &session), None).await;
        test.patch(&format!("/api/v1/members/{id}"), json!({ "role": "viewer" })).await.expect(200);
        test.put("/api/v1/credentials/a", json!({ "secret": "x" })).await.expect(200);
        test.put("/api/v1/flags/server_clone", json!({ "everyone": false })).await.expect(200);
        let mut kinds = Vec::new();
        while kinds.last() != Some(&json!("flag.changed")) {
            kinds.push(events.next().await.expect("the stream goes on")["kind"].clone());
        }
        // A viewer reads no credentials, whatever the role was when the stream began.
        assert!(kinds.contains(&json!("member.changed")) && !kinds.contains(&json!("credential.changed")), "{kinds:?}");
        drop(events);

        let events = Events::open_with(&test, ("cookie", &session), Some(0)).await;
        with_cookie(&test, Method::DELETE, "/api/v1/session", &session, Some("same-origin")).await.expect(204);
        let heard = events.rest().await;
        let sessions: Vec<_> = heard.iter().filter(|event| event.starts_with("session.")).collect();
        assert_eq!(sessions.len(), 1, "{heard:?}");
        let of_members: Vec<_> = heard.iter().filter(|event| event.starts_with("member.")).collect();
        assert_eq!(of_members, [&format!("member.changed member/{id}")]);
    }

    async fn a_member_hears_in_each_session_of_the_others_of_theirs_and_no_other_member_does(engine) {
        let test = TestControl::start(engine).await;
        let (mut sessions, password) = (Vec::new(), "a-first-password");
        for email in ["v@example.test", "w@example.test"] {
            let member = json!({ "email": email, "role": "developer", "password": password });
            test.post("/api/v1/members", member).await.expect(201);
            sessions.push(cookie_of(&sign_in(&test, email, password).await.expect(201)));
        }
        let other = cookie_of(&sign_in(&test, "v@example.test", password).await.expect(201));
        let mut heard = Vec::new();
        for session in &sessions {
            heard.push(Events::open_with(&test, ("cookie", session), None).await);
        }
        with_cookie(&test, Method::POST, "/api/v1/session/mcp-key", &other, Some("same-origin")).await.expect(201);
        with_cookie(&test, Method::DELETE, "/api/v1/session", &other, Some("same-origin")).await.expect(204);
        test.put("/api/v1/flags/server_clone", json!({ "everyone": false })).await.expect(200);
        for (mut events, expected) in heard.into_iter().zip([2, 0]) {
            let mut kinds = Vec::new();
            while kinds.last() != Some(&json!("flag.changed")) {
                kinds.push(events.next().await.expect("the stream goes on")["kind"].clone());
            }
            let of_sessions = kinds.iter().filter(|kind| **kind == json!("session.changed")).count();
            assert_eq!(of_sessions, expected, "{kinds:?}");
        }
    }

    async fn a_secret_that_was_replaced_makes_no_join_tokens(engine) {
        let test = TestControl::start(engine).await;
        let made = make_key(&test, OWNER_KEY, json!({ "name": "ops", "role": "operator" })).await.expect(201);
        let path = format!("/api/v1/keys/{}/rotate", made.body["id"].as_str().unwrap());
        let rotated = test.post(&path, json!({ "overlap_seconds": 3600 })).await.expect(200);
        let (old, new) = (key_of(&made), key_of(&rotated));
        let enroll = async |key: &str| {
            test.ask_as(key, Method::POST, "/api/v1/toolboxes", Some(json!({ "name": "edge" }))).await
        };
        enroll(&old).await.expect(403);
        enroll(&new).await.expect(201);
        let rejoin = "/api/v1/toolboxes/edge/rejoin";
        test.ask_as(&old, Method::POST, rejoin, Some(json!({}))).await.expect(403);
        test.ask_as(&new, Method::POST, rejoin, Some(json!({}))).await.expect(200);
        assert_eq!(status_of(&test, &old, "/api/v1/toolboxes").await, 200);
    }

    async fn a_secret_that_was_replaced_gets_no_answer_that_the_new_one_gets_again(engine) {
        let test = TestControl::start(engine).await;
        let made = make_key(&test, OWNER_KEY, json!({ "name": "ci", "role": "admin" })).await.expect(201);
        let once = async |key: &str| {
            let request = Request::post("/api/v1/keys").header("authorization", format!("Bearer {key}"));
            let request = request.header("content-type", "application/json").header("idempotency-key", "one");
            let body = json!({ "name": "child", "role": "viewer" }).to_string();
            test.send(request.body(Body::from(body)).unwrap()).await
        };
        let old = key_of(&made);
        let child = key_of(&once(&old).await.expect(201));
        let path = format!("/api/v1/keys/{}/rotate", made.body["id"].as_str().unwrap());
        let new = key_of(&test.post(&path, json!({ "overlap_seconds": 3600 })).await.expect(200));
        let refused = once(&old).await.expect(403);
        assert!(refused.code() == "forbidden" && !refused.text.contains(&child), "{}", refused.text);
        let again = once(&new).await.expect(201);
        assert_eq!(key_of(&again), child);
        assert_eq!(again.headers["idempotent-replayed"], "true");
    }

    async fn signing_in_again_ends_the_session_that_the_browser_had_and_no_other(engine) {
        let test = TestControl::start(engine).await;
        let member = json!({ "email": "v@example.test", "role": "developer", "password": "a-first-password" });
        test.post("/api/v1/members", member).await.expect(201);
        let again = async |cookie: &str, email: &str, password: &str| {
            let body = json!({ "email": email, "password": password });
            in_session(&test, cookie, Method::POST, "/api/v1/session", body).await
        };
        let status = async |cookie: &str| {
            with_cookie(&test, Method::GET, "/api/v1/session", cookie, None).await.status.as_u16()
        };
        let elsewhere = cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201));
        let first = cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201));
        let path = "/api/v1/session/mcp-key";
        let key = key_of(&with_cookie(&test, Method::POST, path, &first, Some("same-origin")).await.expect(201));
        again(&first, ADMIN_EMAIL, "a-wrong-password").await.expect(401);
        assert_eq!(status(&first).await, 200);

        let second = cookie_of(&again(&first, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201));
        assert_eq!((status(&first).await, status(&second).await), (401, 200));
        wait_until_unknown(&test, &key).await;
        // Also when it is another's from now on; one that has ended is in nobody's way.
        let third = cookie_of(&again(&second, "v@example.test", "a-first-password").await.expect(201));
        assert_eq!((status(&second).await, status(&third).await), (401, 200));
        let last = cookie_of(&again(&second, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201));
        assert_eq!((status(&third).await, status(&last).await, status(&elsewhere).await), (200, 200, 200));
        let ended = test.get("/api/v1/audit?action=session.delete").await.expect(200);
        assert_eq!(ended.body["items"].as_array().unwrap().len(), 2);
    }

    async fn signing_in_to_another_organization_ends_the_session_that_the_browser_had(engine) {
        let test = TestControl::start(engine).await;
        let store = test.database().open(test.clock.clone()).await;
        let tx = store.system_read("finding the administrator").await.unwrap();
        let (administrator, _) = tx.member_by_email(ADMIN_EMAIL, None).await.unwrap().unwrap();
        drop(tx);
        let mut tx = store.system("making a second tenant").await.unwrap();
        let other = tx.create_organization(&Name::new("other").unwrap()).await.unwrap();
        let mut tx = tx.into_org(other.id);
        tx.create_member(ADMIN_EMAIL, &administrator.password_hash, Role::Viewer).await.unwrap();
        tx.commit().await.unwrap();
        store.close().await;

        let before = cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201));
        let body = json!({ "email": ADMIN_EMAIL, "password": ADMIN_PASSWORD, "organization": "other" });
        let now = in_session(&test, &before, Method::POST, "/api/v1/session", body).await.expect(201);
        assert_eq!(now.body["organization"], json!("other"));
        for (cookie, expected) in [(before, 401), (cookie_of(&now), 200)] {
            with_cookie(&test, Method::GET, "/api/v1/session", &cookie, None).await.expect(expected);
        }
    }

    async fn a_removed_member_loses_sessions_and_keys(engine) {
        let test = TestControl::start(engine).await;
        let member = json!({ "email": "dev@example.test", "role": "admin", "password": "another-long-password" });
        let member = test.post("/api/v1/members", member).await.expect(201);
        let signed_in = sign_in(&test, "dev@example.test", "another-long-password").await.expect(201);
        let cookie = cookie_of(&signed_in);
        let request = Request::post("/api/v1/keys").header("cookie", &cookie).header("sec-fetch-site", "same-origin");
        let body = json!({ "name": "mine", "role": "developer" }).to_string();
        let request = request.header("content-type", "application/json").body(Body::from(body)).unwrap();
        let key = key_of(&test.send(request).await.expect(201));

        test.delete(&format!("/api/v1/members/{}", member.body["id"].as_str().unwrap())).await.expect(204);
        with_cookie(&test, Method::GET, "/api/v1/session", &cookie, None).await.expect(401);
        assert_eq!(status_of(&test, &key, "/api/v1/session").await, 401);
    }

    async fn a_session_gets_a_key_for_mcp_that_ends_with_it(engine) {
        let test = TestControl::start(engine).await;
        let mut cookies = Vec::new();
        for _ in 0..2 {
            cookies.push(cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201)));
        }
        let path = "/api/v1/session/mcp-key";
        let made = with_cookie(&test, Method::POST, path, &cookies[0], Some("same-origin")).await.expect(201);
        assert_eq!(made.body["expires_at"], json!("2026-11-22T12:15:00.000Z"));
        let key = key_of(&made);
        let grant = grant_of(&test, &key).await.expect("the gateway knows it at once");
        assert_eq!((grant.role.as_str(), grant.name.as_str(), grant.scope.is_none()), ("owner", ADMIN_EMAIL, true));
        assert!(grant.actor().to_string().starts_with("user:"));
        // It is for MCP alone, and none of the API keys.
        assert_eq!(status_of(&test, &key, "/api/v1/session").await, 401);
        let listed = test.get("/api/v1/keys").await.expect(200);
        assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
        // A page that speaks MCP asks for one: the audit log has the sign-in, and nothing for each page.
        let audit = test.get("/api/v1/audit?action=session").await.expect(200);
        let actions: Vec<_> = audit.body["items"].as_array().unwrap().iter().map(|line| &line["action"]).collect();
        assert_eq!(actions, ["session.create", "session.create"]);

        with_cookie(&test, Method::DELETE, "/api/v1/session", &cookies[0], Some("same-origin")).await.expect(204);
        wait_until_unknown(&test, &key).await;

        let other = key_of(&with_cookie(&test, Method::POST, path, &cookies[1], Some("same-origin")).await.expect(201));
        assert!(grant_of(&test, &other).await.is_some());
        let members = test.get("/api/v1/members").await.expect(200);
        let member = format!("/api/v1/members/{}", members.body["items"][0]["id"].as_str().unwrap());
        test.patch(&member, json!({ "password": "somebody-knows-the-old-one" })).await.expect(200);
        wait_until_unknown(&test, &other).await;
    }

    async fn only_a_session_in_its_own_site_that_may_call_gets_a_key_for_mcp(engine) {
        let test = TestControl::start(engine).await;
        let path = "/api/v1/session/mcp-key";
        assert_eq!(test.ask(Method::POST, path, None).await.expect(409).code(), "conflict");
        let cookie = cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201));
        let foreign = with_cookie(&test, Method::POST, path, &cookie, Some("cross-site")).await.expect(403);
        assert_eq!(foreign.code(), "csrf_rejected");
        let viewer = json!({ "email": "v@example.test", "role": "viewer", "password": "the-first-password" });
        test.post("/api/v1/members", viewer).await.expect(201);
        let cookie = cookie_of(&sign_in(&test, "v@example.test", "the-first-password").await.expect(201));
        with_cookie(&test, Method::POST, path, &cookie, Some("same-origin")).await.expect(403);
    }

    async fn a_request_that_was_meant_for_another_account_is_refused_and_does_nothing(engine) {
        let test = TestControl::start(engine).await;
        let member = json!({ "email": "o@example.test", "role": "operator", "password": "the-first-password" });
        test.post("/api/v1/members", member).await.expect(201);
        let account_of = |answer: &Answer| answer.body["account"].as_str().unwrap().to_owned();
        let before = account_of(&sign_in(&test, "o@example.test", "the-first-password").await.expect(201));
        let signed_in = sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201);
        let (own, cookie) = (account_of(&signed_in), cookie_of(&signed_in));
        assert_ne!(own, before);
        let path = "/api/v1/session";
        for method in [Method::GET, Method::DELETE] {
            for meant in [before.as_str(), ""] {
                let refused = as_account(&test, &cookie, meant, method.clone(), path).await.expect(409);
                assert_eq!(refused.code(), "account_changed");
            }
        }
        let session = as_account(&test, &cookie, &own, Method::GET, path).await.expect(200);
        assert_eq!(account_of(&session), own);
        as_account(&test, &cookie, &own, Method::DELETE, path).await.expect(204);
    }

    async fn a_session_keeps_its_newest_keys_for_mcp_and_none_beyond_its_end(engine) {
        let test = TestControl::start(engine).await;
        let cookie = cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201));
        let path = "/api/v1/session/mcp-key";
        let mut keys = Vec::new();
        for _ in 0..9 {
            keys.push(with_cookie(&test, Method::POST, path, &cookie, Some("same-origin")).await.expect(201));
        }
        wait_until_unknown(&test, &key_of(&keys[0])).await;
        assert!(grant_of(&test, &key_of(&keys[8])).await.is_some());
        test.clock.step_ms(15 * 60 * 1000);
        test.put("/api/v1/flags/server_clone", json!({ "everyone": true })).await.expect(200);
        wait_until_unknown(&test, &key_of(&keys[8])).await;
    }

    async fn a_made_up_password_asks_for_another_one_and_an_address(engine) {
        let database = TestDatabase::create(engine).await;
        let test = TestControl::with(database, Clock::stopped_at(started_at()), |options| {
            options.bootstrap.admin_email = None;
            options.bootstrap.admin_password = None;
        })
        .await;
        let first = test.control.take_first_sign_in().expect("a password was made up");
        let signed_in = sign_in(&test, &first.email, first.password.expose()).await.expect(201);
        assert_eq!(signed_in.body["first_run"], json!(true));
        let cookie = cookie_of(&signed_in);
        let me = with_cookie(&test, Method::GET, "/api/v1/session", &cookie, None).await.expect(200);
        assert_eq!(me.body["first_run"], json!(true));
        let change = async |email: &str| {
            let request = Request::put("/api/v1/session/password").header("cookie", &cookie);
            let request = request.header("sec-fetch-site", "same-origin").header("content-type", "application/json");
            let body = json!({
                "current_password": first.password.expose(), "new_password": "one-of-my-own-12", "email": email
            });
            test.send(request.body(Body::from(body.to_string())).unwrap()).await
        };
        assert_eq!(change("no address").await.expect(422).body["errors"][0]["field"], json!("email"));
        change("Me@example.test").await.expect(204);
        sign_in(&test, &first.email, "one-of-my-own-12").await.expect(401);
        let again = sign_in(&test, "me@example.test", "one-of-my-own-12").await.expect(201);
        assert_eq!((&again.body["first_run"], &again.body["display"]), (&json!(false), &json!("me@example.test")));
    }

    async fn everybody_changes_their_own_password_with_the_one_they_have(engine) {
        let test = TestControl::start(engine).await;
        let member = json!({ "email": "v@example.test", "role": "viewer", "password": "the-first-password" });
        test.post("/api/v1/members", member).await.expect(201);
        let cookie = cookie_of(&sign_in(&test, "v@example.test", "the-first-password").await.expect(201));
        let change = async |current: &str, new: &str| {
            let request = Request::put("/api/v1/session/password").header("cookie", &cookie);
            let request = request.header("sec-fetch-site", "same-origin").header("content-type", "application/json");
            let body = json!({ "current_password": current, "new_password": new }).to_string();
            test.send(request.body(Body::from(body)).unwrap()).await
        };
        let wrong = change("not-the-password", "the-second-password").await.expect(422);
        assert_eq!(wrong.body["errors"][0]["field"], json!("current_password"));
        change("the-first-password", "short").await.expect(422);
        change("the-first-password", "the-second-password").await.expect(204);
        with_cookie(&test, Method::GET, "/api/v1/session", &cookie, None).await.expect(401);
        sign_in(&test, "v@example.test", "the-first-password").await.expect(401);
        sign_in(&test, "v@example.test", "the-second-password").await.expect(201);
        let body = json!({ "current_password": "x", "new_password": "the-third-password" });
        test.put("/api/v1/session/password", body).await.expect(409);
    }

    async fn keys_that_a_removed_members_keys_made_are_revoked_too(engine) {
        let test = TestControl::start(engine).await;
        let member = json!({ "email": "dev@example.test", "role": "admin", "password": "another-long-password" });
        let member = test.post("/api/v1/members", member).await.expect(201);
        let cookie = cookie_of(&sign_in(&test, "dev@example.test", "another-long-password").await.expect(201));
        let request = Request::post("/api/v1/keys").header("cookie", &cookie).header("sec-fetch-site", "same-origin");
        let body = json!({ "name": "first", "role": "admin" }).to_string();
        let request = request.header("content-type", "application/json").body(Body::from(body)).unwrap();
        let first = test.send(request).await.expect(201);
        let second = key_of(&make_key(&test, &key_of(&first), json!({ "name": "second", "role": "admin" })).await);
        let path = format!("/api/v1/members/{}", member.body["id"].as_str().unwrap());
        test.patch(&path, json!({ "role": "viewer" })).await.expect(200);
        assert_eq!(status_of(&test, &second, "/api/v1/session").await, 401, "it has more power than its maker now");
    }

    async fn a_key_made_with_a_key_ends_no_later_than_it(engine) {
        let test = TestControl::start(engine).await;
        let short = make_key(&test, OWNER_KEY, json!({ "name": "a", "role": "admin", "expires_in_days": 1 })).await;
        let asked = json!({ "name": "b", "role": "viewer", "expires_in_days": 3650 });
        let made = make_key(&test, &key_of(&short), asked).await.expect(201);
        assert_eq!(made.body["expires_at"], json!("2026-11-23T12:00:00.000Z"));
    }

    async fn every_key_ends_some_day(engine) {
        let test = TestControl::start(engine).await;
        for days in [json!(0), json!(3651)] {
            let refused = make_key(&test, OWNER_KEY, json!({ "name": "a", "role": "viewer", "expires_in_days": days }));
            let refused = refused.await.expect(422);
            assert_eq!(refused.body["errors"][0]["field"], json!("expires_in_days"));
        }
        let usual = make_key(&test, OWNER_KEY, json!({ "name": "a", "role": "viewer" })).await.expect(201);
        assert_eq!(usual.body["expires_at"], json!("2027-02-20T12:00:00.000Z"));
    }

    async fn revoking_a_key_ends_the_keys_made_with_it_which_are_listed_before(engine) {
        let test = TestControl::start(engine).await;
        let make = async |by: &str, name: &str| {
            make_key(&test, by, json!({ "name": name, "role": "developer" })).await.expect(201)
        };
        let first = make(OWNER_KEY, "first").await;
        let second = make(&key_of(&first), "second").await;
        let third = make(&key_of(&second), "third").await;
        let other = make(OWNER_KEY, "other").await;
        assert_eq!(third.body["parent"], second.body["id"]);
        let children = async |key: &Answer| {
            let path = format!("/api/v1/keys?made_by=api_key:{}&active=true", key.body["id"].as_str().unwrap());
            let listed = test.get(&path).await.expect(200).body;
            listed["items"].as_array().unwrap().iter().map(|key| key["name"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(children(&first).await, [json!("second"), json!("third")]);
        // A developer sees what was made with a key of theirs, and only that.
        let mine = test.ask_as(&key_of(&first), Method::GET, "/api/v1/keys?made_by=me", None).await.expect(200);
        assert_eq!(mine.body["items"].as_array().unwrap().len(), 2);
        let path = format!("/api/v1/keys/{}", third.body["id"].as_str().unwrap());
        test.ask_as(&key_of(&first), Method::GET, &path, None).await.expect(200);
        let path = format!("/api/v1/keys?made_by=api_key:{}", other.body["id"].as_str().unwrap());
        test.ask_as(&key_of(&first), Method::GET, &path, None).await.expect(404);

        test.delete(&format!("/api/v1/keys/{}", first.body["id"].as_str().unwrap())).await.expect(204);
        for key in [&first, &second, &third] {
            assert_eq!(status_of(&test, &key_of(key), "/api/v1/session").await, 401);
        }
        assert_eq!(status_of(&test, &key_of(&other), "/api/v1/session").await, 200);
        assert!(children(&first).await.is_empty());
        let audit = test.get("/api/v1/audit?action=api_key.revoke").await.expect(200);
        assert_eq!(audit.body["items"][0]["detail"]["children"]["count"], json!(2));
    }

    async fn a_rotated_key_keeps_its_id_and_its_children_and_the_secret_before_ends(engine) {
        let test = TestControl::start(engine).await;
        let made = make_key(&test, OWNER_KEY, json!({ "name": "ci", "role": "developer" })).await.expect(201);
        let child = make_key(&test, &key_of(&made), json!({ "name": "child", "role": "viewer" })).await.expect(201);
        let path = format!("/api/v1/keys/{}/rotate", made.body["id"].as_str().unwrap());
        let rotated = test.ask(Method::POST, &path, None).await.expect(200);
        for field in ["id", "name", "role", "created_at", "expires_at"] {
            assert_eq!(rotated.body[field], made.body[field], "{field}");
        }
        let (old, new) = (key_of(&made), key_of(&rotated));
        assert_eq!(status_of(&test, &old, "/api/v1/session").await, 401);
        assert_eq!(status_of(&test, &new, "/api/v1/session").await, 200);
        assert_eq!(status_of(&test, &key_of(&child), "/api/v1/session").await, 200);
        wait_until_unknown(&test, &old).await;
        assert!(grant_of(&test, &new).await.is_some());

        // With an overlap the one before works for a while, and makes no power of its own meanwhile.
        let next = test.post(&path, json!({ "overlap_seconds": 3600 })).await.expect(200);
        assert_eq!(next.body["previous_ends_at"], json!("2026-11-22T13:00:00.000Z"));
        assert_eq!(status_of(&test, &new, "/api/v1/session").await, 200);
        assert!(grant_of(&test, &new).await.is_some() && grant_of(&test, &key_of(&next)).await.is_some());
        test.ask_as(&new, Method::POST, &path, None).await.expect(403);
        make_key(&test, &new, json!({ "name": "late", "role": "viewer" })).await.expect(403);
        test.clock.step_ms(3600 * 1000);
        assert_eq!(status_of(&test, &new, "/api/v1/session").await, 401);
        assert_eq!(status_of(&test, &key_of(&next), "/api/v1/session").await, 200);

        // The key itself may do it too, and does not outlive its own end by that.
        let itself = json!({ "expires_in_days": 3650 });
        let itself = test.ask_as(&key_of(&next), Method::POST, &path, Some(itself)).await.expect(200);
        assert_eq!(itself.body["expires_at"], made.body["expires_at"]);
        let longer = test.post(&path, json!({ "expires_in_days": 365 })).await.expect(200);
        assert_eq!(longer.body["expires_at"], json!("2027-11-22T13:00:00.000Z"));
        test.post(&path, json!({ "overlap_seconds": 604_801 })).await.expect(422);
        test.post(&path, json!({ "expires_in_days": 0 })).await.expect(422);
    }

    async fn whoever_rotates_a_key_gets_no_more_power_than_they_have(engine) {
        let test = TestControl::start(engine).await;
        let owners = make_key(&test, OWNER_KEY, json!({ "name": "owners", "role": "owner" })).await.expect(201);
        let admin = key_of(&make_key(&test, OWNER_KEY, json!({ "name": "admin", "role": "admin" })).await);
        let path = |key: &Answer| format!("/api/v1/keys/{}/rotate", key.body["id"].as_str().unwrap());
        test.ask_as(&admin, Method::POST, &path(&owners), None).await.expect(403);
        assert_eq!(status_of(&test, &key_of(&owners), "/api/v1/session").await, 200);
        let developer = key_of(&make_key(&test, OWNER_KEY, json!({ "name": "dev", "role": "developer" })).await);
        test.ask_as(&developer, Method::POST, &path(&owners), None).await.expect(404);

        let revoked = make_key(&test, OWNER_KEY, json!({ "name": "gone", "role": "viewer" })).await.expect(201);
        test.delete(&format!("/api/v1/keys/{}", revoked.body["id"].as_str().unwrap())).await.expect(204);
        assert_eq!(test.post(&path(&revoked), json!({})).await.expect(409).code(), "conflict");
        // The bootstrap key is a setting: the next start would bring the old secret back.
        let listed = test.get("/api/v1/keys").await.expect(200);
        let bootstrap = listed.body["items"].as_array().unwrap().iter().find(|key| key["name"] == "bootstrap").unwrap();
        let path = format!("/api/v1/keys/{}/rotate", bootstrap["id"].as_str().unwrap());
        test.post(&path, json!({})).await.expect(409);
    }

    async fn a_session_makes_keys_and_members_only_shortly_after_the_password(engine) {
        let test = TestControl::start(engine).await;
        let cookie = cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201));
        let send = async |method, path: &str, body: Value| in_session(&test, &cookie, method, path, body).await;
        let key = |name: &str| json!({ "name": name, "role": "viewer" });
        let member = |email: &str| json!({ "email": email, "role": "viewer", "password": "a-first-password" });
        test.clock.step_ms(5 * 60 * 1000);
        let first = send(Method::POST, "/api/v1/keys", key("in-time")).await.expect(201);
        let joined = send(Method::POST, "/api/v1/members", member("a@example.test")).await.expect(201);

        test.clock.step_ms(1);
        let rotate = format!("/api/v1/keys/{}/rotate", first.body["id"].as_str().unwrap());
        let path = format!("/api/v1/members/{}", joined.body["id"].as_str().unwrap());
        let refused = async |method, path: &str, body: Value| {
            let refused = send(method, path, body).await.expect(403);
            assert_eq!(refused.code(), "reauthentication_required", "{path}");
        };
        refused(Method::POST, "/api/v1/keys", key("late")).await;
        refused(Method::POST, &rotate, json!({})).await;
        refused(Method::POST, "/api/v1/members", member("b@example.test")).await;
        refused(Method::PATCH, &path, json!({ "role": "admin" })).await;
        refused(Method::PATCH, &path, json!({ "password": "a-taken-over-one" })).await;
        // An API key, and everything else in the session, go on as before.
        make_key(&test, OWNER_KEY, key("by-key")).await.expect(201);
        let gone = format!("/api/v1/keys/{}", first.body["id"].as_str().unwrap());
        send(Method::DELETE, &gone, json!(null)).await.expect(204);

        let again = async |password: &str| {
            send(Method::POST, "/api/v1/session/authentication", json!({ "password": password })).await
        };
        let wrong = again("not the password").await.expect(422);
        assert_eq!(wrong.body["errors"][0]["field"], json!("password"));
        refused(Method::POST, "/api/v1/keys", key("late")).await;
        let right = again(ADMIN_PASSWORD).await.expect(200);
        assert_eq!(right.body["authenticated_at"], json!("2026-11-22T12:05:00.001Z"));
        send(Method::POST, "/api/v1/keys", key("late")).await.expect(201);
        test.ask(Method::POST, "/api/v1/session/authentication", Some(json!({ "password": "x" }))).await.expect(409);
    }

    async fn keys_end_with_a_password_where_that_is_asked_for(engine) {
        let test = TestControl::start(engine).await;
        let member = json!({ "email": "dev@example.test", "role": "developer", "password": "the-first-password" });
        let member = test.post("/api/v1/members", member).await.expect(201);
        let cookie = cookie_of(&sign_in(&test, "dev@example.test", "the-first-password").await.expect(201));
        let send = async |method, path: &str, body: Value| in_session(&test, &cookie, method, path, body).await;
        let first = send(Method::POST, "/api/v1/keys", json!({ "name": "one", "role": "developer" })).await.expect(201);
        let child = make_key(&test, &key_of(&first), json!({ "name": "two", "role": "viewer" })).await.expect(201);
        let mine = with_cookie(&test, Method::GET, "/api/v1/keys?made_by=me&active=true", &cookie, None).await.expect(200);
        assert_eq!(mine.body["items"].as_array().unwrap().len(), 2);
        let id = member.body["id"].as_str().unwrap();
        let theirs = test.get(&format!("/api/v1/keys?made_by=user:{id}&active=true")).await.expect(200);
        assert_eq!(theirs.body["items"].as_array().unwrap().len(), 2);
        let others = with_cookie(&test, Method::GET, "/api/v1/keys?made_by=user:nobody", &cookie, None).await;
        others.expect(422);

        let path = format!("/api/v1/members/{id}");
        test.patch(&path, json!({ "password": "the-second-password" })).await.expect(200);
        assert_eq!(status_of(&test, &key_of(&first), "/api/v1/session").await, 200, "keys stay unless they are meant");
        let cookie = cookie_of(&sign_in(&test, "dev@example.test", "the-second-password").await.expect(201));
        let change = json!({
            "current_password": "the-second-password", "new_password": "the-third-password", "revoke_keys": true,
        });
        in_session(&test, &cookie, Method::PUT, "/api/v1/session/password", change).await.expect(204);
        for key in [&first, &child] {
            assert_eq!(status_of(&test, &key_of(key), "/api/v1/session").await, 401);
        }
    }

    async fn a_browser_that_signed_in_before_passes_while_its_account_is_attacked(engine) {
        let test = TestControl::start(engine).await;
        let home = sign_in_from(&test, "198.51.100.1", None, ADMIN_PASSWORD).await.expect(201);
        let device = device_of(&home);
        // From one address the account is closed soon, and for that address alone.
        while sign_in_from(&test, "192.0.2.1", None, "wrong wrong wrong").await.status == 401 {}
        sign_in_from(&test, "192.0.2.1", None, ADMIN_PASSWORD).await.expect(429);
        sign_in_from(&test, "192.0.2.2", None, ADMIN_PASSWORD).await.expect(201);
        // From very many it is closed for every stranger; a header of somebody else than the proxy opens nothing.
        let mut n = 0;
        while sign_in_from(&test, &format!("203.0.113.{n}"), None, "wrong wrong wrong").await.status == 401 {
            n += 1;
        }
        assert!((20..35).contains(&n), "{n}");
        sign_in_from(&test, "198.51.100.1", None, ADMIN_PASSWORD).await.expect(429);
        let again = sign_in_from(&test, "198.51.100.1", Some(&device), ADMIN_PASSWORD).await.expect(201);
        sign_in_from(&test, "192.0.2.1", Some(&device_of(&again)), ADMIN_PASSWORD).await.expect(201);
        let forged = device.replace(&device[device.len() - 4..], "0000");
        sign_in_from(&test, "198.51.100.1", Some(&forged), ADMIN_PASSWORD).await.expect(429);

        // Another password ends what was known by the old one, but not the browser in which it was set.
        let change = json!({ "current_password": ADMIN_PASSWORD, "new_password": "another-long-password" });
        let cookie = cookie_of(&again);
        let changed = in_session(&test, &cookie, Method::PUT, "/api/v1/session/password", change).await.expect(204);
        sign_in_from(&test, "198.51.100.1", Some(&device), "another-long-password").await.expect(429);
        let known = device_of(&changed);
        sign_in_from(&test, "198.51.100.1", Some(&known), "another-long-password").await.expect(201);
    }

    async fn an_attack_on_accounts_shuts_out_nobody_elsewhere(engine) {
        let test = TestControl::start(engine).await;
        let attempts = (0..150).map(|n| {
            let body = json!({ "email": format!("{n}@example.test"), "password": "wrong wrong wrong" }).to_string();
            let request = Request::post("/api/v1/session").header("content-type", "application/json");
            let request = request.header("x-forwarded-for", "192.0.2.1").extension(peer());
            test.send(request.body(Body::from(body)).unwrap())
        });
        let answers = futures_util::future::join_all(attempts).await;
        assert!(answers.iter().filter(|answer| answer.status == 401).count() <= 20);
        assert!(answers.iter().all(|answer| [401, 429].contains(&answer.status.as_u16())));
        sign_in_from(&test, "198.51.100.1", None, ADMIN_PASSWORD).await.expect(201);
    }

    async fn a_new_password_ends_the_sessions_of_the_old_one(engine) {
        let test = TestControl::start(engine).await;
        let cookie = cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await);
        let members = test.get("/api/v1/members").await;
        let path = format!("/api/v1/members/{}", members.body["items"][0]["id"].as_str().unwrap());
        test.patch(&path, json!({ "password": "a-new-long-password" })).await.expect(200);
        with_cookie(&test, Method::GET, "/api/v1/session", &cookie, None).await.expect(401);
        sign_in(&test, ADMIN_EMAIL, "a-new-long-password").await.expect(201);
        let short = test.patch(&path, json!({ "password": "short" })).await.expect(422);
        assert_eq!(short.body["errors"][0]["field"], json!("password"));
    }

    async fn starting_again_keeps_the_bootstrap_key_and_another_value_replaces_it(engine) {
        let test = TestControl::start(engine).await;
        let clock = test.clock.clone();
        let database = test.stop().await;
        let test = TestControl::on(database, clock.clone()).await;
        assert_eq!(test.get("/api/v1/keys").await.expect(200).body["items"].as_array().unwrap().len(), 1);
        let database = test.stop().await;

        let next = "ty_bootstrap_another_another_another_anoth";
        let test = TestControl::with(database, clock, |options| {
            options.bootstrap.api_key = Some(toolyard_types::Secret::new(next));
            options.bootstrap.admin_password = None;
        }).await;
        assert!(test.control.take_first_sign_in().is_none(), "there is an administrator already");
        assert_eq!(status_of(&test, OWNER_KEY, "/api/v1/session").await, 401);
        assert_eq!(status_of(&test, next, "/api/v1/session").await, 200);
    }

    async fn another_bootstrap_key_keeps_its_children_in_sight_and_the_first_one_can_come_back(engine) {
        let test = TestControl::start(engine).await;
        let clock = test.clock.clone();
        let own = test.get("/api/v1/keys").await.expect(200).body["items"][0]["id"].clone();
        let child = test.post("/api/v1/keys", json!({ "name": "ci", "role": "viewer" })).await.expect(201);
        let child = child.body["id"].clone();
        assert!(child.is_string());
        let next = "ty_bootstrap_another_another_another_anoth";
        let mut database = test.stop().await;
        for value in [next, OWNER_KEY, next] {
            let test = TestControl::with(database, clock.clone(), |options| {
                options.bootstrap.api_key = Some(toolyard_types::Secret::new(value));
            }).await;
            let path = format!("/api/v1/keys?active=true&made_by=api_key:{}", own.as_str().unwrap());
            let children = test.ask_as(value, Method::GET, &path, None).await.expect(200).body["items"].clone();
            assert_eq!(children[0]["id"], child, "after {value}");
            database = test.stop().await;
        }
    }

    async fn a_key_whose_end_moves_forward_takes_its_children_with_it(engine) {
        let test = TestControl::start(engine).await;
        let make = json!({ "name": "parent", "role": "admin", "expires_in_days": 90 });
        let parent = test.post("/api/v1/keys", make).await.expect(201).body;
        let (id, key) = (parent["id"].as_str().unwrap(), parent["key"].as_str().unwrap());
        let make = json!({ "name": "child", "role": "viewer", "expires_in_days": 90 });
        let child = test.ask_as(key, Method::POST, "/api/v1/keys", Some(make)).await.expect(201).body;
        test.post(&format!("/api/v1/keys/{id}/rotate"), json!({ "expires_in_days": 1 })).await.expect(200);
        test.clock.step_ms(2 * 24 * 3600 * 1000);
        assert_eq!(status_of(&test, child["key"].as_str().unwrap(), "/api/v1/session").await, 401);
    }

    async fn the_last_use_of_a_key_is_written_when_the_control_plane_ends(engine) {
        let test = TestControl::start(engine).await;
        test.get("/api/v1/session").await.expect(200);
        let clock = test.clock.clone();
        let database = test.stop().await;
        let test = TestControl::on(database, clock).await;
        let keys = test.get("/api/v1/keys").await.expect(200);
        assert_eq!(keys.body["items"][0]["last_used_at"], json!("2026-11-22T12:00:00.000Z"));
    }
}

#[tokio::test]
async fn without_bootstrap_settings_a_password_is_made_and_given_once() {
    use crate::harness::{Engine, TestDatabase, started_at};
    let database = TestDatabase::create(Engine::Sqlite).await;
    let clock = toolyard_types::Clock::stopped_at(started_at());
    let test = TestControl::with(database, clock, |options| options.bootstrap = Default::default()).await;
    let first = test.control.take_first_sign_in().unwrap();
    assert!(test.control.take_first_sign_in().is_none());
    sign_in(&test, &first.email, first.password.expose()).await.expect(201);
}

#[tokio::test]
async fn a_change_with_a_cookie_from_another_site_is_refused_and_with_a_key_is_not() {
    let test = TestControl::start(crate::harness::Engine::Sqlite).await;
    let cookie = cookie_of(&sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await);
    for site in [Some("cross-site"), Some("same-site"), None] {
        let refused = with_cookie(&test, Method::DELETE, "/api/v1/session", &cookie, site).await.expect(403);
        assert_eq!(refused.code(), "csrf_rejected");
    }
    let origin = |origin: &str| {
        let request = Request::delete("/api/v1/session").header("cookie", &cookie).header("host", "toolyard.test");
        request.header("origin", origin).body(Body::empty()).unwrap()
    };
    test.send(origin("https://evil.test")).await.expect(403);
    test.send(origin("null")).await.expect(403);
    test.send(origin("https://toolyard.test")).await.expect(204);
    let mut request = Request::delete("/api/v1/session").header("authorization", format!("Bearer {OWNER_KEY}"));
    request = request.header("origin", "https://evil.test");
    test.send(request.body(Body::empty()).unwrap()).await.expect(204);
}

#[tokio::test]
async fn over_tls_the_cookie_is_bound_to_the_host() {
    use crate::harness::{Engine, TestDatabase, started_at};
    let database = TestDatabase::create(Engine::Sqlite).await;
    let clock = toolyard_types::Clock::stopped_at(started_at());
    let test = TestControl::with(database, clock, |options| options.cookie_secure = true).await;
    let answer = sign_in(&test, ADMIN_EMAIL, ADMIN_PASSWORD).await.expect(201);
    let set = answer.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(set.starts_with("__Host-toolyard_session=") && set.ends_with("; Secure"), "{set}");
    with_cookie(&test, Method::GET, "/api/v1/session", &cookie_of(&answer), None).await.expect(200);
}
