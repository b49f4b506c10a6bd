//! `toolyard login`, `credentials`, `keys`, `members`, `flags`, `audit`, `why`, `version`.

use std::io::IsTerminal;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use toolyard_client::{ApiError, segment};
use toolyard_types::access::{Action, KeyScope, Role};
use toolyard_types::api::identity::{
    ApiKey, AuditRecord, CreateApiKey, CreateMember, CreatedApiKey, Credential, KeysQuery, Member, PutCredential,
    RotateApiKey, Session, UpdateMember, Why,
};
use toolyard_types::api::system::{Flag, FlagRule, Readiness, ReadinessPart, Version};
use toolyard_types::{ApiKeyId, Code, Name, Secret, Timestamp, UserId};

use super::Global;
use super::context::{Context, Failure, Profile, api_key, connect, profile_path};
use super::output::{self, Format};
use super::secret::{read_new_password, read_value};

/// `toolyard login`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  toolyard login https://toolyard.example.com --key @key.txt
  toolyard login https://toolyard.internal --ca-file ca.pem   where that file is is remembered too")]
pub(crate) struct LoginArgs {
    /// The Toolyard.
    address: String,
    /// The API key: the key, @FILE, or - for standard input; on a terminal - asks for it and does not show it.
    #[arg(long, default_value = "-")]
    key: String,
}

/// `toolyard login`: checks the key, then remembers it in a file only its owner can read.
pub(crate) async fn login(global: &Global, args: LoginArgs) -> Result<(), Failure> {
    // One that is remembered already is trusted as it was.
    let ca_file = Profile::read().ca_file(&args.address, global.ca_file.as_ref());
    // A mistyped address is told before anybody types a key.
    let client = connect(&args.address, None, ca_file.as_deref())?;
    let key = api_key(read_value(&args.key, "API key")?.expose())?;
    let client = client.elsewhere(&args.address, Some(key.clone()));
    let session: Session = client.get("/session").await?;
    let path = profile_path().ok_or_else(|| Failure::new("there is no home directory to remember the key in"))?;
    let ca_file = ca_file.map(|file| std::path::absolute(&file).unwrap_or(file));
    let profile = Profile { url: args.address.clone(), api_key: key, ca_file };
    let text = serde_json::to_string_pretty(&profile).map_err(|error| Failure::new(error.to_string()))?;
    write_private(&path, &text).map_err(|error| Failure::new(format!("cannot write `{}`: {error}", path.display())))?;
    let fields = [("signed in as", session.display.clone()), ("role", session.role.to_string())];
    output::print_fields(global.output, &session, &fields);
    Ok(())
}

fn write_private(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// `toolyard credentials ...`
#[derive(Debug, Subcommand)]
pub(crate) enum CredentialsCommand {
    /// List credentials; secrets are never shown.
    List,
    /// Create a credential, or give it a new secret.
    Set {
        /// The credential.
        name: Name,
        /// The secret: @FILE, or - for standard input; on a terminal - asks for it and does not show it.
        #[arg(long, default_value = "-")]
        secret: String,
        /// For people.
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete a credential that no server uses.
    Delete {
        /// The credential.
        name: Name,
    },
}

/// `toolyard credentials ...`
pub(crate) async fn credentials(context: &Context, command: CredentialsCommand) -> Result<(), Failure> {
    let client = &context.client;
    match command {
        CredentialsCommand::List => {
            let credentials: Vec<Credential> = client.list("/credentials", &json!({})).await?;
            let heads = ["NAME", "VERSION", "USED BY", "OLDER SECRET IN", "UPDATED"];
            output::print_list(context.format, &credentials, &heads, |credential| {
                vec![
                    credential.name.to_string(),
                    credential.version.to_string(),
                    joined(&credential.used_by, ","),
                    older_secret_in(credential),
                    credential.updated_at.to_string(),
                ]
            });
        }
        CredentialsCommand::Set { name, secret, description } => {
            let body = PutCredential { description, secret: read_value(&secret, "Secret")? };
            let path = format!("/credentials/{}", segment(name.as_str()));
            let credential: Credential = client.send(reqwest::Method::PUT, &path, Some(&body)).await?;
            let mut fields = vec![("name", credential.name.to_string()), ("version", credential.version.to_string())];
            let restart = |server: &Name| context.command(&["servers", "restart", server.as_str()]);
            fields.extend(who_has_an_older_one(&credential, restart));
            output::print_fields(context.format, &credential, &fields);
        }
        CredentialsCommand::Delete { name } => remove(context, "/credentials", name.as_str()).await?,
    }
    Ok(())
}

/// An action; of one that there is not, it says which there are: those about the same thing, if that is known.
fn action(text: &str) -> Result<Action, String> {
    text.parse().map_err(|unknown: String| {
        let about = text.split(':').next().unwrap_or_default();
        let is_near = |action: &str| action.split(':').next() == Some(about);
        let all: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
        let near: Vec<&str> = all.iter().copied().filter(|action| is_near(action)).collect();
        format!("{unknown}; there are {}", if near.is_empty() { all } else { near }.join(", "))
    })
}

/// `toolyard keys ...`
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// List API keys; the keys themselves are never shown.
    List {
        /// Only keys made by me, user:ID or api_key:KEY (an id or a name), and those made with these.
        #[arg(long, value_name = "WHO")]
        made_by: Option<String>,
        /// Leave out keys that were revoked or have ended.
        #[arg(long)]
        active: bool,
    },
    /// Make an API key and show it, once.
    #[command(after_help = "Example:
  toolyard keys create cursor --action tool:call --resource all
  toolyard keys create ci --resource github --credential github-token")]
    #[command(alias = "add")]
    Create {
        /// The key's name.
        name: Name,
        /// owner, admin, operator, developer or viewer.
        #[arg(long, default_value = "developer")]
        role: Role,
        /// Only this action; repeat for several.
        #[arg(long = "action", value_parser = action)]
        actions: Vec<Action>,
        /// Only this server or toolset; repeat for several.
        #[arg(long = "resource")]
        resources: Vec<Name>,
        /// Bind only this credential to servers; repeat for several. With --resource and without this: none.
        #[arg(long = "credential")]
        credentials: Vec<Name>,
        /// Days until it ends.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Give an API key another secret and show it, once. Its id stays, and so do the keys made with it.
    #[command(after_help = "Examples:
  toolyard keys rotate ci --overlap 1h
  toolyard keys rotate 0193a5c0-0000-7000-8000-000000000000 --days 90")]
    Rotate {
        /// The key's id, or the name of a key that is neither revoked nor has ended.
        key: String,
        /// How long the secret until now still calls tools and reads, such as 15m, 1h or 7d; it ends at once when absent.
        #[arg(long, value_name = "TIME", value_parser = super::seconds_within::<0, 604_800>)]
        overlap: Option<u32>,
        /// Days until the key ends, from now; its end stays when absent.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
    },
    /// Revoke an API key at once, and the keys made with it, which are listed first.
    #[command(after_help = "Examples:
  toolyard keys revoke ci
  toolyard keys revoke 0193a5c0-0000-7000-8000-000000000000 --yes")]
    Revoke {
        /// The key's id, or the name of a key that is neither revoked nor has ended.
        key: String,
        /// Do not ask when keys were made with it; needed for these without a terminal.
        #[arg(long)]
        yes: bool,
    },
}

/// What a control plane of an earlier version does not tell.
const NOT_KNOWN: &str = "not known";

/// Which servers go on with an older secret, on one line.
fn older_secret_in(credential: &Credential) -> String {
    if credential.unreadable {
        return "not readable: set it again".to_owned();
    }
    // Of a first secret there is no older one.
    let (Some(outdated), Some(unknown)) = (&credential.outdated_in, &credential.unknown_in) else {
        return if credential.version == 1 { String::new() } else { NOT_KNOWN.to_owned() };
    };
    let unknown = unknown.iter().map(|server| format!("{server} ({NOT_KNOWN})"));
    outdated.iter().map(Name::to_string).chain(unknown).collect::<Vec<_>>().join(",")
}

/// Which servers go on with an older secret, and the commands that restart them. Of a first secret there is no older one.
fn who_has_an_older_one(credential: &Credential, restart: impl Fn(&Name) -> String) -> Vec<(&'static str, String)> {
    if credential.version == 1 {
        return Vec::new();
    }
    let (Some(outdated_in), Some(unknown_in)) = (&credential.outdated_in, &credential.unknown_in) else {
        let why = "this Toolyard does not tell which servers run with it; restart those that use the credential";
        return vec![("older secret in", format!("{NOT_KNOWN}: {why}"))];
    };
    let restarts = |what: &str, servers: &[Name]| {
        let commands: Vec<String> = servers.iter().map(&restart).collect();
        format!("{}, {what}:\n{}", joined(servers, ", "), commands.join("\n"))
    };
    let mut fields = Vec::new();
    match outdated_in.as_slice() {
        [] if unknown_in.is_empty() => fields.push(("older secret in", "nothing that runs".to_owned())),
        [] => {}
        servers => fields.push(("older secret in", restarts("until restarted", servers))),
    }
    if !unknown_in.is_empty() {
        let what = "whose agent does not tell which secret it was started with; restarted it has the new one";
        fields.push(("not known of", restarts(what, unknown_in)));
    }
    fields
}

fn joined(names: &[Name], between: &str) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(between)
}

/// `toolyard keys ...`
pub(crate) async fn keys(context: &Context, command: KeysCommand) -> Result<(), Failure> {
    let client = &context.client;
    match command {
        KeysCommand::List { made_by, active } => {
            let maker = match made_by.as_deref().and_then(|who| who.strip_prefix("api_key:")) {
                Some(key) => Some(format!("api_key:{}", key_id(context, key).await?)),
                None => None,
            };
            let made_by = maker.or(made_by);
            let query = KeysQuery { made_by, active: Some(active), ..KeysQuery::default() };
            let keys: Vec<ApiKey> = client.list("/keys", &query).await?;
            print_keys(context.format, &keys);
        }
        KeysCommand::Create { name, role, actions, resources, credentials, days } => {
            let scope = KeyScope { actions, resources, credentials };
            for name in &scope.resources {
                tell_missing(context, name).await;
            }
            for name in &scope.credentials {
                if is_missing(context, "credentials", name).await {
                    eprintln!(
                        "warning: there is no credential `{name}` now; the key may bind one that is made with this name"
                    );
                }
            }
            let created = create_key(context, name, role, scope, days).await?;
            let fields = [("name", created.api_key.name.to_string()), ("key", created.key.clone())];
            output::print_fields(context.format, &created, &fields);
        }
        KeysCommand::Rotate { key, overlap, days } => {
            let id = key_id(context, &key).await?;
            let body = RotateApiKey { overlap_seconds: overlap, expires_in_days: days };
            let rotated: CreatedApiKey = client.post(&format!("/keys/{id}/rotate"), &body).await?;
            let ends = rotated.api_key.previous_ends_at.filter(|_| overlap.is_some());
            let fields = [
                ("name", rotated.api_key.name.to_string()),
                ("key", rotated.key.clone()),
                ("the one before ends", ends.map_or("now".to_owned(), |at| at.to_string())),
            ];
            output::print_fields(context.format, &rotated, &fields);
        }
        KeysCommand::Revoke { key, yes } => {
            let id = key_id(context, &key).await?;
            let children = active_keys(context, Some(format!("api_key:{id}"))).await?;
            if !children.is_empty() && !yes {
                let what = format!("these {} keys were made with it and end too", children.len());
                ask(&children, &what, "--yes")?;
            }
            let key: ApiKey = client.get(&format!("/keys/{id}")).await?;
            remove_by_id(context, "/keys", &id.to_string(), Some(key.name.as_str())).await?;
        }
    }
    Ok(())
}

/// Says, on standard error, that a key names nothing that is there: it may come later, or be mistyped.
async fn tell_missing(context: &Context, name: &Name) {
    for kind in ["servers", "toolsets"] {
        if !is_missing(context, kind, name).await {
            return;
        }
    }
    eprintln!("warning: there is no server or toolset `{name}` now; the key reaches one that is made with this name");
}

/// Whether there is none of that name, as far as the caller may know.
async fn is_missing(context: &Context, kind: &str, name: &Name) -> bool {
    let answer = context.client.get::<Value>(&format!("/{kind}/{}", segment(name.as_str()))).await;
    answer.is_err_and(|error| error.problem().is_some_and(|problem| problem.code == Code::NotFound))
}

fn print_keys(format: Format, keys: &[ApiKey]) {
    output::print_list(format, keys, &["ID", "NAME", "PREFIX", "ROLE", "EXPIRES", "MADE WITH", "STATE"], |key| {
        let state = if key.revoked_at.is_some() { "revoked" } else { "valid" };
        vec![
            key.id.to_string(),
            key.name.to_string(),
            key.prefix.clone(),
            key.role.to_string(),
            key.expires_at.map_or("never".into(), |at| at.to_string()),
            key.parent.map_or(String::new(), |parent| parent.to_string()),
            state.into(),
        ]
    });
}

/// The id of a key that is named by it, or by the name of a key that works.
async fn key_id(context: &Context, key: &str) -> Result<ApiKeyId, Failure> {
    match key.parse() {
        Ok(id) => Ok(id),
        Err(_) => only_named(key, &active_keys(context, None).await?),
    }
}

fn only_named(name: &str, keys: &[ApiKey]) -> Result<ApiKeyId, Failure> {
    let named: Vec<&ApiKey> = keys.iter().filter(|key| key.name.as_str() == name).collect();
    match named.as_slice() {
        [key] => Ok(key.id),
        [] => Err(Failure::new(format!("there is no API key `{name}` that works; see `toolyard keys list`"))),
        several => Err(Failure {
            details: several.iter().map(|key| format!("{}  {} ({})", key.id, key.prefix, key.role)).collect(),
            ..Failure::new(format!("{} API keys are named `{name}`; give the id of one of them", several.len()))
        }),
    }
}

/// The keys that work: all, or those that somebody made with those made with these.
pub(crate) async fn active_keys(context: &Context, made_by: Option<String>) -> Result<Vec<ApiKey>, Failure> {
    let query = KeysQuery { made_by, active: Some(true), ..KeysQuery::default() };
    Ok(context.client.list("/keys", &query).await?)
}

/// Lists keys on standard error and asks whether they may end; without a terminal `option` must have said so.
fn ask(keys: &[ApiKey], what: &str, option: &str) -> Result<(), Failure> {
    eprintln!("{what}:");
    for key in keys {
        eprintln!("  {}  {} ({})", key.id, output::safe(key.name.as_str()), key.role);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(format!("nothing was changed; repeat it with {option}")));
    }
    confirm()
}

/// Asks on the terminal whether to go on.
pub(crate) fn confirm() -> Result<(), Failure> {
    eprint!("go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(format!("cannot read the answer: {error}")))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new("nothing was changed")),
    }
}

/// Makes an API key.
pub(crate) async fn create_key(
    context: &Context,
    name: Name,
    role: Role,
    scope: KeyScope,
    days: u32,
) -> Result<CreatedApiKey, ApiError> {
    let scope = (!scope.is_empty()).then_some(scope);
    let body = CreateApiKey { name, role, scope, expires_in_days: Some(days) };
    context.client.post("/keys", &body).await
}

/// `toolyard members ...`
#[derive(Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// List members.
    List,
    /// Add a member with a first password.
    #[command(alias = "invite")]
    Add {
        /// The e-mail address.
        email: String,
        /// owner, admin, operator, developer or viewer.
        #[arg(long, default_value = "developer")]
        role: Role,
        /// The first password: @FILE, or - for standard input; on a terminal - asks for it twice and does not show it.
        #[arg(long, default_value = "-")]
        password: String,
    },
    /// Change a member's role or password.
    Update {
        /// The member's e-mail address or id.
        #[arg(value_name = "MEMBER")]
        id: String,
        /// Another role.
        #[arg(long)]
        role: Option<Role>,
        /// Another password: @FILE, or - for standard input; on a terminal - asks for it twice and does not show it. Their
        /// sessions end.
        #[arg(long)]
        password: Option<String>,
        /// End the API keys that the member made too, and those made with these.
        #[arg(long)]
        revoke_keys: bool,
    },
    /// Remove a member.
    Remove {
        /// The member's e-mail address or id.
        #[arg(value_name = "MEMBER")]
        id: String,
    },
}

/// The id of a member that is named by it, or by an e-mail address.
async fn member_id(context: &Context, member: String) -> Result<String, Failure> {
    if member.parse::<UserId>().is_ok() {
        return Ok(member);
    }
    let members: Vec<Member> = context.client.list("/members", &json!({})).await?;
    match members.iter().find(|found| found.email.eq_ignore_ascii_case(&member)) {
        Some(found) => Ok(found.id.to_string()),
        None => Err(Failure::new(format!(
            "there is no member `{member}`; give the e-mail address or the id, see `toolyard members list`"
        ))),
    }
}

/// `toolyard members ...`
pub(crate) async fn members(context: &Context, command: MembersCommand) -> Result<(), Failure> {
    let client = &context.client;
    let member: Member = match command {
        MembersCommand::List => {
            let members: Vec<Member> = client.list("/members", &json!({})).await?;
            output::print_list(context.format, &members, &["ID", "EMAIL", "ROLE", "SINCE"], |member| {
                vec![
                    member.id.to_string(),
                    member.email.clone(),
                    member.role.to_string(),
                    member.created_at.to_string(),
                ]
            });
            return Ok(());
        }
        MembersCommand::Add { email, role, password } => {
            client.post("/members", &CreateMember { email, role, password: read_new_password(&password)? }).await?
        }
        MembersCommand::Update { id, role, password, revoke_keys } => {
            let id = member_id(context, id).await?;
            let password: Option<Secret> = password.as_deref().map(read_new_password).transpose()?;
            if password.is_some() && !revoke_keys {
                show_kept_keys(context, &id).await;
            }
            let path = format!("/members/{}", segment(&id));
            client.send(reqwest::Method::PATCH, &path, Some(&UpdateMember { role, password, revoke_keys })).await?
        }
        MembersCommand::Remove { id } => {
            let id = member_id(context, id).await?;
            // Who may not read members still removes one.
            let member = client.get::<Member>(&format!("/members/{}", segment(&id))).await.ok();
            return remove_by_id(context, "/members", &id, member.as_ref().map(|member| member.email.as_str())).await;
        }
    };
    let fields = [("id", member.id.to_string()), ("email", member.email.clone()), ("role", member.role.to_string())];
    output::print_fields(context.format, &member, &fields);
    Ok(())
}

/// Says which API keys go on to work after a new password, on standard error.
async fn show_kept_keys(context: &Context, member: &str) {
    // Who may not see them still gives the password.
    let Ok(keys) = active_keys(context, Some(format!("user:{member}"))).await else { return };
    if keys.is_empty() {
        return;
    }
    eprintln!("these API keys of the member go on to work; end them too with --revoke-keys:");
    for key in &keys {
        eprintln!("  {}  {} ({})", key.id, output::safe(key.name.as_str()), key.role);
    }
}

/// `toolyard flags ...`
#[derive(Debug, Subcommand)]
pub(crate) enum FlagsCommand {
    /// List feature flags.
    List,
    /// Change a flag's rule; without options the rule is removed.
    Set {
        /// The flag.
        name: String,
        /// On or off for everyone.
        #[arg(long)]
        everyone: Option<bool>,
        /// On or off for an organization: NAME=true; repeat for several.
        #[arg(long = "organization", value_name = "NAME=BOOL", value_parser = super::name_value)]
        organizations: Vec<(String, String)>,
        /// On for this share of organizations.
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
        percentage: Option<u8>,
    },
}

/// `toolyard flags ...`
pub(crate) async fn flags(context: &Context, command: FlagsCommand) -> Result<(), Failure> {
    let client = &context.client;
    match command {
        FlagsCommand::List => {
            let flags: Vec<Flag> = client.list("/flags", &json!({})).await?;
            output::print_list(context.format, &flags, &["FLAG", "ENABLED", "DESCRIPTION"], |flag| {
                vec![flag.name.clone(), flag.enabled.to_string(), flag.description.clone()]
            });
        }
        FlagsCommand::Set { name, everyone, organizations, percentage } => {
            let organization = |(name, on): (String, String)| {
                let name = Name::new(name).map_err(|error| Failure::new(error.to_string()))?;
                let on = on.parse().map_err(|_| Failure::new(format!("`{on}` must be true or false")))?;
                Ok((name, on))
            };
            let organizations = organizations.into_iter().map(organization).collect::<Result<_, Failure>>()?;
            let rule = FlagRule { everyone, organizations, percentage };
            let path = format!("/flags/{}", segment(&name));
            let flag: Flag = client.send(reqwest::Method::PUT, &path, Some(&rule)).await?;
            output::print_fields(
                context.format,
                &flag,
                &[("flag", flag.name.clone()), ("enabled", flag.enabled.to_string())],
            );
        }
    }
    Ok(())
}

/// `toolyard audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// How many lines at most, newest first.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only by this one: an e-mail address, a key's name, user:ID or api_key:ID.
    #[arg(long)]
    actor: Option<String>,
    /// Only this action, such as server.create, or everything of a noun, such as server.
    #[arg(long)]
    action: Option<String>,
    /// Only about this, such as server/everything.
    #[arg(long)]
    target: Option<String>,
    /// Only what was done, or what was refused.
    #[arg(long, value_parser = ["done", "refused"])]
    outcome: Option<String>,
    /// Only from then on, such as 2026-11-22T12:00:00Z.
    #[arg(long, value_parser = super::time)]
    since: Option<Timestamp>,
    /// Only before then.
    #[arg(long, value_parser = super::time)]
    until: Option<Timestamp>,
}

/// `toolyard audit`.
pub(crate) async fn audit(context: &Context, args: AuditArgs) -> Result<(), Failure> {
    let query = json!({
        "actor": args.actor, "action": args.action, "target": args.target, "outcome": args.outcome,
        "since": args.since, "until": args.until,
    });
    let page = context.first::<AuditRecord>("/audit", &query, args.limit).await?;
    output::print_first(context.format, &page, &["AT", "WHO", "ACTION", "TARGET", "OUTCOME"], |record| {
        vec![
            record.at.to_string(),
            record.actor_display.clone(),
            record.action.clone(),
            record.target.clone(),
            record.outcome.clone(),
        ]
    });
    Ok(())
}

/// `toolyard why`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  toolyard why tool:call --resource everything --member someone@example.com
  toolyard why credential:use --resource credential/github-token --key ci")]
pub(crate) struct WhyArgs {
    /// What would be done, such as `tool:call`.
    #[arg(value_parser = action)]
    action: Action,
    /// What it is about: the name of a server or toolset, or credential/NAME, api_key/own, member/owner and the like.
    #[arg(long)]
    resource: Option<String>,
    /// Ask about this member, by e-mail address; about oneself when absent.
    #[arg(long, conflicts_with = "key")]
    member: Option<String>,
    /// Ask about this API key, by id or name.
    #[arg(long)]
    key: Option<String>,
}

/// `toolyard why`.
pub(crate) async fn why(context: &Context, args: WhyArgs) -> Result<(), Failure> {
    // Servers and toolsets share one name space, and one rule is for both.
    let resource = args.resource.map(|text| match text.as_str() {
        "organization" => text,
        name if !name.contains('/') => format!("server/{name}"),
        _ => text,
    });
    let query = json!({ "action": args.action, "resource": resource, "member": args.member, "key": args.key });
    let why: Why = context.client.get_with("/why", &query).await?;
    let decision = if why.allowed { "allowed" } else { "refused" };
    let fields = [
        ("who", why.principal.clone()),
        ("action", why.action.as_str().to_owned()),
        ("resource", why.resource.clone()),
        ("decision", decision.to_owned()),
        ("because", why.because.join("; ")),
    ];
    output::print_fields(context.format, &why, &fields);
    Ok(())
}

/// `toolyard status`: the three parts of being ready, and the loops that failed.
pub(crate) async fn status(context: &Context) -> Result<(), Failure> {
    let readiness: Readiness = context.client.get("/readiness").await?;
    let word = |part: &ReadinessPart| if part.ready { "ready" } else { "NOT READY" };
    let line = |part: &ReadinessPart| format!("{} since {}: {}", word(part), part.since, part.message);
    let parts = readiness.parts();
    let mut fields: Vec<_> = parts.iter().map(|(name, part)| (*name, line(part))).collect();
    let failed = readiness.loops.iter().filter_map(|one| Some((one, one.error.as_ref()?)));
    fields.extend(failed.map(|(one, error)| ("loop", format!("`{}` failed at {}: {error}", one.name, one.at))));
    output::print_fields(context.format, &json!(readiness), &fields);
    Ok(())
}

/// `toolyard version`.
pub(crate) async fn version(context: &Context) -> Result<(), Failure> {
    let program = env!("CARGO_PKG_VERSION");
    let mut answer = json!({ "program": program, "server": null });
    let about = match context.client.get::<Version>("/version").await {
        Ok(server) => {
            answer["server"] = json!(server);
            format!("{} ({}, {}, {})", server.version, server.environment, server.deployment_target, server.database)
        }
        // The program's own is known all the same.
        Err(error) => {
            let why = error.to_string();
            answer["problem"] = json!(why);
            format!("not known: {why}")
        }
    };
    output::print_fields(context.format, &answer, &[("program", program.to_owned()), ("server", about)]);
    Ok(())
}

async fn remove(context: &Context, collection: &str, name: &str) -> Result<(), Failure> {
    delete(context, collection, name).await?;
    print_removed(context, name, &json!({ "name": name, "state": "removed" }));
    Ok(())
}

/// Removes what has an id beside the name that people know it by.
async fn remove_by_id(context: &Context, collection: &str, id: &str, name: Option<&str>) -> Result<(), Failure> {
    delete(context, collection, id).await?;
    print_removed(context, name.unwrap_or(id), &json!({ "id": id, "name": name, "state": "removed" }));
    Ok(())
}

async fn delete(context: &Context, collection: &str, key: &str) -> Result<(), Failure> {
    let path = format!("{collection}/{}", segment(key));
    let _: Value = context.client.send(reqwest::Method::DELETE, &path, None::<&()>).await?;
    Ok(())
}

fn print_removed(context: &Context, shown: &str, answer: &Value) {
    match context.format {
        Format::Json => output::print_json(answer),
        Format::Table => output::print_line(&format!("removed {}", output::safe(shown))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_control_plane_of_an_earlier_version_does_not_tell_is_not_known() {
        let credential = |version: u32, told: Value| -> Credential {
            let mut credential = json!({
                "id": toolyard_types::CredentialId::generate(), "name": "token", "version": version, "used_by": ["a", "b"],
                "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
            });
            let fields = credential.as_object_mut().expect("an object");
            fields.extend(told.as_object().expect("an object").clone());
            serde_json::from_value(credential).expect("a credential")
        };
        let told = |credential: &Credential| -> (String, String) {
            let fields = who_has_an_older_one(credential, |server| format!("restart {server}"));
            let lines: Vec<_> = fields.into_iter().map(|(name, text)| format!("{name}: {text}")).collect();
            (older_secret_in(credential), lines.join("\n"))
        };
        let (listed, shown) = told(&credential(2, json!({})));
        assert!(listed == "not known" && shown.starts_with("older secret in: not known"), "{listed}: {shown}");
        assert_eq!(told(&credential(1, json!({}))), (String::new(), String::new()));
        let (listed, shown) = told(&credential(2, json!({ "outdated_in": [], "unknown_in": [] })));
        assert_eq!((listed.as_str(), shown.as_str()), ("", "older secret in: nothing that runs"));
        let (listed, shown) = told(&credential(2, json!({ "outdated_in": ["a"], "unknown_in": ["b"] })));
        assert_eq!(listed, "a,b (not known)");
        assert!(shown.contains("restart a") && shown.contains("restart b"), "{shown}");
    }

    #[test]
    fn a_credential_that_cannot_be_read_is_listed_as_such() {
        let credential = json!({
            "id": toolyard_types::CredentialId::generate(), "name": "token", "version": 1, "used_by": [], "unreadable": true,
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        });
        let credential: Credential = serde_json::from_value(credential).expect("a credential");
        assert_eq!(older_secret_in(&credential), "not readable: set it again");
    }

    #[test]
    fn an_action_that_there_is_not_is_answered_with_those_there_are() {
        assert_eq!(action("tool:call"), Ok(Action::ToolCall));
        let near = action("server:nonsense").expect_err("none");
        assert!(near.contains("server:deploy") && !near.contains("tool:call"), "{near}");
        let all = action("nonsense").expect_err("none");
        assert!(all.contains("server:deploy") && all.contains("tool:call"), "{all}");
    }

    fn key(name: &str) -> ApiKey {
        let key = json!({
            "id": ApiKeyId::generate(), "name": name, "prefix": "ty_0123", "role": "developer", "created_by": "user:x",
            "created_at": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(key).expect("a key")
    }

    #[test]
    fn a_name_means_a_key_only_when_no_other_has_it() {
        let keys = [key("ci"), key("desk"), key("desk")];
        assert_eq!(only_named("ci", &keys).expect("one"), keys[0].id);
        let several = only_named("desk", &keys).expect_err("two");
        let ids = [&keys[1], &keys[2]].map(|key| key.id.to_string());
        assert!(several.details.iter().zip(&ids).all(|(line, id)| line.starts_with(id)), "{several:?}");
        assert_eq!(several.details.len(), 2);
        assert!(only_named("other", &keys).expect_err("none").message.contains("keys list"));
    }
}
