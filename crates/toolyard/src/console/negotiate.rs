//! What a browser asked for: an encoding, and whether it has the file already (RFC 9110, sections 12.5.3 and 13.1.2).

use http::{HeaderMap, HeaderName, header};

/// How a file is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Brotli.
    Brotli,
    /// Gzip.
    Gzip,
    /// As it is.
    Identity,
}

/// The best of the forms that exist for what the request accepts. The file as it is when nothing fits: an
/// answer helps more than a 406.
pub(super) fn encoding(headers: &HeaderMap, brotli: bool, gzip: bool) -> Encoding {
    let accepted = list(headers, &header::ACCEPT_ENCODING);
    let weight = |names: &[&str]| {
        let named = accepted.iter().find(|(name, _)| names.iter().any(|known| name.eq_ignore_ascii_case(known)));
        named.or_else(|| accepted.iter().find(|(name, _)| *name == "*")).map(|(_, weight)| *weight)
    };
    // Identity is acceptable unless it is refused; named or not, it is the last choice among equals.
    let mut best = (Encoding::Identity, accepted.iter().find(|(name, _)| *name == "identity").map_or(1, |(_, w)| *w));
    for (encoding, there, names) in
        [(Encoding::Gzip, gzip, &["gzip", "x-gzip"][..]), (Encoding::Brotli, brotli, &["br"][..])]
    {
        let weight = weight(names).unwrap_or(0);
        if there && weight > 0 && weight >= best.1 {
            best = (encoding, weight);
        }
    }
    best.0
}

/// Whether the request says that it has this version already.
pub(super) fn has(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim())
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Whether the request is for a page: a browser's address bar or link, which names HTML itself.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    list(headers, &header::ACCEPT).iter().any(|(kind, weight)| kind.eq_ignore_ascii_case("text/html") && *weight > 0)
}

/// The items of a list with weights, in thousandths; an item whose weight cannot be read counts as refused.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<(&'a str, u16)> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(item).filter(|(name, _)| !name.is_empty()).collect()
}

fn item(text: &str) -> (&str, u16) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, weight.map_or(1000, thousandths))
}

fn thousandths(weight: &str) -> u16 {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    match whole {
        "1" if digits => 1000,
        "0" if digits => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str) -> Encoding {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, accept.parse().expect("a value"));
        encoding(&headers, true, true)
    }

    #[test]
    fn the_smallest_accepted_form_is_chosen_and_weights_decide() {
        assert_eq!(chosen("gzip, deflate, br, zstd"), Encoding::Brotli);
        assert_eq!(chosen("gzip, deflate"), Encoding::Gzip);
        assert_eq!(chosen("br;q=0.5, gzip;q=0.8"), Encoding::Gzip);
        assert_eq!(chosen("br;q=0, gzip;q=0.001"), Encoding::Gzip);
        assert_eq!(chosen("BR"), Encoding::Brotli);
        assert_eq!(chosen("*"), Encoding::Brotli);
        assert_eq!(chosen("*;q=0.5, br;q=0"), Encoding::Gzip);
        assert_eq!(chosen("identity, br;q=0.5"), Encoding::Identity);
        assert_eq!(chosen("deflate"), Encoding::Identity);
        assert_eq!(chosen("br;q=nonsense"), Encoding::Identity);
        assert_eq!(chosen(""), Encoding::Identity);
        assert_eq!(encoding(&HeaderMap::new(), true, true), Encoding::Identity);
    }

    #[test]
    fn only_a_form_that_exists_is_chosen() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, "br, gzip".parse().expect("a value"));
        assert_eq!(encoding(&headers, false, true), Encoding::Gzip);
        assert_eq!(encoding(&headers, false, false), Encoding::Identity);
    }

    #[test]
    fn a_version_is_recognised_in_a_list_and_from_a_proxy_that_weakened_it() {
        let has = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, http::HeaderValue::from_static(value));
            super::has(&headers, "\"abc\"")
        };
        assert!(has("\"abc\"") && has("\"x\", \"abc\"") && has("W/\"abc\"") && has("*"));
        assert!(!has("\"abcd\"") && !has("abc") && !has(""));
    }

    #[test]
    fn a_page_is_asked_for_by_name() {
        let wants = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, http::HeaderValue::from_static(value));
            wants_page(&headers)
        };
        assert!(wants("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!wants("*/*") && !wants("application/json") && !wants("text/html;q=0"));
    }
}
