//! What a PyPI package wants beside itself: requirements of a package index, and nothing that names another place.

/// The most that one package may want.
pub const MOST: usize = 20;
/// The longest one, in bytes.
const LONGEST: usize = 200;
/// Longer ones first, so that none is taken for the beginning of another.
const OPERATORS: [&str; 8] = ["===", "==", "~=", "!=", "<=", ">=", "<", ">"];

/// A requirement as it is handed on: a name, extras and versions as in `httpx[http2]>=0.20,<1`. `None` for anything else: an
/// address, a path, an option or a marker.
#[must_use]
pub fn plain(text: &str) -> Option<String> {
    if text.len() > LONGEST {
        return None;
    }
    let text = text.trim_matches(' ');
    let (name, rest) = text.split_at(text.find(|c: char| !is_in_name(c)).unwrap_or(text.len()));
    if !is_name(name) {
        return None;
    }
    let mut out = name.to_owned();
    let mut rest = rest.trim_start_matches(' ');
    if let Some(behind) = rest.strip_prefix('[') {
        let (extras, behind) = behind.split_once(']')?;
        let extras: Vec<&str> = extras.split(',').map(|extra| extra.trim_matches(' ')).collect();
        if !extras.iter().all(|extra| is_name(extra)) {
            return None;
        }
        out.push_str(&format!("[{}]", extras.join(",")));
        rest = behind.trim_start_matches(' ');
    }
    if rest.is_empty() {
        return Some(out);
    }
    let versions: Option<Vec<String>> = rest.split(',').map(version).collect();
    out.push_str(&versions?.join(","));
    Some(out)
}

/// The requirements in what `uvx --with` is given, which separates them by commas, as it does versions of one.
///
/// # Errors
/// The first that is not a [`plain`] one, as it was written.
pub fn list(text: &str) -> Result<Vec<String>, String> {
    let (mut parts, mut inside) = (vec![String::new()], false);
    for (at, c) in text.char_indices() {
        inside = c == '[' || inside && c != ']';
        let rest = text.get(at + c.len_utf8()..).unwrap_or_default();
        let goes_on = rest.trim_start_matches(' ').starts_with(['=', '!', '~', '<', '>']);
        if c == ',' && !inside && !goes_on {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.into_iter().map(|part| plain(&part).ok_or(part)).collect()
}

/// An operator and a version.
fn version(text: &str) -> Option<String> {
    let text = text.trim_matches(' ');
    let (operator, version) = OPERATORS.iter().find_map(|operator| Some((operator, text.strip_prefix(operator)?)))?;
    let version = version.trim_start_matches(' ');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '!' | '*');
    let begins = version.starts_with(|c: char| c.is_ascii_alphanumeric());
    (begins && version.chars().all(plain)).then(|| format!("{operator}{version}"))
}

/// A name of a project or an extra (PEP 508).
fn is_name(name: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    ends(name.chars().next()) && ends(name.chars().last()) && name.chars().all(is_in_name)
}

fn is_in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_its_extras_and_versions_are_taken_and_nothing_else() {
        for (given, taken) in [
            ("mcp<2", "mcp<2"),
            (" httpx [http2, brotli] >= 0.20 , < 1 ", "httpx[http2,brotli]>=0.20,<1"),
            ("a", "a"),
            ("zope.interface~=5.0", "zope.interface~=5.0"),
            ("six==1.*", "six==1.*"),
            ("six===1!2.0+local-1", "six===1!2.0+local-1"),
        ] {
            assert_eq!(plain(given).as_deref(), Some(taken), "{given}");
        }
        for bad in [
            "",
            " ",
            "-r x",
            "--index-url=https://x",
            "./x",
            "../x",
            "/x",
            "x/y",
            "a b",
            "a @ https://x/a.whl",
            "a@file:///x",
            "https://x/a.whl",
            "git+https://x/a",
            "a<2; python_version > '3'",
            "a<2 --hash=sha256:0",
            "a[b",
            "a[]",
            "a[./b]",
            "a<",
            "a<,1",
            "a 1",
            "a(>1)",
            "a<2\nb",
            "a\n-e .",
            "a<2\\",
            "a # b",
            "ä",
            "a<-1",
            "${A}",
        ] {
            assert_eq!(plain(bad), None, "{bad}");
        }
        assert_eq!(plain(&"a".repeat(LONGEST + 1)), None);
    }

    #[test]
    fn a_list_is_parted_where_another_requirement_begins() {
        let list = |text: &str| list(text).map(|list| list.join(" "));
        assert_eq!(list("mcp<2").as_deref(), Ok("mcp<2"));
        assert_eq!(
            list("six,idna<4, >=2 ,httpx[http2,brotli]>=0.2").as_deref(),
            Ok("six idna<4,>=2 httpx[http2,brotli]>=0.2")
        );
        assert_eq!(list("six,./x"), Err("./x".into()));
        for bad in ["", ",", "six,", "six,,idna", "a[b,c", "<2,six"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }
}
