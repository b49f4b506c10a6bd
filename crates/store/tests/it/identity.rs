//! Sessions, keys, owners, idempotency keys.

use std::time::Duration;

use toolyard_store::{NewApiKey, NewSession, StoreError};
use toolyard_types::access::{Action, KeyScope, Role};
use toolyard_types::{ApiKeyId, SessionId, Timestamp};

use crate::migrations::execute;
use crate::world::{Engine, World, both_engines, name};

both_engines! {
    async fn what_postgres_refuses_as_data_is_no_failure_of_the_database(engine) {
        let world = World::start(engine).await;
        let tx = world.store.system_read("test").await.unwrap();
        let found = tx.member_by_email("a\0@example.test", None).await;
        match engine {
            Engine::Postgres => assert!(matches!(found, Err(StoreError::Unfit(_))), "{found:?}"),
            Engine::Sqlite => assert!(found.unwrap().is_none()),
        }
    }

    async fn a_key_is_found_by_its_hash_until_it_ends_or_is_revoked(engine) {
        let world = World::start(engine).await;
        let acme = world.organization("acme").await;
        let mut tx = world.store.org(acme).await.unwrap();
        let scope = KeyScope { actions: vec![Action::ToolCall], resources: vec![name("a")], credentials: vec![name("c")] };
        let expires_at = Some(tx.now().plus(Duration::from_secs(10)));
        let mut make = async |hash: &str, expires_at| {
            let key = NewApiKey {
                id: ApiKeyId::generate(), name: name("ci"), prefix: "ty_1".into(), hash: hash.into(),
                role: Role::Developer, scope: Some(scope.clone()), created_by: "user:1".into(), expires_at,
            };
            tx.create_api_key(&key).await.unwrap().id
        };
        let (ends, revoked) = (make("ends", expires_at).await, make("revoked", None).await);
        tx.commit().await.unwrap();
        let grants = world.store.system_read("test").await.unwrap().key_grants().await.unwrap();
        assert_eq!(grants.len(), 2);
        assert_eq!((grants[0].1.scope.as_ref(), grants[0].1.organization_name.as_str()), (Some(&scope), "acme"));

        world.clock.step_ms(10_000);
        let mut tx = world.store.org(acme).await.unwrap();
        assert!(tx.revoke_api_key(revoked).await.unwrap());
        assert!(!tx.revoke_api_key(revoked).await.unwrap(), "twice is once");
        assert!(tx.api_key(ends).await.unwrap().unwrap().revoked_at.is_none());
        tx.commit().await.unwrap();
        let tx = world.store.system_read("test").await.unwrap();
        assert!(tx.key_grants().await.unwrap().is_empty());
        assert!(tx.key_grant_by_hash("ends").await.unwrap().is_none());
        assert!(tx.key_grant_by_hash("revoked").await.unwrap().is_none());
    }

    async fn a_key_narrowed_in_words_of_a_newer_version_is_refused_here_and_takes_no_other_with_it(engine) {
        let world = World::start(engine).await;
        let acme = world.organization("acme").await;
        let mut tx = world.store.org(acme).await.unwrap();
        for hash in ["of now", "of later", "wider later"] {
            let key = NewApiKey {
                id: ApiKeyId::generate(), name: name("ci"), prefix: "ty_1".into(), hash: hash.into(),
                role: Role::Viewer, scope: Some(KeyScope::default()), created_by: "user:1".into(), expires_at: None,
            };
            tx.create_api_key(&key).await.unwrap();
        }
        tx.commit().await.unwrap();
        for (hash, scope) in [("of later", r#"{"actions":["ocean:boil"]}"#), ("wider later", r#"{"oceans":["a"]}"#)] {
            let sql = format!("UPDATE api_keys SET scope = '{scope}' WHERE hash = '{hash}'");
            execute(world.database.location(), &sql).await;
        }
        let tx = world.store.system_read("test").await.unwrap();
        let grants = tx.key_grants().await.unwrap();
        assert_eq!(grants.iter().map(|(hash, _)| hash.as_str()).collect::<Vec<_>>(), ["of now"]);
        assert!(tx.key_grant_by_hash("of later").await.is_err());
        assert!(tx.key_grant_by_hash("of now").await.unwrap().is_some());
    }

    async fn an_older_use_of_a_key_never_replaces_a_newer_one(engine) {
        let world = World::start(engine).await;
        let acme = world.organization("acme").await;
        let mut tx = world.store.org(acme).await.unwrap();
        let key = NewApiKey {
            id: ApiKeyId::generate(), name: name("ci"), prefix: "ty_1".into(), hash: "h".into(),
            role: Role::Viewer, scope: None, created_by: "user:1".into(), expires_at: None,
        };
        tx.create_api_key(&key).await.unwrap();
        tx.commit().await.unwrap();
        for ms in [2000, 1000] {
            let tx = world.store.system("test").await.unwrap();
            tx.touch_api_keys(&[(key.id, Timestamp::from_ms(ms))]).await.unwrap();
            tx.commit().await.unwrap();
        }
        let tx = world.store.org_read(acme).await.unwrap();
        assert_eq!(tx.api_key(key.id).await.unwrap().unwrap().last_used_at, Some(Timestamp::from_ms(2000)));
    }

    async fn ended_sessions_are_not_found_and_are_forgotten(engine) {
        let world = World::start(engine).await;
        let acme = world.organization("acme").await;
        let mut tx = world.store.org(acme).await.unwrap();
        let member = tx.create_member("a@example.test", "hash", Role::Owner).await.unwrap();
        let session = NewSession {
            id: SessionId::generate(), user: member.id, token_hash: "t".into(),
            expires_at: tx.now().plus(Duration::from_secs(1)),
        };
        tx.create_session(&session).await.unwrap();
        tx.commit().await.unwrap();
        let found = async || world.store.system_read("test").await.unwrap().session_by_token_hash("t").await.unwrap();
        assert!(found().await.is_some());
        world.clock.step_ms(1000);
        assert!(found().await.is_none());
        let tx = world.store.system("test").await.unwrap();
        assert_eq!(tx.delete_ended_sessions().await.unwrap(), 1);
    }

    async fn a_demotion_revokes_the_keys_that_would_have_more_power(engine) {
        let world = World::start(engine).await;
        let acme = world.organization("acme").await;
        let mut tx = world.store.org(acme).await.unwrap();
        for role in [Role::Admin, Role::Developer, Role::Viewer] {
            let key = NewApiKey {
                id: ApiKeyId::generate(), name: name(role.as_str()), prefix: "p".into(), hash: role.to_string(),
                role, scope: None, created_by: "user:1".into(), expires_at: None,
            };
            tx.create_api_key(&key).await.unwrap();
        }
        assert_eq!(tx.revoke_api_keys_made_by("user:1", Some(Role::Developer)).await.unwrap().len(), 1);
        assert_eq!(tx.revoke_api_keys_made_by("user:2", None).await.unwrap().len(), 0);
        assert_eq!(tx.revoke_api_keys_made_by("user:1", None).await.unwrap().len(), 2);
    }

    async fn a_request_that_died_with_its_process_can_be_begun_again_after_a_while(engine) {
        let world = World::start(engine).await;
        let acme = world.organization("acme").await;
        let begin = async |hash: &str| {
            let tx = world.store.org(acme).await.unwrap();
            let stale = Timestamp::from_ms(tx.now().as_ms() - 5000);
            let known = tx.begin_idempotent("k", hash, stale).await.unwrap();
            tx.commit().await.unwrap();
            known
        };
        assert!(begin("h").await.is_none());
        let known = begin("h").await.unwrap();
        assert_eq!((known.request_hash.as_str(), known.answer), ("h", None));
        world.clock.step_ms(5001);
        assert!(begin("h").await.is_none());
        let tx = world.store.org(acme).await.unwrap();
        tx.end_idempotent("k", 201, "sealed").await.unwrap();
        tx.commit().await.unwrap();
        world.clock.step_ms(60_000);
        assert_eq!(begin("h").await.unwrap().answer, Some((201, "sealed".to_owned())));
    }
}
