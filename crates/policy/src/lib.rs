//! The one decision function: may this principal do this action to this resource, and why.
//!
//! The rules are Cedar policies in `policies/`, one for a role and a group of actions, each with an `@id` and a
//! `@description`: what `toolyard why` shows is the text of the policy that decided. The API, the gateway,
//! the console's list of allowed actions and `why` all ask here, so what can be listed can be called.
//!
//! A decision depends on nothing but the role, the action, the kind of resource and, for an API key, on its scope, the
//! resource's name and whether the secret that was shown has been replaced. Which organization a row belongs to is not
//! decided here: the store never shows another tenant's rows. Decisions for principals that are not narrowed are made for
//! the whole table of roles and actions at start, because the gateway asks on every call and Cedar costs tens of
//! microseconds; a narrowed key's are made by Cedar each time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Decision as CedarDecision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet,
    Request, RestrictedExpression,
};
use toolyard_types::Name;
use toolyard_types::access::{Action, KeyScope, Principal, Role};

const POLICIES: &str = concat!(include_str!("policies/roles.cedar"), "\n", include_str!("policies/keys.cedar"));

/// The built-in policies cannot be used; only a defect of a release causes it.
#[derive(Debug, thiserror::Error)]
#[error("the built-in policies cannot be used: {doing}")]
pub struct PolicyError {
    doing: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// What an action is done to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// The organization as a whole: lists, creations, and whatever has no finer kind here.
    Organization,
    /// A server by name.
    Server(Name),
    /// A toolset by name.
    Toolset(Name),
    /// A credential by name.
    Credential(Name),
    /// An API key, which the principal made itself or not.
    ApiKey {
        /// Whether the principal made it.
        own: bool,
    },
    /// A member, who is an owner or not.
    Member {
        /// Whether they are an owner, or would become one.
        owner: bool,
    },
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Resource::Organization => f.write_str("organization"),
            Resource::Server(name) => write!(f, "server/{name}"),
            Resource::Toolset(name) => write!(f, "toolset/{name}"),
            Resource::Credential(name) => write!(f, "credential/{name}"),
            Resource::ApiKey { own: true } => f.write_str("api_key/own"),
            Resource::ApiKey { own: false } => f.write_str("api_key/other"),
            Resource::Member { owner: true } => f.write_str("member/owner"),
            Resource::Member { owner: false } => f.write_str("member/other"),
        }
    }
}

impl FromStr for Resource {
    type Err = String;

    /// Reads what [`Resource`] displays: `organization`, `server/NAME`, `toolset/NAME`...
    fn from_str(text: &str) -> Result<Self, String> {
        let named = |name: &str| Name::new(name).map_err(|error| error.to_string());
        match text.split_once('/') {
            None if text == "organization" => Ok(Resource::Organization),
            Some(("server", name)) => named(name).map(Resource::Server),
            Some(("toolset", name)) => named(name).map(Resource::Toolset),
            Some(("credential", name)) => named(name).map(Resource::Credential),
            Some(("api_key", "own")) => Ok(Resource::ApiKey { own: true }),
            Some(("api_key", "other")) => Ok(Resource::ApiKey { own: false }),
            Some(("member", "owner")) => Ok(Resource::Member { owner: true }),
            Some(("member", "other")) => Ok(Resource::Member { owner: false }),
            _ => Err(format!(
                "resource `{}` is none of `organization`, `server/NAME`, `toolset/NAME`, `credential/NAME`, \
                 `api_key/own`, `api_key/other`, `member/owner`, `member/other`",
                toolyard_types::name::printable(text)
            )),
        }
    }
}

/// What a resource is, without its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Organization,
    Server,
    Toolset,
    Credential,
    ApiKey { own: bool },
    Member { owner: bool },
}

/// The kinds that the policies of roles tell apart; a test proves that the rest are like the organization.
const KINDS: [Kind; 5] = [
    Kind::Organization,
    Kind::ApiKey { own: true },
    Kind::ApiKey { own: false },
    Kind::Member { owner: true },
    Kind::Member { owner: false },
];

impl Resource {
    fn kind(&self) -> Kind {
        match self {
            Resource::Organization => Kind::Organization,
            Resource::Server(_) => Kind::Server,
            Resource::Toolset(_) => Kind::Toolset,
            Resource::Credential(_) => Kind::Credential,
            Resource::ApiKey { own } => Kind::ApiKey { own: *own },
            Resource::Member { owner } => Kind::Member { owner: *owner },
        }
    }

    fn name(&self) -> Option<&Name> {
        match self {
            Resource::Server(name) | Resource::Toolset(name) | Resource::Credential(name) => Some(name),
            _ => None,
        }
    }
}

/// A decision and the policies that made it, each as `id: description`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Which policies decided.
    pub because: Vec<String>,
}

/// Decides. Cheap to clone.
#[derive(Clone)]
pub struct Decider(Arc<Inner>);

struct Inner {
    policies: PolicySet,
    names: Names,
    table: HashMap<(Role, Action, Kind), Decision>,
}

/// The entity types of the policies.
struct Names {
    principal: EntityTypeName,
    role: EntityTypeName,
    action: EntityTypeName,
    organization: EntityTypeName,
    server: EntityTypeName,
    toolset: EntityTypeName,
    credential: EntityTypeName,
    api_key: EntityTypeName,
    member: EntityTypeName,
}

impl std::fmt::Debug for Decider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decider").field("policies", &self.0.policies.policies().count()).finish()
    }
}

impl Decider {
    /// Reads the built-in policies and decides for every role and action once.
    ///
    /// # Errors
    /// When the policies cannot be read or evaluated, which only a defect of a release causes.
    pub fn new() -> Result<Self, PolicyError> {
        let doing = "reading them";
        let policies = PolicySet::from_str(POLICIES).map_err(|error| PolicyError { doing, source: error.into() })?;
        let mut inner = Inner { policies, names: Names::new()?, table: HashMap::new() };
        for &role in Role::ALL {
            for &action in Action::ALL {
                for kind in KINDS {
                    let decision = inner.ask(role, None, action, kind, None)?;
                    inner.table.insert((role, action, kind), decision);
                }
            }
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Decides, and says why.
    #[must_use]
    pub fn decide(&self, principal: &Principal, action: Action, resource: &Resource) -> Decision {
        match narrowing(principal) {
            None => self.0.by_role(principal.role, action, resource.kind()).clone(),
            narrowed => self
                .0
                .ask(principal.role, narrowed, action, resource.kind(), resource.name())
                .unwrap_or_else(|error| Decision { allowed: false, because: vec![error.to_string()] }),
        }
    }

    /// Decides, for callers that need no reason.
    #[must_use]
    pub fn allows(&self, principal: &Principal, action: Action, resource: &Resource) -> bool {
        match narrowing(principal) {
            None => self.0.by_role(principal.role, action, resource.kind()).allowed,
            Some(_) => self.decide(principal, action, resource).allowed,
        }
    }

    /// Every action the principal may do to the organization as a whole, or to some resource in it.
    #[must_use]
    pub fn allowed_actions(&self, principal: &Principal) -> Vec<Action> {
        let allowed = |action: &Action| self.allows(principal, *action, &Resource::Organization);
        Action::ALL.iter().copied().filter(allowed).collect()
    }

    /// The actions of a role that the principal may not do wherever somebody with the role may: what they would gain by
    /// acting with it. None when they hold all of the role. Who is narrowed to some resources holds no role.
    #[must_use]
    pub fn beyond(&self, principal: &Principal, role: Role) -> Vec<Action> {
        let some = |scope: &KeyScope| !scope.resources.is_empty() || !scope.credentials.is_empty();
        let only_some = principal.scope.as_ref().is_some_and(some);
        let gains = |action: &Action| {
            KINDS.iter().any(|kind| {
                self.0.by_role(role, *action, *kind).allowed
                    && (only_some || !self.allows_kind(principal, *action, *kind))
            })
        };
        Action::ALL.iter().copied().filter(gains).collect()
    }

    fn allows_kind(&self, principal: &Principal, action: Action, kind: Kind) -> bool {
        match narrowing(principal) {
            None => self.0.by_role(principal.role, action, kind).allowed,
            narrowed => self.0.ask(principal.role, narrowed, action, kind, None).is_ok_and(|decision| decision.allowed),
        }
    }

    /// Every policy's id with its description, in the order of the files.
    #[must_use]
    pub fn policies(&self) -> BTreeMap<String, String> {
        let text = |policy: &cedar_policy::Policy, key: &str| policy.annotation(key).unwrap_or_default().to_owned();
        self.0.policies.policies().map(|policy| (text(policy, "id"), text(policy, "description"))).collect()
    }
}

/// What makes a principal's power less than its role's.
#[derive(Clone, Copy)]
struct Narrowing<'a> {
    scope: Option<&'a KeyScope>,
    replaced_secret: bool,
}

fn narrowing(principal: &Principal) -> Option<Narrowing<'_>> {
    let scope = principal.scope.as_ref().filter(|scope| !scope.is_empty());
    let replaced_secret = principal.replaced_secret;
    (scope.is_some() || replaced_secret).then_some(Narrowing { scope, replaced_secret })
}

impl Inner {
    fn by_role(&self, role: Role, action: Action, kind: Kind) -> &Decision {
        let named = matches!(kind, Kind::Server | Kind::Toolset | Kind::Credential);
        let kind = if named { Kind::Organization } else { kind };
        self.table.get(&(role, action, kind)).expect("the table was made for every role, action and kind")
    }

    /// Asks Cedar.
    fn ask(
        &self,
        role: Role,
        narrowed: Option<Narrowing<'_>>,
        action: Action,
        kind: Kind,
        name: Option<&Name>,
    ) -> Result<Decision, PolicyError> {
        let fault = |doing: &'static str| {
            move |error: Box<dyn std::error::Error + Send + Sync>| PolicyError { doing, source: error }
        };
        let role_uid = uid(&self.names.role, role.as_str());
        let principal = self.principal(&role_uid, narrowed).map_err(fault("describing the principal"))?;
        let resource = self.resource(kind, name).map_err(fault("describing the resource"))?;
        let action_uid = uid(&self.names.action, action.as_str());
        let request = Request::new(principal.uid(), action_uid, resource.uid(), Context::empty(), None)
            .map_err(|error| fault("making a request")(error.into()))?;
        let entities = Entities::from_entities([principal, resource, Entity::with_uid(role_uid)], None)
            .map_err(|error| fault("gathering entities")(error.into()))?;
        let response = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        if let Some(error) = response.diagnostics().errors().next() {
            return Err(fault("evaluating them")(error.to_string().into()));
        }
        let mut because: Vec<String> = response.diagnostics().reason().map(|id| self.describe(id)).collect();
        because.sort();
        let allowed = response.decision() == CedarDecision::Allow;
        if because.is_empty() {
            because.push(format!("no policy lets role `{role}` do `{}`", action.as_str()));
        }
        Ok(Decision { allowed, because })
    }

    fn principal(
        &self,
        role: &EntityUid,
        narrowed: Option<Narrowing<'_>>,
    ) -> Result<Entity, Box<dyn std::error::Error + Send + Sync>> {
        let mut attributes = HashMap::new();
        if narrowed.is_some_and(|narrowed| narrowed.replaced_secret) {
            attributes.insert("replaced_secret".to_owned(), RestrictedExpression::new_bool(true));
        }
        let scope = narrowed.and_then(|narrowed| narrowed.scope);
        if let Some(scope) = scope.filter(|scope| !scope.actions.is_empty()) {
            let entity =
                |action: &Action| RestrictedExpression::new_entity_uid(uid(&self.names.action, action.as_str()));
            let set = RestrictedExpression::new_set(scope.actions.iter().map(entity));
            attributes.insert("scope_actions".to_owned(), set);
        }
        for (key, names) in scope
            .map(|scope| [("scope_resources", &scope.resources), ("scope_credentials", &scope.credentials)])
            .into_iter()
            .flatten()
            .filter(|(_, names)| !names.is_empty())
        {
            let text = |name: &Name| RestrictedExpression::new_string(name.as_str().to_owned());
            attributes.insert(key.to_owned(), RestrictedExpression::new_set(names.iter().map(text)));
        }
        Ok(Entity::new(uid(&self.names.principal, "self"), attributes, HashSet::from([role.clone()]))?)
    }

    fn resource(&self, kind: Kind, name: Option<&Name>) -> Result<Entity, Box<dyn std::error::Error + Send + Sync>> {
        let mut attributes = HashMap::new();
        let mut flag = |key: &str, value: bool| {
            attributes.insert(key.to_owned(), RestrictedExpression::new_bool(value));
        };
        let class = match kind {
            Kind::Organization => &self.names.organization,
            Kind::Server => &self.names.server,
            Kind::Toolset => &self.names.toolset,
            Kind::Credential => &self.names.credential,
            Kind::ApiKey { own } => {
                flag("own", own);
                &self.names.api_key
            }
            Kind::Member { owner } => {
                flag("owner", owner);
                &self.names.member
            }
        };
        if let Some(name) = name {
            attributes.insert("name".to_owned(), RestrictedExpression::new_string(name.as_str().to_owned()));
        }
        Ok(Entity::new(uid(class, "it"), attributes, HashSet::new())?)
    }

    fn describe(&self, id: &cedar_policy::PolicyId) -> String {
        let annotation = |key: &str| self.policies.annotation(id, key).unwrap_or_default().to_owned();
        format!("{}: {}", annotation("id"), annotation("description"))
    }
}

impl Names {
    fn new() -> Result<Self, PolicyError> {
        let name = |text: &str| {
            EntityTypeName::from_str(text)
                .map_err(|error| PolicyError { doing: "naming entity types", source: error.into() })
        };
        Ok(Self {
            principal: name("Principal")?,
            role: name("Role")?,
            action: name("Action")?,
            organization: name("Organization")?,
            server: name("Server")?,
            toolset: name("Toolset")?,
            credential: name("Credential")?,
            api_key: name("ApiKey")?,
            member: name("Member")?,
        })
    }
}

fn uid(class: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(class.clone(), EntityId::new(id))
}

#[cfg(test)]
mod tests;
