//! What the settings are, as data: for the loader, `.env.example`, the reference page and the JSON schema.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Environment, Settings};

/// One setting, as documented.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Its name.
    pub name: String,
    /// `string`, `integer`, `boolean` or `array`.
    pub kind: String,
    /// It may be absent; an empty text says so.
    pub optional: bool,
    /// What it does.
    pub help: String,
    /// Its value is a secret.
    pub secret: bool,
    /// Smallest and largest value of a number.
    pub range: (Option<i64>, Option<i64>),
    /// The only values allowed.
    pub choices: Vec<String>,
}

impl Field {
    /// The environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("TOOLYARD_{}", self.name.to_ascii_uppercase())
    }
}

/// The JSON schema of `toolyard.toml`.
pub(crate) fn schema() -> Value {
    schemars::schema_for!(Settings).to_value()
}

/// Every setting, in the order of the struct.
pub(crate) fn fields() -> Vec<Field> {
    let schema = schema();
    let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
    properties.iter().map(|(name, property)| field(name, property, &schema)).collect()
}

fn field(name: &str, property: &Value, schema: &Value) -> Field {
    let shape = property["$ref"]
        .as_str()
        .and_then(|reference| schema.pointer(reference.trim_start_matches('#')))
        .unwrap_or(property);
    let kind = match &shape["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str).unwrap_or("string"),
        kind => kind.as_str().unwrap_or("string"),
    };
    let choices = shape["oneOf"].as_array().into_iter().flatten();
    Field {
        name: name.to_owned(),
        kind: kind.to_owned(),
        optional: shape["type"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "null")),
        help: property["description"].as_str().unwrap_or_default().replace('\n', " "),
        secret: property["x-secret"] == Value::Bool(true),
        range: (property["minimum"].as_i64(), property["maximum"].as_i64()),
        choices: choices.filter_map(|choice| choice["const"].as_str().map(String::from)).collect(),
    }
}

/// One line for every number outside its range, by setting.
pub(crate) fn out_of_range(values: &Map<String, Value>) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    for field in fields() {
        let Some(number) = values.get(&field.name).and_then(Value::as_i64) else { continue };
        let (min, max) = field.range;
        if min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max) {
            let wanted = match (min, max) {
                (Some(min), Some(max)) => format!("between {min} and {max}"),
                (Some(min), None) => format!("at least {min}"),
                (None, max) => format!("at most {}", max.unwrap_or(i64::MAX)),
            };
            problems.push((field.name.clone(), format!("setting `{}` must be {wanted}", field.name)));
        }
    }
    problems
}

/// What a value of the setting must be, for whoever gave another one.
pub(crate) fn wanted(field: &Field) -> String {
    if !field.choices.is_empty() {
        return format!("one of {}", field.choices.iter().map(|choice| code(choice)).collect::<Vec<_>>().join(", "));
    }
    let kind = match field.kind.as_str() {
        "integer" => "a whole number",
        "boolean" => return "true or false".to_owned(),
        "array" => "a list of texts",
        _ => "text",
    };
    let defaults = [Environment::Development, Environment::Production].map(|env| default_of(field, env));
    let example = match defaults.into_iter().find(|default| !default.is_empty()) {
        // All of them are addresses of the same form.
        None if field.name.ends_with("listen") => Some("127.0.0.1:8080".to_owned()),
        example => example,
    };
    example.map_or(kind.to_owned(), |example| format!("{kind} such as {}", code(&example)))
}

fn default_of(field: &Field, env: Environment) -> String {
    let defaults = serde_json::to_value(Settings::defaults(env)).unwrap_or_default();
    match &defaults[&field.name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The text of `.env.example`.
pub(crate) fn env_example() -> String {
    let mut out = String::from(
        "# Every setting of Toolyard with its default in development. Generated: `cargo xtask generate`.\n\
         # Copy to `.env` (read in development only), or set the variables you need in the environment.\n",
    );
    for field in fields() {
        let secret = if field.secret { " Secret." } else { "" };
        let _ = write!(
            out,
            "\n# {}{secret}\n#{}={}\n",
            field.help,
            field.variable(),
            default_of(&field, Environment::Development)
        );
    }
    out
}

/// The text of `docs/reference/configuration.md`.
pub(crate) fn reference() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Generated from the settings struct: `cargo xtask generate`. Do not edit. -->\n\n\
         Defaults < `toolyard.toml` < environment (`.env` below the real one, in development only) < flags. \
         A setting `data_dir` is `data_dir = ...` in `toolyard.toml`, `TOOLYARD_DATA_DIR` in the environment and \
         `--set data_dir=...` on the command line. `TOOLYARD_ENV` chooses the environment; any other value than \
         `development`, `staging`, `production` is refused. `toolyard config show` prints every value with where \
         it came from; `toolyard config check` tells what is wrong (exit code 78).\n\n\
         | setting | type | default | in production | what it does |\n| --- | --- | --- | --- | --- |\n",
    );
    for field in fields() {
        let dev = default_of(&field, Environment::Development);
        let production = default_of(&field, Environment::Production);
        let production = if production == dev { String::new() } else { code(&production) };
        let kind = if field.choices.is_empty() { field.kind.clone() } else { field.choices.join(", ") };
        let secret = if field.secret { " **Secret.**" } else { "" };
        let _ = writeln!(out, "| `{}` | {kind} | {} | {production} | {}{secret} |", field.name, code(&dev), field.help);
    }
    out.push_str(
        "\nThe command-line client reads `TOOLYARD_URL`, `TOOLYARD_API_KEY`, `TOOLYARD_OUTPUT` and \
         `TOOLYARD_CA_FILE`; they are no settings of the server. An unknown `TOOLYARD_` variable is warned about.\n",
    );
    out
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_help_text_and_secrets_are_marked() {
        let fields = fields();
        assert!(fields.iter().all(|field| field.help.ends_with('.')), "{fields:?}");
        let secret: Vec<_> = fields.iter().filter(|f| f.secret).map(|f| f.name.as_str()).collect();
        assert_eq!(secret, ["database_url", "vault_key", "bootstrap_admin_password", "bootstrap_api_key"]);
    }
}
