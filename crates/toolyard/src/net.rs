//! Outgoing connections: one HTTP client that knows the CA bundle and the proxy, and the same settings as
//! environment variables for package clients and servers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use toolyard_control::is_public;
use tower::Service;

use crate::config::Settings;

/// In the data directory: the certificates of the system and of the CA bundle.
const WHOLE_BUNDLE: &str = "ca-bundle.pem";
/// What has a client trust the system's CAs: uv, as that is called now and was before, and npm.
const SYSTEM_STORE: [&[&str]; 2] = [&["UV_SYSTEM_CERTS", "UV_NATIVE_TLS"], &["NODE_USE_SYSTEM_CA"]];

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is wrong with the settings of outgoing connections, as far as it is not [`unreadable`]; it names the setting.
pub(crate) fn check(settings: &Settings) -> Option<String> {
    if unreadable(settings).is_some() {
        return None;
    }
    http_client(settings).map(drop).and_then(|()| upstream_client(settings).map(drop)).err()
}

/// Why the CA bundle cannot be read at the moment. A mount may come later, so it says nothing of the settings.
pub(crate) fn unreadable(settings: &Settings) -> Option<String> {
    settings.ca_bundle.as_deref().and_then(|path| read_bundle(path).err())
}

fn read_bundle(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("setting `ca_bundle`: cannot read `{}`: {error}", path.display()))
}

/// The client every outgoing request of the control plane is made with.
///
/// # Errors
/// When the CA bundle cannot be read or the proxy is no URL; the text names the setting.
pub(crate) fn http_client(settings: &Settings) -> Result<reqwest::Client, String> {
    http_client_builder(settings)?
        .build()
        .map_err(|error| format!("cannot set up outgoing connections: {}", crate::agent::chain(&error)))
}

/// A client with the CA bundle, the proxy and the time limits, to be narrowed further.
///
/// # Errors
/// As [`http_client`].
pub(crate) fn http_client_builder(settings: &Settings) -> Result<reqwest::ClientBuilder, String> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .timeout(Duration::from_secs(60))
        .user_agent(concat!("toolyard/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &settings.ca_bundle {
        let pem = read_bundle(path)?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(format!("setting `ca_bundle`: `{}` holds no PEM certificates", path.display()));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    if let Some(url) = &settings.proxy {
        let exceptions = settings.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
        let proxy = reqwest::Proxy::all(url).map_err(|_| "setting `proxy`: not a URL".to_owned())?;
        builder = builder.proxy(proxy.no_proxy(exceptions));
    }
    Ok(builder)
}

/// The connections of the gateway to remote servers: pooled, without an overall time limit (streams live
/// long; the gateway has deadlines of its own), with the same CA bundle and proxy. Unless `private_remotes` is
/// set they reach public addresses only: where a name leads is looked at when it is connected to, so that a
/// name which changes does not get past it.
///
/// # Errors
/// As [`http_client`].
pub(crate) fn upstream_client(settings: &Settings) -> Result<toolyard_mcp::http::Client, String> {
    let tls = tls_config(settings)?;
    if settings.proxy.as_deref().is_some_and(|url| url.parse::<Uri>().is_err()) {
        return Err("setting `proxy`: not a URL".to_owned());
    }
    let exceptions = settings.no_proxy.clone().unwrap_or_default();
    let intercept = Arc::new(Matcher::builder().all(settings.proxy.clone().unwrap_or_default()).no(exceptions).build());
    let allowed = if settings.private_remotes { Reach::Everywhere } else { Reach::Public };
    // A proxy of one's own decides what can be reached; the proxy itself may be anywhere.
    let mut to_proxy = HttpConnector::new();
    to_proxy.set_connect_timeout(Some(Duration::from_secs(10)));
    let mut direct = HttpConnector::new_with_resolver(tower::service_fn(move |name: Name| resolve(name, allowed)));
    direct.enforce_http(false);
    direct.set_nodelay(true);
    direct.set_connect_timeout(Some(Duration::from_secs(10)));
    let route = tower::service_fn(move |target: Uri| {
        let (mut direct, to_proxy) = (direct.clone(), to_proxy.clone());
        let through = intercept.intercept(&target);
        async move {
            let Some(through) = through else {
                refuse_private_literal(&target, allowed)?;
                return direct.call(target).await.map_err(BoxError::from);
            };
            let tunnel = Tunnel::new(through.uri().clone(), to_proxy);
            let mut tunnel = match through.basic_auth() {
                Some(auth) => tunnel.with_auth(auth.clone()),
                None => tunnel,
            };
            tunnel.call(target).await.map_err(BoxError::from)
        }
    });
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(route);
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .build::<_, Full<Bytes>>(https);
    Ok(Arc::new(move |request| {
        let client = client.clone();
        Box::pin(async move { client.request(request).await.map_err(BoxError::from) })
    }))
}

/// Where connections may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Everywhere,
    Public,
}

const PRIVATE: &str = "a private address, which remote servers may have only with the setting `private_remotes`";

/// The addresses of a name, as far as they may be reached.
async fn resolve(name: Name, reach: Reach) -> Result<std::vec::IntoIter<SocketAddr>, BoxError> {
    let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
    let allowed: Vec<_> = found.filter(|address| reach == Reach::Everywhere || is_public(address.ip())).collect();
    if allowed.is_empty() {
        tracing::warn!(server.host = %name, "not connected: {PRIVATE}");
        return Err(PRIVATE.into());
    }
    Ok(allowed.into_iter())
}

/// An address in the place of a name is not resolved, so it is looked at here.
fn refuse_private_literal(target: &Uri, reach: Reach) -> Result<(), BoxError> {
    let host = target.host().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) if reach == Reach::Public && !is_public(address) => {
            tracing::warn!(server.host = %address, "not connected: {PRIVATE}");
            Err(PRIVATE.into())
        }
        _ => Ok(()),
    }
}

fn tls_config(settings: &Settings) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    // A certificate the system has and rustls cannot read is not trusted; the others still are.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &settings.ca_bundle {
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| format!("setting `ca_bundle`: {error}"))?;
        roots.add_parsable_certificates(certificates);
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// The certificates that package clients and servers are to trust where there is a CA bundle: the system's too, for most of
/// them take one file in the place of the system's store. Made at each start; the bundle itself where that fails.
pub(crate) fn bundle_for_clients(settings: &Settings) -> Option<PathBuf> {
    let bundle = settings.ca_bundle.as_deref()?;
    match write_whole_bundle(bundle, &settings.data_dir) {
        Ok(path) => Some(path),
        Err(error) => {
            tracing::warn!("package clients and servers do not trust the system's certificates: {error}");
            Some(std::path::absolute(bundle).unwrap_or_else(|_| bundle.to_owned()))
        }
    }
}

fn write_whole_bundle(bundle: &Path, data_dir: &Path) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt;
    let own = read_bundle(bundle)?;
    let mut certificates = rustls_native_certs::load_native_certs().certs;
    certificates.extend(CertificateDer::pem_slice_iter(&own).filter_map(Result::ok));
    let text: String = certificates.iter().map(pem).collect();
    let failed = |error: std::io::Error| format!("cannot write `{WHOLE_BUNDLE}` in the data directory: {error}");
    let dir = std::fs::canonicalize(data_dir).map_err(failed)?;
    let (path, new) = (dir.join(WHOLE_BUNDLE), dir.join(format!("{WHOLE_BUNDLE}.new")));
    // Servers have users of their own.
    std::fs::write(&new, text)
        .and_then(|()| std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644)))
        .and_then(|()| std::fs::rename(&new, &path))
        .map_err(failed)?;
    Ok(path)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in base64::engine::general_purpose::STANDARD.encode(certificate).as_bytes().chunks(64) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// The environment of package clients (npm, pip, uv): Toolyard's own, so that people's registry, proxy and
/// cache settings hold, without Toolyard's settings, and with the CA bundle and proxy setting on top; `bundle` is the file
/// that they are given for it.
pub(crate) fn client_environment(
    settings: &Settings,
    process: &BTreeMap<String, String>,
    bundle: Option<&Path>,
) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> = process
        .iter()
        .filter(|(name, _)| !name.starts_with("TOOLYARD_"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut set = |names: &[&str], value: &str| {
        environment.extend(names.iter().map(|name| ((*name).to_owned(), value.to_owned())));
    };
    if let Some(path) = bundle {
        let path = path.display().to_string();
        set(&["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NPM_CONFIG_CAFILE"], &path);
    }
    if let Some(proxy) = &settings.proxy {
        set(&["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"], proxy);
    }
    if let Some(hosts) = &settings.no_proxy {
        set(&["NO_PROXY", "no_proxy"], hosts);
    }
    // By themselves they trust the CAs that are built into them; told to trust the system's, uv does not start without any.
    let is_said = |name: &&str| process.keys().any(|said| said.eq_ignore_ascii_case(name));
    let has_some = !rustls_native_certs::load_native_certs().certs.is_empty();
    for names in SYSTEM_STORE.into_iter().filter(|names| has_some && !names.iter().any(is_said)) {
        set(names, "1");
    }
    environment
}

/// Where agents reach the listener at `bound`: as set, else its address, else what this host is called and has.
pub(crate) fn agent_addresses(settings: &Settings, bound: SocketAddr) -> Vec<String> {
    if !settings.agent_addresses.is_empty() {
        return settings.agent_addresses.clone();
    }
    if !bound.ip().is_unspecified() {
        return vec![bound.to_string()];
    }
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let name = name.map(|name| format!("{name}:{}", bound.port()));
    let address = outgoing_address().map(|ip| SocketAddr::new(ip, bound.port()).to_string());
    name.into_iter().chain(address).collect()
}

/// The address this host has towards others. Connecting a datagram socket chooses a route and sends nothing; the
/// address is one of those for documentation (RFC 5737).
fn outgoing_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((std::net::Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[tokio::test]
    async fn remote_servers_at_private_addresses_need_a_setting() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut settings = Settings::defaults(Environment::Production);
        let attempt = async |settings: &Settings, host: &str| {
            let client = upstream_client(settings).expect("a client");
            let uri = format!("http://{host}:{port}/");
            let request = http::Request::post(uri).body(Full::default()).expect("a request");
            let error = client(request).await.expect_err("nobody answers");
            crate::agent::chain(&*error).contains("private_remotes")
        };
        for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(attempt(&settings, host).await, "{host}");
        }
        settings.private_remotes = true;
        let accepted = tokio::spawn(async move { listener.accept().await.is_ok() });
        assert!(!attempt(&settings, "127.0.0.1").await);
        assert!(accepted.await.expect("it does not panic"));
    }

    #[test]
    fn tokens_carry_the_addresses_that_are_set_else_the_listeners_own() {
        let mut settings = Settings::defaults(Environment::Production);
        let bound = SocketAddr::from(([10, 0, 0, 1], 8081));
        assert_eq!(agent_addresses(&settings, bound), ["10.0.0.1:8081"]);
        let all = agent_addresses(&settings, SocketAddr::from(([0, 0, 0, 0], 8081)));
        assert!(!all.is_empty() && all.iter().all(|at| at.ends_with(":8081") && !at.starts_with("0.0.0.0")), "{all:?}");
        settings.agent_addresses = vec!["control.example.com:443".into()];
        assert_eq!(agent_addresses(&settings, bound), ["control.example.com:443"]);
    }

    #[test]
    fn the_ca_bundle_and_proxy_reach_package_clients_but_settings_do_not() {
        let mut settings = Settings::defaults(Environment::Development);
        settings.ca_bundle = Some("/etc/ca.pem".into());
        settings.proxy = Some("http://proxy:3128".into());
        let process = BTreeMap::from([
            ("TOOLYARD_VAULT_KEY".to_owned(), "secret".to_owned()),
            ("npm_config_registry".to_owned(), "https://npm.example".to_owned()),
        ]);
        let clients = client_environment(&settings, &process, Some(Path::new("/whole.pem")));
        assert_eq!(clients["npm_config_registry"], "https://npm.example");
        assert!(!clients.contains_key("TOOLYARD_VAULT_KEY"));
        for variable in ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NPM_CONFIG_CAFILE"]
        {
            assert_eq!(clients[variable], "/whole.pem", "{variable}");
        }
        assert_eq!(clients["HTTPS_PROXY"], "http://proxy:3128");
    }

    #[test]
    fn package_clients_trust_the_systems_cas_where_there_are_any_and_nobody_said_otherwise() {
        let settings = Settings::defaults(Environment::Development);
        let has_some = !rustls_native_certs::load_native_certs().certs.is_empty();
        let clients = client_environment(&settings, &BTreeMap::new(), None);
        for variable in ["UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "NODE_USE_SYSTEM_CA"] {
            assert_eq!(clients.get(variable).map(String::as_str), has_some.then_some("1"), "{variable}");
        }
        assert!(!clients.contains_key("SSL_CERT_FILE"), "servers get that too");
        let said = [("UV_NATIVE_TLS", "false"), ("NODE_USE_SYSTEM_CA", "0")];
        let said: BTreeMap<_, _> = said.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(client_environment(&settings, &said, None), said);
    }

    #[test]
    fn package_clients_and_servers_get_the_cas_of_the_bundle_besides_the_systems() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let bundle = dir.path().join("company.pem");
        let own = CertificateDer::from(vec![7; 100]);
        // With its key beside it, as some are kept; and without a line end.
        let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        std::fs::write(&bundle, format!("# Company\n{key}{}", pem(&own).trim_end())).expect("written");
        let mut settings = Settings::defaults(Environment::Development);
        assert_eq!(bundle_for_clients(&settings), None);
        settings.data_dir = dir.path().to_owned();
        settings.ca_bundle = Some(bundle);
        let whole = bundle_for_clients(&settings).expect("there is a bundle");
        assert!(whole.is_absolute() && whole.ends_with(WHOLE_BUNDLE), "{}", whole.display());
        let text = std::fs::read_to_string(&whole).expect("written");
        assert!(!text.contains("PRIVATE KEY"));
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let read = read.expect("PEM");
        assert_eq!(read.last(), Some(&own));
        assert_eq!(read.len(), rustls_native_certs::load_native_certs().certs.len() + 1);
        assert_eq!(std::fs::metadata(&whole).expect("it is there").permissions().mode() & 0o777, 0o644);
        // Where there is no room for it, the bundle alone.
        settings.data_dir = dir.path().join("none");
        assert_eq!(bundle_for_clients(&settings), settings.ca_bundle);
    }
}
