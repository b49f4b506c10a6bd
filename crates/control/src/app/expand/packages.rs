//! What runs of an entry's package: its arguments, those of the program it names to run it, its environment, and where one
//! that speaks HTTP listens.

use std::collections::BTreeMap;

use toolyard_types::Code;
use toolyard_types::name::{is_hidden, printable};
use toolyard_types::requirement;
use toolyard_types::server_json::{self, Argument, Input};
use toolyard_types::spec::{EGRESS_PROXY_PORT, Egress, HttpEndpoint, Package, Part, Runtime, Value};

use super::{Expansion, MAX_ITEMS, given_value, push_text};
use crate::{ControlError, Result};

/// The longest path of an address.
const MAX_PATH_BYTES: usize = 2048;

impl Expansion<'_> {
    pub(super) fn package(&mut self, package: &server_json::Package) -> Result<Runtime> {
        let mut out = Package {
            identifier: package.identifier.clone(),
            version: package.version.clone().unwrap_or_default(),
            command: None,
            with: Vec::new(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            registry: self.wish.registry.map(Value::credential),
            http: None,
        };
        let mut published = Vec::new();
        if out.identifier.is_empty() || out.identifier.starts_with('-') || out.identifier.chars().any(is_hidden) {
            self.error("entry", "the entry's package has no usable identifier");
        }
        let runtime_arguments = self.arguments(&package.runtime_arguments);
        match package.registry_type.as_str() {
            "npm" => npm_runtime_arguments(&out, &runtime_arguments)?,
            "pypi" => pypi_runtime_arguments(&mut out, &runtime_arguments)?,
            _ => published = oci_runtime_arguments(&mut out, &runtime_arguments)?,
        }
        out.arguments = self.arguments(&package.package_arguments);
        out.arguments.extend(self.wish.arguments.iter().map(Value::text));
        for variable in &package.environment_variables {
            if let Some(value) = self.input(&variable.name, &variable.input, variable.input.is_required) {
                out.environment.insert(variable.name.clone(), value);
            }
        }
        for (name, given) in &self.wish.environment {
            out.environment.insert(name.clone(), given_value(given));
        }
        if package.transport.kind == "streamable-http" {
            out.http = self.endpoint(package, &out, &published);
        }
        Ok(match package.registry_type.as_str() {
            "npm" => Runtime::Npm(out),
            "pypi" => Runtime::Pypi(out),
            _ => {
                split_image(&mut out);
                Runtime::Oci(out)
            }
        })
    }

    /// Where it listens in its container, and what it wants with every request: its address holds variables of its own, or
    /// names an environment variable or an argument.
    fn endpoint(
        &mut self,
        package: &server_json::Package,
        out: &Package,
        published: &[(u16, u16)],
    ) -> Option<HttpEndpoint> {
        let transport = &package.transport;
        let headers = self.headers(&transport.headers);
        let mut variables = transport.variables.clone();
        let template = transport.url.clone().unwrap_or_default();
        for name in named_in(&template) {
            if !variables.contains_key(&name)
                && let Some(text) = self.said(package, out, &name)
            {
                variables.insert(name, Input { value: Some(text), ..Input::default() });
            }
        }
        let url = self.template(&template, &variables)?;
        let Some((mut port, path)) = endpoint_of(&url) else {
            self.error("entry", "its address is not `http://localhost:PORT/PATH`");
            return None;
        };
        // An address is what a client of `docker run -p` sees; nothing is published here.
        if let Some((_, inside)) = published.iter().find(|(outside, _)| *outside == port) {
            port = *inside;
        }
        if port == EGRESS_PROXY_PORT && matches!(self.wish.egress, Egress::Hosts { .. }) {
            self.error("egress", format!("it listens on port {EGRESS_PROXY_PORT}, which the proxy to the hosts needs"));
        }
        Some(HttpEndpoint { port, path, headers })
    }

    /// What an environment variable or an argument of that name was given.
    fn said(&mut self, package: &server_json::Package, out: &Package, name: &str) -> Option<String> {
        if let Some(value) = out.environment.get(name) {
            return value.render(|_| None);
        }
        let mut arguments = package.package_arguments.iter().chain(&package.runtime_arguments);
        let is_it = |argument: &&Argument| {
            let key = argument.key();
            key == name
                || key.trim_start_matches('-') == name.trim_start_matches('-')
                || argument.value_hint.as_deref() == Some(name)
        };
        let argument = arguments.find(is_it)?;
        self.argument_values(argument.key(), argument).into_iter().next()?.render(|_| None)
    }
}

/// The names in braces.
fn named_in(template: &str) -> Vec<String> {
    let named = template.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    named.map(|(name, _)| name.to_owned()).take(MAX_ITEMS).collect()
}

/// Port and path of an address of this host.
fn endpoint_of(url: &Value) -> Option<(u16, String)> {
    let url = reqwest::Url::parse(&url.render(|_| None)?).ok()?;
    let here = matches!(url.host_str()?, "localhost" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]");
    if url.scheme() != "http" || !here || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{}{query}", url.path());
    let port = url.port_or_known_default().filter(|port| *port > 0)?;
    (path.len() <= MAX_PATH_BYTES).then_some((port, path))
}

/// `npx` arguments: its own consent flag and a repetition of the package mean nothing here.
fn npm_runtime_arguments(package: &Package, arguments: &[Value]) -> Result<()> {
    for argument in arguments.iter().map(Value::redacted) {
        let is_package = argument == package.identifier
            || argument.strip_prefix(&package.identifier).is_some_and(|rest| rest.starts_with('@'));
        if !is_package && !matches!(argument.as_str(), "-y" | "--yes" | "-q" | "--quiet") {
            return Err(refused("npx", &argument));
        }
    }
    Ok(())
}

/// `uvx` arguments: `--from package command` names the executable, `--with` what is installed beside the package; a
/// repetition of the package means nothing.
fn pypi_runtime_arguments(package: &mut Package, arguments: &[Value]) -> Result<()> {
    let mut values = arguments.iter();
    while let Some(value) = values.next() {
        let argument = value.redacted();
        let with = match argument.as_str() {
            "--with" | "-w" => Some(values.next().cloned().unwrap_or_default()),
            _ => argument.strip_prefix("--with=").map(|_| without_beginning(value, "--with=")),
        };
        if let Some(with) = with {
            want(package, &with)?;
            continue;
        }
        let from = match argument.as_str() {
            "--from" => values.next().map(Value::redacted),
            _ => argument.strip_prefix("--from=").map(str::to_owned),
        };
        if let Some(from) = from {
            let (identifier, version) = from.split_once("==").unwrap_or((from.as_str(), package.version.as_str()));
            if identifier.contains("://") || identifier.starts_with('-') {
                return Err(refused("uvx", &format!("--from {from}")));
            }
            if identifier != package.identifier {
                package.command.get_or_insert_with(|| package.identifier.clone());
            }
            (package.identifier, package.version) = (identifier.to_owned(), version.to_owned());
        } else if argument.starts_with('-') && !matches!(argument.as_str(), "-q" | "--quiet") {
            return Err(refused("uvx", &argument));
        } else if !argument.starts_with('-')
            && !argument.starts_with(&format!("{}@", package.identifier))
            && argument != package.identifier
        {
            package.command = Some(argument);
        }
    }
    Ok(())
}

/// Adds what `--with` names.
fn want(package: &mut Package, with: &Value) -> Result<()> {
    // A secret names no package.
    let text = with.render(|_| None);
    let wanted = text.as_deref().ok_or_else(|| with.redacted()).and_then(requirement::list);
    let wanted = wanted.map_err(|part| {
        let part = printable(&part);
        let detail = format!(
            "the entry gives `uvx` the argument `--with {part}`; Toolyard takes plain requirements of a package index \
             only, such as `mcp<2`"
        );
        ControlError::problem(Code::UnsupportedByEngine, detail)
    })?;
    for requirement in wanted {
        if !package.with.contains(&requirement) {
            package.with.push(requirement);
        }
    }
    if package.with.len() > requirement::MOST {
        let detail = format!("the entry has more than {} requirements beside its package", requirement::MOST);
        return Err(ControlError::problem(Code::UnsupportedByEngine, detail));
    }
    Ok(())
}

/// What comes after the first characters of a value.
fn without_beginning(value: &Value, beginning: &str) -> Value {
    let mut parts = value.0.clone();
    if let Some(Part::Text(text)) = parts.first_mut() {
        *text = text.strip_prefix(beginning).unwrap_or_default().to_owned();
    }
    Value(parts)
}

/// `docker run` arguments: those that only make it work at a terminal mean nothing, variables are variables.
///
/// Gives the ports that would be published, outside and inside: a server that speaks HTTP is reached inside.
fn oci_runtime_arguments(package: &mut Package, arguments: &[Value]) -> Result<Vec<(u16, u16)>> {
    let mut published = Vec::new();
    let mut values = arguments.iter();
    while let Some(value) = values.next() {
        let text = value.redacted();
        match text.as_str() {
            "run" | "-i" | "--interactive" | "--rm" | "--init" => {}
            "-e" | "--env" => {
                // Without a value it is the caller's own, which is said elsewhere.
                let pair = values.next().and_then(variable_of);
                package.environment.extend(pair);
            }
            "-p" | "--publish" => published.extend(values.next().and_then(ports_of)),
            image if image == package.identifier => {}
            _ => return Err(refused("docker", &text)),
        }
    }
    Ok(published)
}

/// `OUTSIDE:INSIDE`, or `ADDRESS:OUTSIDE:INSIDE`.
fn ports_of(mapping: &Value) -> Option<(u16, u16)> {
    let text = mapping.render(|_| None)?;
    let mut parts = text.strip_suffix("/tcp").unwrap_or(&text).rsplit(':');
    let inside = parts.next()?.parse().ok()?;
    let outside = parts.next().map_or(Some(inside), |outside| outside.parse().ok())?;
    Some((outside, inside))
}

/// `NAME=value`, with the credentials that the value may hold.
fn variable_of(pair: &Value) -> Option<(String, Value)> {
    let (first, rest) = pair.0.split_first()?;
    let Part::Text(text) = first else { return None };
    let (name, begin) = text.split_once('=')?;
    let mut parts = Vec::new();
    push_text(&mut parts, begin);
    parts.extend(rest.iter().cloned());
    Some((name.to_owned(), Value(parts)))
}

fn refused(program: &str, argument: &str) -> ControlError {
    let detail = format!(
        "the entry gives `{program}` the argument `{}`, which Toolyard honours on no toolbox",
        printable(argument)
    );
    ControlError::problem(Code::UnsupportedByEngine, detail)
}

/// Splits `image:tag` and `image@digest`; a colon before the last slash is a port.
fn split_image(package: &mut Package) {
    let identifier = package.identifier.clone();
    let slash = identifier.rfind('/').map_or(0, |at| at + 1);
    let tag = || identifier.get(slash..).and_then(|last| last.rfind(':')).map(|at| slash + at);
    if let Some(at) = identifier.find('@').or_else(tag) {
        identifier.get(..at).unwrap_or_default().clone_into(&mut package.identifier);
        identifier.get(at + 1..).unwrap_or_default().clone_into(&mut package.version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> Package {
        serde_json::from_value(serde_json::json!({ "identifier": "pkg", "version": "1" })).unwrap()
    }

    fn with(arguments: &[&str]) -> Result<Vec<String>> {
        let mut out = package();
        let arguments: Vec<_> = arguments.iter().map(|argument| Value::text(*argument)).collect();
        pypi_runtime_arguments(&mut out, &arguments).map(|()| out.with)
    }

    #[test]
    fn what_uvx_is_to_install_beside_a_package_is_kept() {
        let given = ["--with", "mcp < 2", "--with=six,idna>=2,<4", "-w", "mcp<2", "pkg"];
        assert_eq!(with(&given).unwrap(), ["mcp<2", "six", "idna>=2,<4"]);
        for bad in ["./x", "git+https://example.test/x", "-r requirements.txt", "x @ https://example.test/x.whl", ""] {
            let refused = with(&["--with", bad]).unwrap_err();
            assert_eq!(refused.code(), Code::UnsupportedByEngine, "{bad}");
        }
        assert!(with(&["--with"]).is_err() && with(&["--with-editable", "."]).is_err());
        let many: Vec<String> = (0..=requirement::MOST).map(|number| format!("p{number}")).collect();
        assert!(with(&["--with", &many.join(",")]).is_err());
        let secret = [Value::text("--with"), Value::credential(toolyard_types::CredentialId::generate())];
        assert!(pypi_runtime_arguments(&mut package(), &secret).is_err());
    }
}
