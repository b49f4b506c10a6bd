//! What production refuses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use toolyard_types::Secret;

use super::{Environment, Overrides, Settings, survey};

/// A setting that a start is refused for, or would be in production: its name and why. Never its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Insecure {
    /// The setting.
    pub setting: &'static str,
    /// Why, and what would be right.
    pub why: &'static str,
}

impl std::fmt::Display for Insecure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "setting `{}`: {}", self.setting, self.why)
    }
}

/// Every setting that is not safe in production, all at once. Empty for other environments' own use.
pub(crate) fn insecure_settings(settings: &Settings) -> Vec<Insecure> {
    let mut found = Vec::new();
    let mut refuse = |bad: bool, setting, why| {
        if bad {
            found.push(Insecure { setting, why });
        }
    };
    let https = settings.public_url.as_deref().is_some_and(|url| url.starts_with("https://"));
    refuse(!https, "public_url", "must be set to an https address");
    refuse(!settings.cookie_secure, "cookie_secure", "must be true");
    refuse(
        !settings.require_isolation && settings.local_toolbox,
        "require_isolation",
        "must be true while servers run on this machine",
    );
    refuse(
        settings.catalog_private_sources,
        "catalog_private_sources",
        "must be false: sources could reach private networks",
    );
    let weak_key = |key: &Secret| !strong_key(key.expose());
    refuse(
        settings.bootstrap_api_key.as_ref().is_some_and(weak_key),
        "bootstrap_api_key",
        "must be `ty_` or `ty_bootstrap_` and at least 32 random characters; make one with `openssl rand -hex 32`",
    );
    refuse(
        settings.bootstrap_admin_password.as_ref().is_some_and(|password| !strong_password(password.expose())),
        "bootstrap_admin_password",
        "must have at least 16 characters, not all of one kind repeated",
    );
    let verbose = |part: &str| part.contains("debug") || part.contains("trace");
    refuse(settings.log.split(',').any(verbose), "log", "must not be debug or trace");
    refuse(
        settings.database_url.as_ref().is_some_and(|url| plain_remote_database(url.expose())),
        "database_url",
        "must use TLS (`sslmode=verify-full`) to a database on another host",
    );
    found
}

/// The insecure settings that the same configuration would have in production: with its defaults for what is not set, and
/// without `.env`, which is not read there.
pub(crate) fn insecure_in_production(
    environment: &BTreeMap<String, String>,
    dir: &Path,
    overrides: &Overrides,
) -> Vec<Insecure> {
    let mut overrides = overrides.clone();
    overrides.set.push(("env".to_owned(), Environment::Production.as_str().to_owned()));
    survey(environment, dir, &overrides).map(|survey| insecure_settings(&survey.settings)).unwrap_or_default()
}

/// Whether a start must be refused.
impl Settings {
    /// The settings that must stop the start: those that stand in each other's way, and in production the insecure ones.
    pub(crate) fn refused(&self) -> Vec<Insecure> {
        let insecure = if self.env == Environment::Production { insecure_settings(self) } else { Vec::new() };
        self.clashes().into_iter().chain(insecure).collect()
    }

    /// Listeners that would take each other's address. The system tells only when both begin to listen, which is after
    /// the database was changed and servers were started.
    fn clashes(&self) -> Vec<Insecure> {
        let (public, agents, operations) = (self.listen, self.agent_listen, self.operations_listen);
        let pairs = [
            ("agent_listen", Some(agents), public, "must be another address than `listen`"),
            ("operations_listen", operations, public, "must be another address than `listen`"),
            ("operations_listen", operations, agents, "must be another address than `agent_listen`"),
        ];
        let clashing = pairs.into_iter().filter(|(_, one, other, _)| one.is_some_and(|one| overlap(one, *other)));
        clashing.map(|(setting, _, _, why)| Insecure { setting, why }).collect()
    }
}

/// Whether two listeners cannot be at these addresses at once. Port 0 is any free one, and `::` is every address of IPv4 too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    let covers = |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    let same_place = ip == other_ip || covers(ip, other_ip) || covers(other_ip, ip);
    one.port() == other.port() && one.port() != 0 && same_place
}

/// A key with enough different characters after its prefix that it was likely made by a machine.
///
/// Counting distinct characters and runs catches the keys people type (`0123456789abcdef` repeated, one
/// letter repeated); it does not prove randomness, nothing could.
fn strong_key(key: &str) -> bool {
    let Some(body) = key.strip_prefix("ty_") else { return false };
    let body = body.strip_prefix("bootstrap_").unwrap_or(body);
    let distinct = body.bytes().collect::<std::collections::BTreeSet<_>>().len();
    let ascending = body.as_bytes().windows(2).filter(|pair| pair[1] == pair[0].wrapping_add(1)).count();
    body.len() >= 32 && distinct >= 10 && ascending * 4 < body.len()
}

fn strong_password(password: &str) -> bool {
    password.chars().count() >= 16 && password.chars().collect::<std::collections::BTreeSet<_>>().len() >= 6
}

fn plain_remote_database(url: &str) -> bool {
    let local = ["@localhost", "@127.0.0.1", "@[::1]", "@/", "host=/"].iter().any(|mark| url.contains(mark));
    !local && !url.contains("sslmode=verify-full") && !url.contains("sslmode=verify-ca")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(settings: &Settings) -> Vec<&'static str> {
        settings.refused().into_iter().map(|insecure| insecure.setting).collect()
    }

    #[test]
    fn production_names_every_insecure_setting_at_once() {
        let mut settings = Settings::defaults(Environment::Production);
        settings.bootstrap_api_key = Some(Secret::new("ty_bootstrap_0123456789abcdef0123456789abcdef"));
        settings.bootstrap_admin_password = Some(Secret::new("short"));
        settings.cookie_secure = false;
        settings.log = "debug".into();
        assert_eq!(
            names(&settings),
            ["public_url", "cookie_secure", "bootstrap_api_key", "bootstrap_admin_password", "log"]
        );
        let text = settings.refused().iter().map(ToString::to_string).collect::<String>();
        assert!(!text.contains("0123456789abcdef") && !text.contains("short"), "values are never shown: {text}");
    }

    #[test]
    fn production_is_judged_by_its_own_defaults_where_nothing_is_set() {
        let dir = tempfile::tempdir().expect("a directory");
        let insecure = |variables: &[(&str, &str)]| -> Vec<_> {
            let environment = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            let found = insecure_in_production(&environment, dir.path(), &Overrides::default());
            found.into_iter().map(|insecure| insecure.setting).collect()
        };
        let https = ("TOOLYARD_PUBLIC_URL", "https://toolyard.example.com");
        assert_eq!(insecure(&[]), ["public_url"]);
        assert_eq!(insecure(&[https, ("TOOLYARD_ENV", "development")]), Vec::<&str>::new());
        let set = [https, ("TOOLYARD_COOKIE_SECURE", "false"), ("TOOLYARD_REQUIRE_ISOLATION", "false")];
        assert_eq!(insecure(&set), ["cookie_secure", "require_isolation"]);
        std::fs::write(dir.path().join(".env"), "TOOLYARD_PUBLIC_URL=https://t.example\nTOOLYARD_LOG=debug\n")
            .expect("a file");
        assert_eq!(insecure(&[]), ["public_url"], "`.env` is not read there");
    }

    #[test]
    fn two_listeners_at_one_address_are_refused_everywhere() {
        let mut settings = Settings::defaults(Environment::Development);
        let at = |address: &str| address.parse::<SocketAddr>().expect("an address");
        for (public, agents, operations, clashing) in [
            ("127.0.0.1:8080", "127.0.0.1:8081", None, &[][..]),
            ("127.0.0.1:8080", "127.0.0.1:8080", None, &["agent_listen"][..]),
            ("127.0.0.1:8080", "0.0.0.0:8080", None, &["agent_listen"][..]),
            ("127.0.0.1:8080", "127.0.0.2:8080", None, &[][..]),
            ("0.0.0.0:8080", "[::1]:8080", None, &[][..]),
            ("0.0.0.0:8080", "[::]:8080", None, &["agent_listen"][..]),
            ("127.0.0.1:1", "[::]:1", None, &["agent_listen"][..]),
            ("[::]:1", "127.0.0.1:2", Some("127.0.0.1:1"), &["operations_listen"][..]),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", None, &["agent_listen"][..]),
            ("[::]:1", "0.0.0.0:2", None, &[][..]),
            ("127.0.0.1:0", "127.0.0.1:0", Some("127.0.0.1:0"), &[][..]),
            ("127.0.0.1:1", "127.0.0.1:2", Some("127.0.0.1:2"), &["operations_listen"][..]),
            ("[::]:1", "127.0.0.1:2", Some("[::1]:1"), &["operations_listen"][..]),
        ] {
            (settings.listen, settings.agent_listen) = (at(public), at(agents));
            settings.operations_listen = operations.map(at);
            assert_eq!(names(&settings), clashing, "{public} {agents} {operations:?}");
        }
    }

    #[test]
    fn production_accepts_safe_settings_and_development_accepts_everything() {
        let mut settings = Settings::defaults(Environment::Production);
        settings.public_url = Some("https://toolyard.example.com".into());
        settings.bootstrap_api_key = Some(Secret::new("ty_9f4c1b7ad2e85036c1f7a94b02d8e6375b1c0f9e8a7d6423"));
        assert_eq!(names(&settings), Vec::<&str>::new());
        settings.env = Environment::Development;
        settings.public_url = None;
        assert_eq!(names(&settings), Vec::<&str>::new());
    }
}
