//! What the API says about a request, in the words of the command line.

use toolyard_types::{Code, FieldError};

/// Fields of the API by the options that set them; what stands behind a field's dot is the option's name.
const OPTIONS: &[(&str, &str)] = &[
    ("inputs", "--input"),
    ("environment", "--set-env"),
    ("unset_environment", "--unset-env"),
    ("credentials", "--credential"),
    ("arguments", "--arg"),
    ("limits.memory_bytes", "--memory"),
    ("limits.processes", "--processes"),
    ("limits.disk_bytes", "--disk"),
    ("privileges", "--privilege"),
    ("paths", "--path"),
    ("volumes", "--volume"),
    ("egress", "--egress"),
    ("strategy", "--strategy"),
    ("start_timeout_ms", "--start-timeout"),
    ("call_timeout_ms", "--call-timeout"),
    ("rollout_timeout_ms", "--rollout-timeout"),
    ("replicas", "--replicas"),
    ("observe_seconds", "--observe"),
    ("restart_at", "--restart-at"),
    ("update_window", "--update-window"),
    ("instancing.mode", "--instancing"),
    ("instancing.max_copies", "--max-copies"),
    ("instancing.idle_stop_ms", "--idle-stop"),
    ("instancing.warm", "--warm"),
    ("canary.weight", "--canary"),
    ("canary.clients", "--canary-client"),
    ("canary.promote_after_seconds", "--promote-after"),
    ("toolbox_labels", "--toolbox-labels"),
    ("members", "--servers"),
    ("password", "--password"),
    ("expires_in_days", "--days"),
    ("overlap_seconds", "--overlap"),
];

/// A field that is wrong, by its option.
pub(crate) fn error(error: &FieldError) -> String {
    let message = error.message.replace("Use `environment` for", "Use `--set-env` for");
    let field = &error.field;
    let found = OPTIONS.iter().find_map(|(name, option)| Some((*option, field.strip_prefix(name)?)));
    match found.map(|(option, rest)| (option, rest.strip_prefix('.').unwrap_or(rest))) {
        // The message is about the API's unit.
        Some((option, "")) if field.ends_with("_ms") => format!("{option} (in milliseconds): {message}"),
        Some((option, "")) => format!("{option}: {message}"),
        Some((option @ ("--input" | "--set-env" | "--credential"), name)) => format!("{option} {name}: {message}"),
        // A place in a list.
        Some((option, place)) if field.contains('.') && !place.contains(".overrides") => format!("{option}: {message}"),
        _ => format!("{field}: {message}"),
    }
}

/// What one can do about an answer.
pub(crate) fn help(code: Code) -> String {
    let help = match code {
        Code::Unauthenticated => "give an API key with --api-key or TOOLYARD_API_KEY, or `toolyard login URL` once",
        Code::CredentialMissing => {
            "pass it with `--input NAME=@FILE`, or bind a credential with `--credential NAME=CREDENTIAL`"
        }
        Code::UpstreamTimeout => {
            "try again, or let its calls take longer with `servers update NAME --call-timeout 10m`"
        }
        code => code.help(),
    };
    help.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_by_the_options_that_set_them() {
        for (field, told) in [
            ("inputs.API_KEY", "--input API_KEY: x"),
            ("environment.LD_PRELOAD", "--set-env LD_PRELOAD: x"),
            ("limits.memory_bytes", "--memory: x"),
            ("arguments.0", "--arg: x"),
            ("egress.hosts", "--egress: x"),
            ("start_timeout_ms", "--start-timeout (in milliseconds): x"),
            ("call_timeout_ms", "--call-timeout (in milliseconds): x"),
            ("members", "--servers: x"),
            ("members.0.server", "--servers: x"),
            ("description", "description: x"),
            ("password_hint", "password_hint: x"),
        ] {
            assert_eq!(error(&FieldError { field: field.into(), message: "x".into() }), told);
        }
    }
}
