//! Outgoing connections: one HTTP client that knows the CA bundle and the proxy, and the same settings as
//! environment variables for package clients and servers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Settings;

/// The client every outgoing request of ours is made with.
///
/// # Errors
/// When the CA bundle cannot be read or the proxy is no URL; the text names the setting.
pub fn http_client(settings: &Settings) -> Result<reqwest::Client, String> {
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
    builder.build().map_err(|error| format!("cannot set up outgoing connections: {error}"))
}

/// The environment of package clients (npm, pip, uv): Toolyard's own, so that people's registry, proxy and
/// cache settings hold, without Toolyard's settings, and with the CA bundle and proxy setting on top.
pub fn client_environment(settings: &Settings, process: &BTreeMap<String, String>) -> BTreeMap<String, String> {
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
