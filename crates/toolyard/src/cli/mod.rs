//! The command line: every noun of the API, one file each.

mod access;
mod calls;
mod catalog;
mod configuration;
mod connect;
mod context;
mod logs;
mod mcp;
mod options;
mod output;
mod promote;
mod secret;
mod servers;
mod toolboxes;
mod toolsets;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, Parser, Subcommand};
use toolyard_types::Timestamp;

use crate::config::Overrides;

pub(crate) use configuration::refuse as refuse_configuration;
pub(crate) use context::{Context, Failure, profile_dirs};
pub(crate) use output::{Format, print_json, print_line};

/// Exit code of a configuration that must not be started with (sysexits' EX_CONFIG).
pub(crate) const EXIT_CONFIG: u8 = 78;

/// Toolyard runs MCP servers in production, on machines you own.
#[derive(Debug, Parser)]
#[command(name = "toolyard", version, max_term_width = 110, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  toolyard serve                                         start Toolyard on this machine
  toolyard catalog search time                           find a server
  toolyard deploy io.github.modelcontextprotocol/server-time --name time --wait
  toolyard call time get_current_time '{\"timezone\":\"UTC\"}'
  toolyard connect time --client cursor                  write the client's configuration

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration, 130 interrupted.";

/// Options of every command that asks a Toolyard.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The Toolyard to ask, such as `http://127.0.0.1:8080`.
    #[arg(
        long,
        global = true,
        env = "TOOLYARD_URL",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Connection"
    )]
    url: Option<String>,
    /// The API key to ask with.
    #[arg(
        long,
        global = true,
        env = "TOOLYARD_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = "Connection"
    )]
    api_key: Option<String>,
    /// A file of CA certificates (PEM) to trust besides the system's.
    #[arg(
        long,
        global = true,
        env = "TOOLYARD_CA_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Connection"
    )]
    ca_file: Option<PathBuf>,
    /// How to print.
    #[arg(long, global = true, env = "TOOLYARD_OUTPUT", hide_env_values = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start Toolyard: control plane, gateway, console and this machine's toolbox.
    Serve(ServeArgs),
    /// Run only the agent of a toolbox.
    Dtma(DtmaArgs),
    /// Give a member who cannot sign in any more a new password, on the host of Toolyard itself.
    ResetPassword(ResetPasswordArgs),
    /// Remember a URL and an API key for later commands.
    Login(access::LoginArgs),
    /// Find servers to deploy.
    #[command(subcommand)]
    Catalog(catalog::Command),
    /// Deploy a server from the catalog, or register a remote one.
    Deploy(Box<servers::DeployArgs>),
    /// See and change servers.
    #[command(subcommand)]
    Servers(servers::Command),
    /// Follow or cancel the change of a server.
    #[command(subcommand)]
    Rollout(servers::RolloutCommand),
    /// List the tools of a server or toolset.
    Tools(mcp::ToolsArgs),
    /// Call a tool of a server or toolset.
    Call(mcp::CallArgs),
    /// Choose tools of several servers to serve at one URL.
    #[command(subcommand)]
    Toolsets(toolsets::Command),
    /// Places where servers run.
    #[command(subcommand)]
    Toolboxes(toolboxes::Command),
    /// Secrets that servers use.
    #[command(subcommand)]
    Credentials(access::CredentialsCommand),
    /// API keys.
    #[command(subcommand)]
    Keys(access::KeysCommand),
    /// People and their roles.
    #[command(subcommand)]
    Members(access::MembersCommand),
    /// Feature flags.
    #[command(subcommand)]
    Flags(access::FlagsCommand),
    /// Which calls went through the gateway, and how they ended.
    Calls(calls::CallsArgs),
    /// Who did what.
    Audit(access::AuditArgs),
    /// Why something is allowed or refused.
    Why(access::WhyArgs),
    /// Write an MCP client's configuration, with a backup.
    Connect(connect::ConnectArgs),
    /// Check and show the server's configuration.
    #[command(subcommand)]
    Config(configuration::Command),
    /// Print a shell's completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Whether a Toolyard serves calls, keeps what is written, and works: the parts of being ready.
    Status,
    /// The version of this program, and of the Toolyard it asks.
    Version,
    /// Print the generated files' contents.
    #[command(hide = true)]
    Generate {
        /// `env-example`, `configuration`, `settings-schema`, `problems`, `openapi` or `cli`.
        what: String,
    },
}

/// Settings that can be given on the command line.
#[derive(Clone, Debug, Args)]
pub(crate) struct SettingsArgs {
    /// Read this file instead of `toolyard.toml`.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to keep everything.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Any setting, such as `--set session_hours=8`; see docs/reference/configuration.md.
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", value_parser = name_value)]
    set: Vec<(String, String)>,
}

impl SettingsArgs {
    fn overrides(&self) -> Overrides {
        let mut set = self.set.clone();
        set.extend(self.data_dir.iter().map(|dir| ("data_dir".to_owned(), dir.clone())));
        Overrides { file: self.config.clone(), set, ..Overrides::default() }
    }
}

/// `toolyard serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Address of the console, the API and the gateway.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    listen: Option<String>,
    /// Address of the listener for agents.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    agent_listen: Option<String>,
}

impl ServeArgs {
    fn overrides(&self) -> Overrides {
        let mut overrides = self.settings.overrides();
        overrides.set.extend(self.listen.iter().map(|address| ("listen".to_owned(), address.clone())));
        overrides.set.extend(self.agent_listen.iter().map(|address| ("agent_listen".to_owned(), address.clone())));
        overrides
    }
}

/// `toolyard reset-password`.
///
/// Needs no API key: it opens the database that the settings name, whether Toolyard runs or not. The password is made up;
/// it is shown on the terminal or, without one, put into a file of the data directory that only its owner can read.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  toolyard reset-password                                the first owner, with the data directory of `serve`
  toolyard reset-password ada@example.org --data-dir /var/lib/toolyard")]
pub(crate) struct ResetPasswordArgs {
    /// The member's e-mail address; the first owner without it.
    #[arg(value_name = "EMAIL")]
    email: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// `toolyard dtma`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DtmaArgs {
    #[command(subcommand)]
    pub command: Option<DtmaCommand>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// The token that `toolyard toolboxes enroll` printed; needed at the first start only.
    #[arg(long, global = true, value_name = "TOKEN", env = "TOOLYARD_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Wait at this address for the control plane, which must know it (`toolboxes enroll --address`), and dial nothing:
    /// for hosts that must not dial out.
    #[arg(long, global = true, value_name = "ADDRESS:PORT", value_parser = address)]
    listen: Option<String>,
    /// What runs servers: processes of this host, or containers of the engine at `DOCKER_HOST`.
    #[arg(long, global = true, value_name = "ENGINE", value_parser = ["process", "docker"])]
    engine: Option<String>,
}

/// `toolyard dtma ...`
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum DtmaCommand {
    /// Check what an agent needs of this host and its network, and say what to do. A token is not used up.
    Doctor,
}

impl DtmaArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        let mut overrides = Overrides { for_agent: true, ..self.settings.overrides() };
        overrides.set.extend(self.engine.iter().map(|engine| ("engine".to_owned(), engine.clone())));
        overrides.set.extend(self.listen.iter().map(|address| ("dtma_listen".to_owned(), address.clone())));
        overrides
    }
}

fn address(text: &str) -> Result<String, String> {
    match text.parse::<std::net::SocketAddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("must be an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080".into()),
    }
}

fn name_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".into()),
    }
}

/// Seconds, or a number with a unit.
fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{}` is no time such as 90, 90s, 15m, 1h or 7d", toolyard_types::name::printable(text));
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, text.get(number.len()..).unwrap_or_default()),
        None => (text, "s"),
    };
    let each: u32 = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 1,
    };
    number.parse::<u32>().ok().and_then(|number| number.checked_mul(each)).ok_or_else(wrong)
}

/// The same, from `LEAST` to `MOST` seconds, of which whoever is out of range is told.
fn seconds_within<const LEAST: u32, const MOST: u32>(text: &str) -> Result<u32, String> {
    let seconds = seconds(text)?;
    if (LEAST..=MOST).contains(&seconds) {
        return Ok(seconds);
    }
    Err(format!("must be {LEAST} to {MOST} seconds (at most {})", in_largest_unit(MOST)))
}

fn in_largest_unit(seconds: u32) -> String {
    match seconds {
        0 => "0s".to_owned(),
        seconds if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        seconds if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        seconds if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// A moment, as an argument.
fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|_| "must be a time in UTC such as 2026-11-22T12:00:00Z".to_owned())
}

/// Runs the program as its arguments say.
pub(crate) fn main() -> ExitCode {
    // rustls wants to be told which provider is used. A second call changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // The agent's own, to hold one server process; no command of a person's, to whom it would be suggested. No runtime yet:
    // the supervisor forks, and must be alone in its process.
    if std::env::args_os().skip(1).eq(["supervise"]) {
        return toolyard_dtma::supervise::main();
    }
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
        with_plain_usage(error, words).exit()
    });
    match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "toolyard", &mut script);
            output::print_line(String::from_utf8_lossy(&script).trim_end());
            ExitCode::SUCCESS
        }
        Command::Generate { what } => crate::generate::print(&what),
        command => match runtime(&command) {
            Ok(runtime) => {
                let code = runtime.block_on(run(cli.global, command));
                // Dropped, it would wait for its threads without an end, and one may hang in the kernel.
                runtime.shutdown_timeout(LAST_THREADS);
                code
            }
            Err(error) => output::fail(&format!("cannot start: {error}"), 1),
        },
    }
}

/// In the usage of an error clap lists what the environment gives, such as `--url <URL>`, as if it were needed.
fn with_plain_usage(mut error: clap::Error, words: impl Iterator<Item = String>) -> clap::Error {
    if error.get(ContextKind::Usage).is_none() {
        return error;
    }
    let mut command = Cli::command();
    command.build();
    for word in words {
        if let Some(sub) = command.find_subcommand(&word) {
            command = sub.clone();
        }
    }
    error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
    // What one does with servers is looked for without that word, such as `logs`.
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && command.get_name() == Cli::command().get_name()
        && let Some(found) = command.find_subcommand("servers").and_then(|servers| servers.find_subcommand(word))
    {
        let meant = format!("servers {}", found.get_name());
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![meant]));
    }
    error
}

/// How long threads may take to end when all else has.
const LAST_THREADS: Duration = Duration::from_secs(5);
/// How long threads for blocking work stay without any; each minute there is some.
const BLOCKING_THREADS_STAY: Duration = Duration::from_secs(300);

fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if matches!(command, Command::Dtma(_)) {
        // An agent hands messages on between tasks of a microsecond each. One worker carries some ten thousand calls a
        // second; waking a second one for every message costs more than it does, and takes from the servers.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        builder.worker_threads((cores / 4).max(1));
    }
    // A host that is out of threads for a moment must not end what needs one: while one is there, it is waited for.
    builder.thread_keep_alive(BLOCKING_THREADS_STAY).enable_all();
    let runtime = builder.build()?;
    runtime.spawn_blocking(|| {});
    Ok(runtime)
}

async fn run(global: Global, command: Command) -> ExitCode {
    let done = match command {
        Command::Serve(args) => return crate::serve::main(&args.overrides()).await,
        Command::Dtma(args) => {
            return match args.command {
                Some(DtmaCommand::Doctor) => crate::doctor::main(&args, global.output).await,
                None => crate::agent::main(&args).await,
            };
        }
        Command::ResetPassword(args) => {
            return crate::reset_password::main(&args.settings.overrides(), args.email.as_deref(), global.output).await;
        }
        Command::Config(command) => return configuration::run(command, global.output),
        Command::Login(args) => access::login(&global, args).await,
        command => match Context::new(&global) {
            Ok(context) => ask(&context, command).await,
            Err(failure) => Err(failure),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(global.output),
    }
}

async fn ask(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Catalog(command) => catalog::run(context, command).await,
        Command::Deploy(args) => servers::deploy(context, *args).await,
        Command::Servers(command) => servers::run(context, command).await,
        Command::Rollout(command) => servers::rollout(context, command).await,
        Command::Tools(args) => mcp::tools(context, args).await,
        Command::Call(args) => mcp::call(context, args).await,
        Command::Toolsets(command) => toolsets::run(context, command).await,
        Command::Toolboxes(command) => toolboxes::run(context, command).await,
        Command::Credentials(command) => access::credentials(context, command).await,
        Command::Keys(command) => access::keys(context, command).await,
        Command::Members(command) => access::members(context, command).await,
        Command::Flags(command) => access::flags(context, command).await,
        Command::Calls(args) => calls::list(context, args).await,
        Command::Audit(args) => access::audit(context, args).await,
        Command::Why(args) => access::why(context, args).await,
        Command::Connect(args) => connect::run(context, args).await,
        Command::Status => access::status(context).await,
        Command::Version => access::version(context).await,
        Command::Serve(_)
        | Command::Dtma(_)
        | Command::ResetPassword(_)
        | Command::Login(_)
        | Command::Config(_)
        | Command::Completions { .. }
        | Command::Generate { .. } => unreachable!("handled before a context is made"),
    }
}

/// The reference page of the command line.
pub(crate) fn reference() -> String {
    let mut out = String::from(
        "# Command line\n\n<!-- Generated from the program's own help: `cargo xtask generate`. Do not edit. -->\n",
    );
    let mut command = Cli::command().term_width(100);
    command.build();
    describe(&mut command, &mut Vec::new(), &mut out);
    out
}

fn describe(command: &mut clap::Command, path: &mut Vec<String>, out: &mut String) {
    path.push(command.get_name().to_owned());
    let help = command.render_long_help().to_string();
    out.push_str(&format!("\n## `{}`\n\n```text\n{}\n```\n", path.join(" "), help.trim_end()));
    for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        describe(sub, path, out);
    }
    path.pop();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_seconds_and_may_have_a_unit() {
        assert_eq!(["60", "60s", "5m", "1h", "7d"].map(seconds), [60, 60, 300, 3600, 604_800].map(Ok::<u32, String>));
        for bad in ["", "s", "-1", "1.5", "60 s", "1w", "1\u{e9}", "99999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_out_of_range_is_refused_in_seconds_by_the_name_of_its_option() {
        for (line, option, range) in [
            ("toolyard deploy com.example/git --call-timeout 2d", "--call-timeout", "1 to 86400 seconds (at most 1d)"),
            ("toolyard deploy com.example/git --call-timeout 0", "--call-timeout", "1 to 86400 seconds"),
            ("toolyard servers update git --start-timeout 2h", "--start-timeout", "1 to 3600 seconds (at most 1h)"),
            ("toolyard servers update git --rollout-timeout 0s", "--rollout-timeout", "1 to 86400 seconds"),
            ("toolyard servers update git --observe 61m", "--observe", "0 to 3600 seconds"),
            ("toolyard servers update git --instancing per_user --idle-stop 0", "--idle-stop", "1 to 86400 seconds"),
            ("toolyard servers update git --canary 10% --promote-after 8d", "--promote-after", "1 to 604800 seconds"),
            ("toolyard toolboxes enroll edge1 --expires 8d", "--expires", "1 to 604800 seconds (at most 7d)"),
            ("toolyard toolboxes rejoin edge1 --expires 0", "--expires", "1 to 604800 seconds"),
            ("toolyard keys rotate ci --overlap 8d", "--overlap", "0 to 604800 seconds"),
        ] {
            let refused = Cli::try_parse_from(line.split(' ')).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains(option) && refused.contains(range), "{line}: {refused}");
        }
    }

    #[test]
    fn every_option_that_is_a_time_takes_a_unit() {
        for line in [
            "toolyard deploy com.example/git --start-timeout 2m --call-timeout 10m --rollout-timeout 15m --observe 2m --timeout 1h",
            "toolyard deploy com.example/git --instancing per_user --idle-stop 10m",
            "toolyard servers update git --canary 10% --promote-after 1h --wait --timeout 90s",
            "toolyard toolboxes enroll edge1 --expires 24h",
            "toolyard toolboxes rejoin edge1 --expires 3600",
            "toolyard toolboxes remove edge1 --timeout 15m",
            "toolyard toolboxes drain edge1 --wait --timeout 15m",
            "toolyard keys rotate ci --overlap 1h",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn inputs_of_an_entry_may_be_named_like_options() {
        for line in [
            "toolyard deploy com.example/git --input --repository=/srv/x --credential --token=t --wait",
            "toolyard servers update git --input --repository=/srv/x --unset-env --branch",
            "toolyard servers promote git --to-key k --credential --token=t",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        let forgotten = Cli::try_parse_from(["toolyard", "deploy", "com.example/git", "--input", "--wait"]);
        assert!(forgotten.expect_err("no value").to_string().contains("must be NAME=VALUE"));
    }

    #[test]
    fn an_error_does_not_show_as_needed_what_the_environment_or_the_command_line_gives() {
        for (line, usage) in [
            ("toolyard deploy --url http://t --api-key ty_k", "Usage: toolyard deploy [OPTIONS] <ENTRY>"),
            (
                "toolyard --url http://t servers update --api-key ty_k",
                "Usage: toolyard servers update [OPTIONS] <NAME>",
            ),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            let words = line.split(' ').skip(1).map(str::to_owned);
            let text = with_plain_usage(error, words).to_string();
            assert!(text.contains(usage) && !text.contains("--url <URL>"), "{text}");
        }
    }

    #[test]
    fn what_others_call_a_command_is_taken_for_it() {
        for line in [
            "toolyard servers get time",
            "toolyard servers describe time",
            "toolyard servers rm time",
            "toolyard rollout undo time --to-revision 2 --wait",
            "toolyard rollout history time",
            "toolyard keys add ci",
            "toolyard members invite ada@example.org",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_command_of_servers_without_that_word_is_suggested_with_it_and_the_agents_own_never() {
        let told = |line: &str| {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            with_plain_usage(error, line.split(' ').skip(1).map(str::to_owned)).to_string()
        };
        for (line, meant) in [("toolyard logs -f time", "'servers logs'"), ("toolyard get time", "'servers show'")] {
            assert!(told(line).contains(meant), "{}", told(line));
        }
        let elsewhere = told("toolyard toolboxes logs edge1");
        assert!(!elsewhere.contains("servers logs"), "{elsewhere}");
        let own = told("toolyard supervisor");
        assert!(!own.contains("'supervise'"), "{own}");
    }

    #[test]
    fn an_address_to_listen_at_is_told_in_its_form() {
        for line in ["toolyard serve --listen 8080", "toolyard dtma --listen localhost:8080"] {
            let told = Cli::try_parse_from(line.split(' ')).expect_err(line).to_string();
            assert!(told.contains("such as 127.0.0.1:8080"), "{told}");
        }
        assert!(Cli::try_parse_from(["toolyard", "serve", "--listen", "[::1]:8080"]).is_ok());
    }

    #[test]
    fn the_options_of_an_agent_may_stand_behind_doctor_too() {
        for line in [
            "toolyard dtma doctor --data-dir /d --listen 0.0.0.0:1 --engine docker --set drain_seconds=1 --token t",
            "toolyard dtma --data-dir /d --listen 0.0.0.0:1 --engine docker --set drain_seconds=1 --token t doctor",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            let Command::Dtma(args) = cli.command else { panic!("another command: {line}") };
            assert!(args.command.is_some() && args.token.as_deref() == Some("t"), "{line}");
            let mut set = args.overrides().set;
            set.sort();
            let names: Vec<_> = set.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["data_dir", "drain_seconds", "dtma_listen", "engine"], "{line}");
        }
    }

    /// clap hands the value of an argument to a global one of the same id, and the other way round: a `--url` of a
    /// command's own would tell where the API key is sent.
    #[test]
    fn no_argument_of_any_command_shadows_a_global_one() {
        let mut shadows = Vec::new();
        shadowing(&Cli::command(), &mut Vec::new(), &mut Vec::new(), &mut shadows);
        assert_eq!(shadows, Vec::<String>::new());
    }

    fn shadowing(command: &clap::Command, path: &mut Vec<String>, globals: &mut Vec<String>, found: &mut Vec<String>) {
        let above = globals.len();
        path.push(command.get_name().to_owned());
        for argument in command.get_arguments() {
            let names = names(argument);
            let shadowed = names.iter().filter(|name| globals[..above].contains(name));
            found.extend(shadowed.map(|name| format!("{} {name}", path.join(" "))));
            if argument.is_global_set() {
                globals.extend(names);
            }
        }
        for sub in command.get_subcommands() {
            shadowing(sub, path, globals, found);
        }
        path.pop();
        globals.truncate(above);
    }

    /// Everything an argument is known by.
    fn names(argument: &clap::Arg) -> Vec<String> {
        let longs = argument.get_long().into_iter().chain(argument.get_all_aliases().unwrap_or_default());
        let shorts = argument.get_short().into_iter().chain(argument.get_all_short_aliases().unwrap_or_default());
        let variable = argument.get_env().map(|name| format!("${}", name.to_string_lossy()));
        std::iter::once(argument.get_id().to_string())
            .chain(longs.map(|long| format!("--{long}")))
            .chain(shorts.map(|short| format!("-{short}")))
            .chain(variable)
            .collect()
    }
}
