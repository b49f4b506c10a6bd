use super::*;
use toolyard_types::access::Actor;
use toolyard_types::{ApiKeyId, OrganizationId};

fn principal(role: Role, scope: Option<KeyScope>) -> Principal {
    Principal {
        actor: Actor::ApiKey(ApiKeyId::generate()),
        display: "test".to_owned(),
        organization: OrganizationId::generate(),
        organization_name: name("default"),
        role,
        scope,
        replaced_secret: false,
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn the_table_of_roles_and_actions_is_as_reviewed() {
    let decider = Decider::new().unwrap();
    let mut table = format!("{:<20}", "action");
    Role::ALL.iter().for_each(|role| table.push_str(&format!(" {role:<9}")));
    for &action in Action::ALL {
        table.push_str(&format!("\n{:<20}", action.as_str()));
        for &role in Role::ALL {
            let allowed = decider.allows(&principal(role, None), action, &Resource::Organization);
            table.push_str(&format!(" {:<9}", if allowed { "yes" } else { "-" }));
        }
    }
    let table: Vec<&str> = table.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(table.join("\n"), @r"
    action               owner     admin     operator  developer viewer
    catalog:read         yes       yes       yes       yes       yes
    catalog:rate         yes       yes       yes       yes       -
    catalog:submit       yes       yes       yes       yes       -
    catalog:review       yes       yes       -         -         -
    catalog:manage       yes       yes       -         -         -
    server:read          yes       yes       yes       yes       yes
    server:deploy        yes       yes       yes       yes       -
    server:grant_path    yes       yes       yes       -         -
    server:operate       yes       yes       yes       yes       -
    server:delete        yes       yes       yes       yes       -
    server:grant_privilege yes       yes       -         -         -
    server:logs          yes       yes       yes       yes       -
    tool:call            yes       yes       yes       yes       -
    toolset:read         yes       yes       yes       yes       yes
    toolset:manage       yes       yes       yes       yes       -
    toolbox:read         yes       yes       yes       yes       yes
    toolbox:manage       yes       yes       yes       -         -
    credential:read      yes       yes       yes       yes       -
    credential:use       yes       yes       yes       yes       -
    credential:manage    yes       yes       yes       yes       -
    key:read             yes       yes       yes       yes       -
    key:manage           yes       yes       yes       yes       -
    member:read          yes       yes       -         -         -
    member:manage        yes       yes       -         -         -
    flag:read            yes       yes       yes       yes       yes
    flag:manage          yes       yes       -         -         -
    audit:read           yes       yes       yes       -         -
    event:read           yes       yes       yes       yes       yes
    policy:explain       yes       yes       yes       yes       yes
    organization:manage  yes       -         -         -         -
    ");
}

#[test]
fn only_admins_and_owners_touch_keys_of_others_and_only_owners_touch_owners() {
    let decider = Decider::new().unwrap();
    for &role in Role::ALL {
        let may = |action, resource: &Resource| decider.allows(&principal(role, None), action, resource);
        let strong = matches!(role, Role::Owner | Role::Admin);
        assert_eq!(may(Action::KeyManage, &Resource::ApiKey { own: false }), strong, "{role}");
        assert_eq!(may(Action::KeyManage, &Resource::ApiKey { own: true }), role != Role::Viewer, "{role}");
        assert_eq!(may(Action::MemberManage, &Resource::Member { owner: true }), role == Role::Owner, "{role}");
        assert_eq!(may(Action::MemberManage, &Resource::Member { owner: false }), strong, "{role}");
    }
}

#[test]
fn a_narrowed_key_does_only_what_both_its_role_and_its_scope_allow() {
    let decider = Decider::new().unwrap();
    let scope = KeyScope {
        actions: vec![Action::ToolCall, Action::AuditRead],
        resources: vec![name("a")],
        ..KeyScope::default()
    };
    let key = principal(Role::Developer, Some(scope));
    let server = |text| Resource::Server(name(text));
    assert!(decider.allows(&key, Action::ToolCall, &server("a")));
    assert!(decider.allows(&key, Action::ToolCall, &Resource::Toolset(name("a"))));

    let elsewhere = decider.decide(&key, Action::ToolCall, &server("b"));
    assert!(!elsewhere.allowed && elsewhere.because[0].starts_with("key-scope-resources: "), "{elsewhere:?}");
    let other = decider.decide(&key, Action::ServerRead, &server("a"));
    assert!(!other.allowed && other.because[0].starts_with("key-scope-actions: "), "{other:?}");
    let above = decider.decide(&key, Action::AuditRead, &Resource::Organization);
    assert_eq!(above.because, ["no policy lets role `developer` do `audit:read`"]);
}

#[test]
fn a_key_narrowed_to_some_servers_cannot_make_itself_more_power() {
    let decider = Decider::new().unwrap();
    let scope = KeyScope { resources: vec![name("a")], ..KeyScope::default() };
    let key = principal(Role::Owner, Some(scope));
    let member = decider.decide(&key, Action::MemberManage, &Resource::Member { owner: false });
    assert!(member.because[0].starts_with("key-scope-manages-nothing-else: "), "{member:?}");
    for action in [Action::ToolboxManage, Action::CredentialManage, Action::CatalogReview, Action::FlagManage] {
        assert!(!decider.allows(&key, action, &Resource::Organization), "{action:?}");
    }
    for action in [Action::CatalogSubmit, Action::CatalogRate] {
        let refused = decider.decide(&key, action, &Resource::Organization);
        assert!(!refused.allowed && refused.because[0].starts_with("key-scope-no-catalog: "), "{refused:?}");
    }
    assert!(!decider.allows(&key, Action::KeyManage, &Resource::ApiKey { own: false }));
    assert!(decider.allows(&key, Action::KeyManage, &Resource::ApiKey { own: true }));
    assert!(decider.allows(&key, Action::ServerDeploy, &Resource::Server(name("a"))));
}

#[test]
fn a_key_narrowed_to_servers_uses_no_credential_but_those_it_names() {
    let decider = Decider::new().unwrap();
    let credential = |text| Resource::Credential(name(text));
    let uses = |scope: &KeyScope, text| {
        decider.decide(&principal(Role::Admin, Some(scope.clone())), Action::CredentialUse, &credential(text))
    };
    // A credential of the server's own name is not meant by the server's.
    let mut scope = KeyScope { resources: vec![name("a")], ..KeyScope::default() };
    let refused = uses(&scope, "a");
    assert!(!refused.allowed && refused.because[0].starts_with("key-scope-credentials: "), "{refused:?}");
    scope.credentials = vec![name("c")];
    assert!(uses(&scope, "c").allowed && !uses(&scope, "a").allowed);

    let scope = KeyScope { credentials: vec![name("c")], ..KeyScope::default() };
    assert!(uses(&scope, "c").allowed && !uses(&scope, "d").allowed);
    let key = principal(Role::Admin, Some(scope));
    assert!(decider.allows(&key, Action::ServerDeploy, &Resource::Server(name("any"))));
    for action in [Action::CredentialManage, Action::MemberManage] {
        assert!(!decider.allows(&key, action, &Resource::Organization), "{action:?}");
    }
    assert!(!decider.allows(&principal(Role::Viewer, None), Action::CredentialUse, &credential("c")));
    assert!(decider.allows(&principal(Role::Developer, None), Action::CredentialUse, &credential("c")));
}

#[test]
fn a_role_is_held_by_those_of_at_least_its_power_who_are_not_narrowed() {
    let decider = Decider::new().unwrap();
    for &role in Role::ALL {
        for &other in Role::ALL {
            // Roles are ordered from most to least power.
            assert_eq!(decider.beyond(&principal(role, None), other).is_empty(), role <= other, "{role} and {other}");
        }
        let narrowed = |scope: KeyScope| principal(role, Some(scope));
        assert_eq!(decider.beyond(&narrowed(KeyScope::default()), role), []);
        let some = KeyScope { resources: vec![name("a")], ..KeyScope::default() };
        assert!(!decider.beyond(&narrowed(some), role).is_empty(), "{role}");
        let some = KeyScope { credentials: vec![name("a")], ..KeyScope::default() };
        assert!(!decider.beyond(&narrowed(some), role).is_empty(), "{role}");
        // All but one action of the role, and all of them.
        let all = decider.allowed_actions(&principal(role, None));
        let (left_out, rest) = all.split_first().unwrap();
        let but_one = KeyScope { actions: rest.to_vec(), ..KeyScope::default() };
        assert_eq!(decider.beyond(&narrowed(but_one), role), [*left_out]);
        let each = KeyScope { actions: all, ..KeyScope::default() };
        assert_eq!(decider.beyond(&narrowed(each), role), []);
    }
}

#[test]
fn a_secret_that_was_replaced_calls_tools_and_reads_and_does_nothing_else() {
    let decider = Decider::new().unwrap();
    let reads = |action: Action| {
        let others = [Action::ToolCall, Action::ServerLogs, Action::PolicyExplain];
        action.as_str().ends_with(":read") || others.contains(&action)
    };
    let scopes = [
        None,
        Some(KeyScope::default()),
        Some(KeyScope { actions: vec![Action::ToolCall, Action::ServerDeploy], ..KeyScope::default() }),
        Some(KeyScope { resources: vec![name("a")], ..KeyScope::default() }),
    ];
    let resources = [
        Resource::Organization,
        Resource::Server(name("a")),
        Resource::ApiKey { own: true },
        Resource::Member { owner: false },
    ];
    for scope in scopes {
        for &role in Role::ALL {
            let new = principal(role, scope.clone());
            let old = Principal { replaced_secret: true, ..new.clone() };
            for (&action, resource) in
                Action::ALL.iter().flat_map(|action| resources.iter().map(move |it| (action, it)))
            {
                let decision = decider.decide(&old, action, resource);
                let expected = reads(action) && decider.allows(&new, action, resource);
                assert_eq!(decision.allowed, expected, "{role} {action:?} {resource} {scope:?}: {decision:?}");
                assert_eq!(decider.allows(&old, action, resource), expected);
                let says_why = decision.because.iter().any(|because| because.starts_with("key-replaced-secret: "));
                assert_eq!(says_why, !reads(action), "{role} {action:?}: {decision:?}");
            }
        }
    }
}

#[test]
fn an_empty_scope_narrows_nothing() {
    let decider = Decider::new().unwrap();
    let key = principal(Role::Owner, Some(KeyScope::default()));
    assert!(Action::ALL.iter().all(|action| decider.allows(&key, *action, &Resource::Organization)));
}

#[test]
fn the_table_and_cedar_agree_also_about_named_resources() {
    let decider = Decider::new().unwrap();
    for &role in Role::ALL {
        for &action in Action::ALL {
            for resource in [Resource::Server(name("a")), Resource::Toolset(name("a")), Resource::Credential(name("a"))]
            {
                let asked = decider.0.ask(role, None, action, resource.kind(), resource.name()).unwrap();
                assert_eq!(asked, decider.decide(&principal(role, None), action, &resource));
            }
        }
    }
}

#[test]
fn every_policy_has_an_id_of_its_own_and_says_what_it_does() {
    let decider = Decider::new().unwrap();
    let policies = decider.policies();
    assert_eq!(policies.len(), decider.0.policies.policies().count());
    assert!(policies.iter().all(|(id, text)| !id.is_empty() && !text.is_empty()));
}

#[test]
fn every_action_in_the_policies_exists() {
    for text in POLICIES.split("Action::\"").skip(1) {
        let action = text.split('"').next().unwrap();
        assert!(Action::from_str(action).is_ok(), "{action}");
    }
}

#[test]
fn a_resource_reads_what_it_displays_and_refuses_the_rest() {
    for resource in [
        Resource::Organization,
        Resource::Server(name("a")),
        Resource::Toolset(name("b")),
        Resource::Credential(name("c")),
        Resource::ApiKey { own: true },
        Resource::ApiKey { own: false },
        Resource::Member { owner: true },
        Resource::Member { owner: false },
    ] {
        assert_eq!(resource.to_string().parse(), Ok(resource));
    }
    for bad in ["", "server/", "server/A_b", "toolbox/x", "api_key/x", "server"] {
        assert!(Resource::from_str(bad).is_err(), "{bad}");
    }
}
