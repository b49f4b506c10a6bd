//! MCP clients whose configuration is known: data and pure functions, for the API and the command line.
//!
//! Every client speaks Streamable HTTP to the MCP URL with the API key as bearer token; they differ in where and how that
//! is written. Formats as their makers document them in November 2026.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use toolyard_types::api::connect::{ConnectClient, ConnectFile, ConnectLink};

/// What stands for the API key.
pub const KEY_PLACEHOLDER: &str = "YOUR_API_KEY";

/// An MCP client whose configuration is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McpClient {
    /// Claude Desktop (through its bundled stdio support and `npx mcp-remote`).
    ClaudeDesktop,
    /// Claude Code.
    ClaudeCode,
    /// Cursor.
    Cursor,
    /// Visual Studio Code.
    VsCode,
    /// Windsurf.
    Windsurf,
    /// Zed.
    Zed,
    /// Codex CLI.
    Codex,
    /// Gemini CLI.
    GeminiCli,
}

impl McpClient {
    /// Every client.
    pub const ALL: &'static [Self] = &[
        Self::ClaudeDesktop,
        Self::ClaudeCode,
        Self::Cursor,
        Self::VsCode,
        Self::Windsurf,
        Self::Zed,
        Self::Codex,
        Self::GeminiCli,
    ];

    /// As the API and the command line name it.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "claude-desktop",
            Self::ClaudeCode => "claude-code",
            Self::Cursor => "cursor",
            Self::VsCode => "vs-code",
            Self::Windsurf => "windsurf",
            Self::Zed => "zed",
            Self::Codex => "codex",
            Self::GeminiCli => "gemini-cli",
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "Claude Desktop",
            Self::ClaudeCode => "Claude Code",
            Self::Cursor => "Cursor",
            Self::VsCode => "Visual Studio Code",
            Self::Windsurf => "Windsurf",
            Self::Zed => "Zed",
            Self::Codex => "Codex CLI",
            Self::GeminiCli => "Gemini CLI",
        }
    }

    /// Where it keeps its user configuration: system and path, for people.
    #[must_use]
    pub fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::ClaudeDesktop => &[
                ("macos", "~/Library/Application Support/Claude/claude_desktop_config.json"),
                ("windows", "%APPDATA%\\Claude\\claude_desktop_config.json"),
                ("linux", "~/.config/Claude/claude_desktop_config.json"),
            ],
            Self::ClaudeCode => &[("all", "~/.claude.json")],
            Self::Cursor => &[("all", "~/.cursor/mcp.json")],
            Self::VsCode => &[
                ("macos", "~/Library/Application Support/Code/User/mcp.json"),
                ("windows", "%APPDATA%\\Code\\User\\mcp.json"),
                ("linux", "~/.config/Code/User/mcp.json"),
            ],
            Self::Windsurf => &[("all", "~/.codeium/windsurf/mcp_config.json")],
            Self::Zed => &[
                ("macos", "~/.config/zed/settings.json"),
                ("linux", "~/.config/zed/settings.json"),
                ("windows", "%APPDATA%\\Zed\\settings.json"),
            ],
            Self::Codex => &[("all", "~/.codex/config.toml")],
            Self::GeminiCli => &[("all", "~/.gemini/settings.json")],
        }
    }

    /// The field of its file that holds the servers.
    #[must_use]
    pub fn section(self) -> &'static str {
        match self {
            Self::VsCode => "servers",
            Self::Zed => "context_servers",
            Self::Codex => "mcp_servers",
            _ => "mcpServers",
        }
    }

    /// How it wants a server with an address and a key written.
    #[must_use]
    pub fn entry(self, url: &str, key: &str) -> Value {
        let bearer = format!("Bearer {key}");
        let headers = json!({ "Authorization": bearer });
        match self {
            // Claude Desktop's file knows only commands. A header with a blank does not survive its
            // argument handling on every system, so the value travels in the environment.
            Self::ClaudeDesktop => {
                let mut args = vec!["-y", "mcp-remote", url, "--header", "Authorization:${TOOLYARD_AUTHORIZATION}"];
                if mcp_remote_refuses(url) {
                    args.push("--allow-http");
                }
                json!({ "command": "npx", "args": args, "env": { "TOOLYARD_AUTHORIZATION": bearer } })
            }
            Self::Cursor | Self::Zed => json!({ "url": url, "headers": headers }),
            Self::ClaudeCode | Self::VsCode => json!({ "type": "http", "url": url, "headers": headers }),
            Self::Windsurf => json!({ "serverUrl": url, "headers": headers }),
            Self::GeminiCli => json!({ "httpUrl": url, "headers": headers }),
            Self::Codex => json!({ "url": url, "http_headers": headers }),
        }
    }

    /// The part of its file that adds a server.
    #[must_use]
    pub fn snippet(self, name: &str, url: &str, key: &str) -> String {
        if self == Self::Codex {
            // A URL and a name of ours hold nothing that a TOML string would have to escape.
            return format!(
                "[mcp_servers.{name}]\nurl = \"{url}\"\nhttp_headers = {{ Authorization = \"Bearer {key}\" }}\n"
            );
        }
        pretty(&json!({ self.section(): { name: self.entry(url, key) } }))
    }

    /// One command that adds a server, when it has one.
    #[must_use]
    pub fn command(self, name: &str, url: &str, key: &str) -> Option<String> {
        let header = format!("--header \"Authorization: Bearer {key}\"");
        match self {
            Self::ClaudeCode => Some(format!("claude mcp add --transport http {name} {url} {header}")),
            Self::GeminiCli => Some(format!("gemini mcp add --transport http {header} {name} {url}")),
            Self::VsCode => Some(format!("code --add-mcp '{}'", self.named(name, url, key))),
            Self::Codex => Some(format!("codex mcp add {name} --url {url} --bearer-token-env-var TOOLYARD_API_KEY")),
            _ => None,
        }
    }

    /// A link that opens it and adds a server, when it has one.
    #[must_use]
    pub fn link(self, name: &str, url: &str, key: &str) -> Option<ConnectLink> {
        let percent = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        match self {
            Self::Cursor => {
                let payload = self.entry(url, key).to_string();
                let prefix = format!("cursor://anysphere.cursor-deeplink/mcp/install?name={}&config=", percent(name));
                let href = format!("{prefix}{}", percent(&STANDARD.encode(&payload)));
                Some(ConnectLink { href, prefix, payload, encoding: "base64".to_owned() })
            }
            Self::VsCode => {
                let (payload, prefix) = (self.named(name, url, key).to_string(), "vscode:mcp/install?".to_owned());
                let href = format!("{prefix}{}", percent(&payload));
                Some(ConnectLink { href, prefix, payload, encoding: "percent".to_owned() })
            }
            _ => None,
        }
    }

    /// The entry with its name in it.
    fn named(self, name: &str, url: &str, key: &str) -> Value {
        let mut entry = self.entry(url, key);
        if let Value::Object(fields) = &mut entry {
            fields.insert("name".to_owned(), name.into());
        }
        entry
    }
}

/// Every way to connect to a URL, the placeholder in place of the key.
#[must_use]
pub fn clients(name: &str, url: &str) -> Vec<ConnectClient> {
    let key = KEY_PLACEHOLDER;
    let known = McpClient::ALL.iter().map(|client| ConnectClient {
        id: client.id().to_owned(),
        title: client.title().to_owned(),
        files: client
            .files()
            .iter()
            .map(|(system, path)| ConnectFile { system: (*system).to_owned(), path: (*path).to_owned() })
            .collect(),
        format: if *client == McpClient::Codex { "toml" } else { "json" }.to_owned(),
        snippet: client.snippet(name, url, key),
        command: client.command(name, url, key),
        link: client.link(name, url, key),
    });
    let other = |id: &str, title: &str, format: &str, snippet: String| ConnectClient {
        id: id.to_owned(),
        title: title.to_owned(),
        files: Vec::new(),
        format: format.to_owned(),
        snippet,
        command: None,
        link: None,
    };
    let entry = json!({ "type": "http", "url": url, "headers": { "Authorization": format!("Bearer {key}") } });
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"curl","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let curl = format!(
        "curl -sS {url} \\\n  -H 'Authorization: Bearer {key}' \\\n  -H 'Content-Type: application/json' \\\n  \
         -H 'Accept: application/json, text/event-stream' \\\n  -H 'MCP-Protocol-Version: 2026-07-28' \\\n  \
         -H 'Mcp-Method: tools/list' \\\n  -d '{request}'\n"
    );
    known
        .chain([
            other("json", "Another client", "json", pretty(&json!({ "mcpServers": { name: entry } }))),
            other("curl", "curl", "shell", curl),
        ])
        .collect()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a JSON value has string keys and serialises")
}

/// `mcp-remote` takes plain HTTP only to two names of this machine, unless it is told otherwise.
fn mcp_remote_refuses(url: &str) -> bool {
    let url = reqwest::Url::parse(url).ok().filter(|url| url.scheme() == "http");
    url.is_some_and(|url| !matches!(url.host_str(), Some("localhost" | "127.0.0.1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://toolyard.example/mcp/default/toolsets/all";

    #[test]
    fn every_client_is_told_the_address_and_where_the_key_belongs() {
        for client in clients("toolyard-all", URL) {
            assert!(client.snippet.contains(URL) && client.snippet.contains(KEY_PLACEHOLDER), "{}", client.id);
        }
    }

    #[test]
    fn links_carry_the_configuration_in_the_clients_own_encoding() {
        let cursor = McpClient::Cursor.link("toolyard-all", URL, "ty_k").unwrap();
        assert!(
            cursor.href.starts_with("cursor://anysphere.cursor-deeplink/mcp/install?name=toolyard%2Dall&config=ey")
        );
        let code = McpClient::VsCode.link("toolyard-all", URL, "ty_k").unwrap();
        let encoded = code.href.strip_prefix("vscode:mcp/install?").unwrap();
        let text = percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap();
        let payload: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&payload["name"], &payload["url"]), (&json!("toolyard-all"), &json!(URL)));
    }
}
