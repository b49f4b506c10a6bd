//! Outgoing connections: one HTTP client that knows the CA bundle and the proxy, and the same settings as
//! environment variables for package clients and servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tower::Service;

use crate::config::Settings;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The client every outgoing request of the control plane is made with.
///
/// # Errors
/// When the CA bundle cannot be read or the proxy is no URL; the text names the setting.
pub(crate) fn http_client(settings: &Settings) -> Result<reqwest::Client, String> {
    http_client_builder(settings)?.build().map_err(|error| format!("cannot set up outgoing connections: {error}"))
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
        let pem = std::fs::read(path).map_err(|error| format!("setting `ca_bundle`: {error}"))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|_| "setting `ca_bundle`: not a PEM file".to_owned())?;
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
/// long; the gateway has deadlines of its own), with the same CA bundle and proxy.
///
/// # Errors
/// As [`http_client`].
pub(crate) fn upstream_client(settings: &Settings) -> Result<toolyard_mcp::http::Client, String> {
    let tls = tls_config(settings)?;
    let proxy = match &settings.proxy {
        Some(url) => Some(url.parse::<Uri>().map_err(|_| "setting `proxy`: not a URL".to_owned())?),
        None => None,
    };
    let exceptions = settings.no_proxy.clone().unwrap_or_default();
    let intercept = Arc::new(Matcher::builder().all(settings.proxy.clone().unwrap_or_default()).no(exceptions).build());
    let mut direct = HttpConnector::new();
    direct.enforce_http(false);
    direct.set_nodelay(true);
    direct.set_connect_timeout(Some(Duration::from_secs(10)));
    let route = tower::service_fn(move |target: Uri| {
        let mut direct = direct.clone();
        let through = proxy.clone().filter(|_| intercept.intercept(&target).is_some());
        async move {
            match through {
                Some(proxy) => Tunnel::new(proxy, direct).call(target).await.map_err(BoxError::from),
                None => direct.call(target).await.map_err(BoxError::from),
            }
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

/// The environment of package clients (npm, pip, uv): Toolyard's own, so that people's registry, proxy and
/// cache settings hold, without Toolyard's settings, and with the CA bundle and proxy setting on top.
pub(crate) fn client_environment(settings: &Settings, process: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> = process
        .iter()
        .filter(|(name, _)| !name.starts_with("TOOLYARD_"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut set = |names: &[&str], value: &str| {
        environment.extend(names.iter().map(|name| ((*name).to_owned(), value.to_owned())));
    };
    if let Some(path) = &settings.ca_bundle {
        let path = path.display().to_string();
        set(&["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NPM_CONFIG_CAFILE"], &path);
    }
    if let Some(proxy) = &settings.proxy {
        set(&["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"], proxy);
    }
    if let Some(hosts) = &settings.no_proxy {
        set(&["NO_PROXY", "no_proxy"], hosts);
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[test]
    fn the_ca_bundle_and_proxy_reach_package_clients_but_settings_do_not() {
        let mut settings = Settings::defaults(Environment::Development);
        settings.ca_bundle = Some("/etc/ca.pem".into());
        settings.proxy = Some("http://proxy:3128".into());
        let process = BTreeMap::from([
            ("TOOLYARD_VAULT_KEY".to_owned(), "secret".to_owned()),
            ("npm_config_registry".to_owned(), "https://npm.example".to_owned()),
        ]);
        let clients = client_environment(&settings, &process);
        assert_eq!(clients["npm_config_registry"], "https://npm.example");
        assert!(!clients.contains_key("TOOLYARD_VAULT_KEY"));
        assert_eq!(clients["NODE_EXTRA_CA_CERTS"], "/etc/ca.pem");
        assert_eq!(clients["HTTPS_PROXY"], "http://proxy:3128");
    }
}
