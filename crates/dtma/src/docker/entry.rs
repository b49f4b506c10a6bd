//! How a server gets its arguments and environment without its container's configuration knowing them.
//!
//! The container starts a few lines of shell, which read both from standard input and then become the server.
//! The lines come over the attached stream before the first MCP message, so they are in no file, no argument
//! and no image, and an agent that attaches again finds the server past them. A shell reads a pipe byte by byte
//! as POSIX wants, so it takes not one byte of what follows.

use zeroize::Zeroizing;

use super::Handed;

/// Reads `count` and so many `NAME=value`, then `count` and so many arguments, then becomes the last.
///
/// `%b` gives back what [`preamble`] wrote as octal numbers; the dot keeps trailing line breaks.
const SCRIPT: &str = r#"
take() { IFS= read -r line || exit 125; case $line in *\\*) line=$(printf '%b.' "$line"); line=${line%.};; esac; }
take; n=$line; while [ "$n" -gt 0 ]; do take; export "$line"; n=$((n-1)); done
take; n=$line; while [ "$n" -gt 0 ]; do take; set -- "$@" "$line"; n=$((n-1)); done
unset line n; exec "$@"
"#;

/// The exit code of [`SCRIPT`] when its input ended early.
pub(super) const INPUT_ENDED: i64 = 125;

/// The entry point that waits for a preamble.
pub(super) fn entrypoint() -> Vec<String> {
    ["/bin/sh", "-c", SCRIPT, "toolyard"].map(str::to_owned).into()
}

/// What goes to standard input first.
pub(super) fn preamble(handed: &Handed) -> Zeroizing<Vec<u8>> {
    // Sized before, so that growing leaves no copies behind.
    let texts = handed.environment.values().chain(&handed.argv).map(|text| text.expose().len() * 5 + 2);
    let names: usize = handed.environment.keys().map(|name| name.len() + 1).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(texts.sum::<usize>() + names + 64));
    let mut line = |parts: &[&str]| {
        for byte in parts.iter().flat_map(|part| part.bytes()) {
            match byte {
                b'\\' => out.extend_from_slice(b"\\0134"),
                b'\n' => out.extend_from_slice(b"\\0012"),
                byte => out.push(byte),
            }
        }
        out.push(b'\n');
    };
    line(&[&handed.environment.len().to_string()]);
    for (name, value) in &handed.environment {
        line(&[name, "=", value.expose()]);
    }
    line(&[&handed.argv.len().to_string()]);
    for argument in &handed.argv {
        line(&[argument.expose()]);
    }
    out
}

/// Whether a shell can export a variable of this name.
pub(super) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::process::{Command, Stdio};
    use toolyard_types::Secret;

    fn run(shell: &str, environment: &[(&str, &str)], argv: &[&str], rest: &str) -> String {
        let environment: BTreeMap<String, Secret> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        let handed = Handed { environment, argv: argv.iter().map(|text| Secret::new(*text)).collect() };
        let mut child = Command::new(shell)
            .args(&entrypoint()[1..])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(&preamble(&handed)).expect("written");
        stdin.write_all(rest.as_bytes()).expect("written");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{shell}: {:?}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    #[test]
    fn a_shell_hands_over_every_byte_and_nothing_of_what_follows() {
        let odd = "a b\\n\\0101 $HOME `id` \"quo'ted\" %s \\\\\n\nüber\t\n";
        for shell in ["/bin/sh", "/bin/bash"] {
            let printed = run(shell, &[("ODD", odd), ("EMPTY", "")], &["/usr/bin/printenv", "ODD"], "");
            assert_eq!(printed, format!("{odd}\n"));
            let printed = run(shell, &[], &["/usr/bin/printf", "[%s]", odd, "", "-n", "x"], "");
            assert_eq!(printed, format!("[{odd}][][-n][x]"));
            assert_eq!(run(shell, &[("A", "1")], &["/bin/cat"], "{\"id\":1}\n{\\\\}\n"), "{\"id\":1}\n{\\\\}\n");
        }
    }

    #[test]
    fn only_names_a_shell_knows_are_taken() {
        assert!(is_variable("A_1") && is_variable("_x"));
        assert!(!is_variable("") && !is_variable("1A") && !is_variable("A-B") && !is_variable("A=B"));
    }
}
