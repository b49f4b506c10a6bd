//! Another tenant's rows are invisible, and cannot be changed.

use std::collections::BTreeSet;

use toolyard_store::{AuditFilter, NewApiKey, NewAudit, NewSession, StoreError};
use toolyard_types::access::Role;
use toolyard_types::{ApiKeyId, CredentialId, SessionId};

use crate::world::{World, both_engines, name};

fn api_key(hash: &str) -> NewApiKey {
    NewApiKey {
        id: ApiKeyId::generate(),
        name: name("ci"),
        prefix: "ty_1".into(),
        hash: hash.into(),
        role: Role::Viewer,
        scope: None,
        created_by: "user:1".into(),
        expires_at: None,
    }
}

both_engines! {
    async fn another_tenant_sees_and_changes_nothing(engine) {
        let world = World::start(engine).await;
        let (acme, other) = (world.organization("acme").await, world.organization("other").await);
        let mut tx = world.store.org(acme).await.unwrap();
        let member = tx.create_member("a@example.test", "hash", Role::Owner).await.unwrap();
        let session = NewSession {
            id: SessionId::generate(),
            user: member.id,
            token_hash: "t".into(),
            expires_at: tx.now().plus(std::time::Duration::from_secs(60)),
        };
        tx.create_session(&session).await.unwrap();
        let key = tx.create_api_key(&api_key("h")).await.unwrap();
        let credential = CredentialId::generate();
        tx.insert_credential(credential, &name("token"), "", vec![1, 2], false).await.unwrap();
        let line = NewAudit {
            actor: "user:1".into(), actor_display: "a".into(), action: "x".into(), target: "y".into(),
            done: true, detail: serde_json::json!({}), request_id: None,
        };
        tx.audit(&line).await.unwrap();
        assert_eq!(tx.begin_idempotent("k", "h", tx.now()).await.unwrap(), None);
        tx.commit().await.unwrap();

        let mut tx = world.store.org(other).await.unwrap();
        assert!(tx.members().await.unwrap().is_empty());
        assert!(tx.member(member.id).await.unwrap().is_none());
        assert!(!tx.set_member_role(member.id, Role::Viewer).await.unwrap());
        assert!(!tx.set_member_password(member.id, "stolen").await.unwrap());
        assert!(!tx.delete_member(member.id).await.unwrap());
        tx.delete_session(session.id).await.unwrap();
        assert!(tx.api_keys(None, None, false, 10).await.unwrap().is_empty());
        assert!(tx.api_key(key.id).await.unwrap().is_none());
        assert!(!tx.revoke_api_key(key.id).await.unwrap());
        assert!(tx.credentials(None, 10).await.unwrap().is_empty());
        assert!(tx.credential_named(&name("token")).await.unwrap().is_none());
        assert!(tx.sealed_credentials(&BTreeSet::from([credential])).await.unwrap().is_empty());
        assert!(tx.audit_records(&AuditFilter::default(), None, 10).await.unwrap().is_empty());
        assert_eq!(tx.begin_idempotent("k", "h2", tx.now()).await.unwrap(), None);
        tx.commit().await.unwrap();

        let tx = world.store.system_read("test").await.unwrap();
        let (user, _) = tx.member_by_email("A@example.test", None).await.unwrap().unwrap();
        assert_eq!(user.password_hash, "hash");
        assert_eq!(tx.session_by_token_hash("t").await.unwrap().unwrap().membership.role, Role::Owner);
        assert!(tx.key_grant_by_hash("h").await.unwrap().is_some());
        drop(tx);
        let tx = world.store.org_read(acme).await.unwrap();
        let sealed = tx.sealed_credentials(&BTreeSet::from([credential])).await.unwrap();
        assert_eq!((sealed[0].version, sealed[0].envelope.as_slice()), (1, [1_u8, 2].as_slice()));
    }

    async fn an_e_mail_address_is_one_persons_in_each_organization(engine) {
        let world = World::start(engine).await;
        let (acme, other) = (world.organization("acme").await, world.organization("other").await);
        let mut made = Vec::new();
        for (organization, hash) in [(acme, "of acme"), (other, "of other")] {
            let mut tx = world.store.org(organization).await.unwrap();
            made.push(tx.create_member("a@example.test", hash, Role::Owner).await.unwrap().id);
            tx.create_member("b@example.test", hash, Role::Viewer).await.unwrap();
            tx.commit().await.unwrap();
            for (email, of) in [("A@example.test", None), ("b@example.test", Some(made.last().copied().unwrap()))] {
                let mut tx = world.store.org(organization).await.unwrap();
                let taken = match of {
                    Some(user) => tx.set_member_email(user, email).await.map(|_| ()),
                    None => tx.create_member(email, "", Role::Viewer).await.map(|_| ()),
                };
                assert!(matches!(taken, Err(StoreError::AlreadyExists)), "{email}: {taken:?}");
            }
        }
        let tx = world.store.system_read("test").await.unwrap();
        for (organization, user, hash) in
            [(None, made[0], "of acme"), (Some("acme"), made[0], "of acme"), (Some("other"), made[1], "of other")]
        {
            let (found, membership) = tx.member_by_email("A@example.test", organization).await.unwrap().unwrap();
            assert_eq!((found.id, found.password_hash.as_str(), found.email.as_str()), (user, hash, "a@example.test"));
            assert_eq!(membership.organization, if user == made[0] { acme } else { other });
        }
        assert!(tx.member_by_email("a@example.test", Some("nobody")).await.unwrap().is_none());
        drop(tx);

        // One of them takes another address, which is free again where they leave it.
        let mut tx = world.store.org(acme).await.unwrap();
        assert!(tx.set_member_email(made[0], "C@example.test").await.unwrap());
        assert!(!tx.set_member_email(made[1], "d@example.test").await.unwrap());
        assert_eq!(tx.member(made[0]).await.unwrap().unwrap().email, "c@example.test");
        tx.create_member("a@example.test", "again", Role::Viewer).await.unwrap();
        tx.commit().await.unwrap();
        let tx = world.store.system_read("test").await.unwrap();
        let hash = async |organization| tx.member_by_email("a@example.test", Some(organization)).await.unwrap().unwrap();
        assert_eq!(hash("acme").await.0.password_hash, "again");
        assert_eq!(hash("other").await.0.password_hash, "of other");
    }

    async fn names_are_unique_in_an_organization_and_free_in_another(engine) {
        let world = World::start(engine).await;
        let (acme, other) = (world.organization("acme").await, world.organization("other").await);
        for organization in [acme, other] {
            let mut tx = world.store.org(organization).await.unwrap();
            tx.insert_credential(CredentialId::generate(), &name("token"), "", vec![], false).await.unwrap();
            tx.commit().await.unwrap();
        }
        let mut tx = world.store.org(acme).await.unwrap();
        let taken = tx.insert_credential(CredentialId::generate(), &name("token"), "", vec![], false).await.unwrap_err();
        assert!(matches!(taken, StoreError::AlreadyExists), "{taken:?}");
    }

    async fn a_credential_changed_meanwhile_is_stale(engine) {
        let world = World::start(engine).await;
        let acme = world.organization("acme").await;
        let mut tx = world.store.org(acme).await.unwrap();
        tx.insert_credential(CredentialId::generate(), &name("token"), "", vec![1], false).await.unwrap();
        let read = tx.credential_named(&name("token")).await.unwrap().unwrap();
        tx.update_credential(&read, "", 2, vec![2]).await.unwrap();
        let stale = tx.update_credential(&read, "", 2, vec![3]).await.unwrap_err();
        assert!(matches!(stale, StoreError::Stale), "{stale:?}");
    }
}
