//! The web console, as files in the program.
//!
//! `build.rs` puts what `npm run build` made in `console/dist` into a table, with the brotli and gzip forms that
//! the console's build made at its highest quality: nothing is compressed, copied or read from disk to answer.
//!
//! - A file below `assets/` has its digest in its name and never changes; everything else is asked for again
//!   each time, which costs a 304.
//! - A page the browser navigates to, at a path no API owns, is `index.html`: the console's router shows it, or
//!   its own "not found". Everything else stays the API's answer, as if there were no console.
//! - Files below `assets/admin/` are sent only to those who may do what these pages are for. The page itself
//!   holds no secret; the point is that code which somebody cannot use does not reach them.
//! - The pages load nothing from elsewhere and run nothing inline: see [`POLICY`].

mod negotiate;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use toolyard_control::Control;
use toolyard_types::access::Action;

use negotiate::Encoding;

/// What `npm run build` made, or nothing.
static EMBEDDED: &[Asset] = include!(concat!(env!("OUT_DIR"), "/console.rs"));

/// The content security policy of the console's pages, and of its service worker.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                      connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types toolyard";

/// What comes with every file of the console.
static HEADERS: [(HeaderName, &str); 2] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What comes, too, with files that a browser may open as a page or run as a service worker: all but the
/// hashed ones, of which a page loads many; there it would only weigh.
static PAGE_HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_FRAME_OPTIONS, "DENY"),
    // `no-referrer` would take the origin from some of the console's own requests.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), \
         microphone=(), midi=(), payment=(), screen-wake-lock=(), usb=(), xr-spatial-tracking=()",
    ),
];

/// A file with its digest in its name.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// A file that may change with the next release.
const REVALIDATED: &str = "no-cache";
/// A file that not everybody gets: asked for again each time, so that a lost role counts.
const GUARDED: &str = "private, no-cache";

/// First parts of paths that are never a page: an unknown path below them is the API's to answer.
const NOT_PAGES: &[&str] =
    &["api", "mcp", "v0.1", "dtma", "internal", "assets", ".well-known", "healthz", "readyz", "metrics"];

/// What the files of an administration area are for. Those of no area are shared by several, and go to whoever
/// may use one of them. Part 2 of 2: part 1 is in `console/vite.config.ts`, which names the areas.
const ADMINISTRATION: &[(&str, Action)] = &[
    ("assets/admin/members/", Action::MemberRead),
    ("assets/admin/keys/", Action::KeyRead),
    ("assets/admin/audit/", Action::AuditRead),
    ("assets/admin/flags/", Action::FlagManage),
    ("assets/admin/sources/", Action::CatalogManage),
    ("assets/admin/organization/", Action::OrganizationManage),
    ("assets/admin/", Action::KeyRead),
];

/// A file of the console.
#[derive(Debug)]
struct Asset {
    /// Below the root, without a leading `/`.
    path: &'static str,
    content_type: &'static str,
    /// Of the file as it is.
    digest: &'static str,
    plain: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

impl Asset {
    fn cache_control(&self) -> &'static str {
        if self.action().is_some() {
            GUARDED
        } else if self.is_hashed() {
            IMMUTABLE
        } else {
            REVALIDATED
        }
    }

    /// Whether its name holds a digest of what is in it.
    fn is_hashed(&self) -> bool {
        self.path.starts_with("assets/")
    }

    /// What one must be allowed to get it.
    fn action(&self) -> Option<Action> {
        ADMINISTRATION.iter().find(|(below, _)| self.path.starts_with(below)).map(|(_, action)| *action)
    }

    /// Its bytes in this form, and the version of exactly these.
    fn form(&self, encoding: Encoding) -> (&'static [u8], String) {
        match (encoding, self.brotli, self.gzip) {
            (Encoding::Brotli, Some(brotli), _) => (brotli, format!("\"{}-br\"", self.digest)),
            (Encoding::Gzip, _, Some(gzip)) => (gzip, format!("\"{}-gz\"", self.digest)),
            _ => (self.plain, format!("\"{}\"", self.digest)),
        }
    }
}

/// The console of this program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Console {
    files: &'static [Asset],
    /// What `/` says when there are no files.
    absent: &'static str,
}

impl Console {
    /// The embedded one; none when it is switched off.
    pub(crate) fn embedded(switched_on: bool) -> Self {
        if switched_on {
            Self { files: EMBEDDED, absent: NOT_BUILT }
        } else {
            Self { files: &[], absent: SWITCHED_OFF }
        }
    }

    /// Whether there is one to show.
    pub(crate) fn is_there(self) -> bool {
        !self.files.is_empty()
    }

    /// The public API with the console in front of it.
    pub(crate) fn before(self, control: &Control) -> Router {
        control.router().layer(from_fn_with_state((self, control.clone()), answer))
    }

    fn file(self, path: &str) -> Option<&'static Asset> {
        let at = self.files.binary_search_by(|asset| asset.path.cmp(path)).ok()?;
        self.files.get(at)
    }

    /// The file that answers this request, when it is the console's to answer.
    fn choose(self, method: &Method, path: &str, headers: &HeaderMap) -> Option<&'static Asset> {
        if *method != Method::GET && *method != Method::HEAD {
            return None;
        }
        let path = path.strip_prefix('/')?;
        let first = path.split('/').next().unwrap_or_default();
        let page = path.is_empty() || (!NOT_PAGES.contains(&first) && negotiate::wants_page(headers));
        self.file(path).or_else(|| if page { self.file("index.html") } else { None })
    }
}

async fn answer(State((console, control)): State<(Console, Control)>, request: Request, next: Next) -> Response {
    let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
    if let Some(file) = console.choose(method, path, headers) {
        let allowed = match file.action() {
            Some(action) => control.may(headers, action).await,
            None => Ok(()),
        };
        return match allowed {
            Ok(()) => send(file, method, headers),
            Err(error) => {
                if error.code().status() >= 500 {
                    tracing::error!(error = &error as &dyn std::error::Error, "a file of the console was not sent");
                }
                error.into_response()
            }
        };
    }
    if path == "/" && !console.is_there() && (*method == Method::GET || *method == Method::HEAD) {
        return absent(console.absent);
    }
    next.run(request).await
}

fn send(file: &'static Asset, method: &Method, asked: &HeaderMap) -> Response {
    let encoding = negotiate::encoding(asked, file.brotli.is_some(), file.gzip.is_some());
    let (bytes, etag) = file.form(encoding);
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let page: &[_] = if file.is_hashed() { &[] } else { &PAGE_HEADERS };
    HEADERS.iter().chain(page).for_each(|(name, value)| {
        headers.insert(name, HeaderValue::from_static(value));
    });
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(file.cache_control()));
    headers.insert(header::ETAG, HeaderValue::from_str(&etag).expect("a digest in quotes is a header value"));
    if file.brotli.is_some() || file.gzip.is_some() {
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if negotiate::has(asked, &etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    match encoding {
        Encoding::Brotli => headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br")),
        Encoding::Gzip => headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
        Encoding::Identity => None,
    };
    if *method == Method::GET {
        *response.body_mut() = Body::from(Bytes::from_static(bytes));
    }
    response
}

fn absent(page: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, REVALIDATED),
    ];
    (headers, page).into_response()
}

/// What a program without a console says at `/`.
const NOT_BUILT: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width\">\n<title>Toolyard without its console</title>\n\
<main>\n<h1>Toolyard is running, without its console</h1>\n\
<p>This program was compiled before the web console was built, so there are no pages in it.</p>\n\
<p>In the checkout, <code>make build</code> builds both (the console needs Node.js 20.19 or newer); \
<code>make console</code> builds the console alone, and the next <code>cargo build</code> takes it in.</p>\n\
<p>Everything else works: <code>toolyard --help</code>, and the API as described at \
<a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a>.</p>\n</main>\n</html>\n";

/// What a program says at `/` whose console is switched off.
const SWITCHED_OFF: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width\">\n<title>Toolyard without its console</title>\n\
<main>\n<h1>Toolyard is running, without its console</h1>\n\
<p>The web console is switched off here, by the setting <code>console</code>.</p>\n\
<p>Everything else works: <code>toolyard --help</code>, and the API as described at \
<a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a>.</p>\n</main>\n</html>\n";

#[cfg(test)]
mod tests {
    use super::*;

    static FILES: &[Asset] = &[
        asset("assets/admin/audit/page-1a2b.js"),
        asset("assets/admin/shared-1a2b.js"),
        asset("assets/index-1a2b.js"),
        asset("index.html"),
        asset("manifest.webmanifest"),
    ];

    const fn asset(path: &'static str) -> Asset {
        Asset {
            path,
            content_type: "text/plain",
            digest: "d1",
            plain: b"plain text",
            brotli: Some(b"brotli"),
            gzip: Some(b"gzipped"),
        }
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn chosen(method: &Method, path: &str, accept: &'static str) -> Option<&'static str> {
        let console = Console { files: FILES, absent: NOT_BUILT };
        console.choose(method, path, &headers(&[(header::ACCEPT, accept)])).map(|asset| asset.path)
    }

    #[test]
    fn the_embedded_files_are_sorted_so_that_each_is_found() {
        assert!(EMBEDDED.is_sorted_by_key(|asset| asset.path));
        assert!(FILES.iter().all(|asset| chosen(&Method::GET, &format!("/{}", asset.path), "*/*") == Some(asset.path)));
    }

    #[test]
    fn a_navigation_gets_the_page_and_an_api_path_never_does() {
        const PAGE: Option<&str> = Some("index.html");
        assert_eq!(chosen(&Method::GET, "/", "*/*"), PAGE);
        assert_eq!(chosen(&Method::GET, "/servers/time/logs", "text/html,*/*;q=0.8"), PAGE);
        assert_eq!(chosen(&Method::HEAD, "/no-such-page", "text/html"), PAGE);
        assert_eq!(chosen(&Method::GET, "/servers", "application/json"), None);
        assert_eq!(chosen(&Method::POST, "/servers", "text/html"), None);
        for path in
            ["/api", "/api/v1/nothing", "/mcp/x", "/v0.1/x", "/dtma/v1/sync", "/assets/gone-3c4d.js", "/metrics"]
        {
            assert_eq!(chosen(&Method::GET, path, "text/html"), None, "{path}");
        }
        assert_eq!(chosen(&Method::GET, "/api-keys", "text/html"), PAGE, "only a whole first part is reserved");
    }

    #[test]
    fn a_file_is_kept_as_long_as_its_name_promises() {
        let rule = |path: &str| Console { files: FILES, absent: "" }.file(path).map(Asset::cache_control);
        assert_eq!(rule("assets/index-1a2b.js"), Some(IMMUTABLE));
        assert_eq!(rule("index.html"), Some(REVALIDATED));
        assert_eq!(rule("manifest.webmanifest"), Some(REVALIDATED));
        assert_eq!(rule("assets/admin/shared-1a2b.js"), Some(GUARDED));
        assert_eq!(rule("assets/admin/audit/page-1a2b.js"), Some(GUARDED));
    }

    #[test]
    fn each_form_has_a_version_of_its_own_and_is_not_sent_twice() {
        let file = &FILES[2];
        let asked = headers(&[(header::ACCEPT_ENCODING, "br"), (header::IF_NONE_MATCH, "\"d1-br\"")]);
        let response = send(file, &Method::GET, &asked);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()[header::ETAG], "\"d1-br\"");
        assert_eq!(response.headers()[header::CACHE_CONTROL], IMMUTABLE);
        let asked = headers(&[(header::ACCEPT_ENCODING, "gzip"), (header::IF_NONE_MATCH, "\"d1-br\"")]);
        let response = send(file, &Method::HEAD, &asked);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "7");
        assert_eq!(response.headers()[header::VARY], "accept-encoding");
    }

    #[test]
    fn a_program_without_a_console_says_what_is_missing_and_how_to_get_it() {
        assert!(NOT_BUILT.contains("make build") && NOT_BUILT.contains("Node.js"));
        assert!(SWITCHED_OFF.contains("setting <code>console</code>"));
        let response = absent(NOT_BUILT);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(!Console::embedded(false).is_there());
    }
}
