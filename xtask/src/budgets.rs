//! What each page of the console loads, over the wire, and how much it may.
//!
//! Read from what `npm run build` left in `console/dist`: Vite's manifest says which file needs which, and the
//! `.br` and `.gz` beside each file are what the program sends. Counted are JavaScript and CSS:
//!
//! - **First load**: what `index.html` names, with what that imports, and the chunks of sign-in, the frame around
//!   every page, and the overview: what somebody needs to sign in and look.
//! - **A further page**: the chunks of its route and of the routes around it, with what they import, without what
//!   the first load brought. So is everything else that is loaded on demand (`lazy` in the table).
//!
//! The budgets are the numbers of the requirements, in thousands of bytes of brotli.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::generated::root;

/// The most that the first load may send.
const FIRST_LOAD_BYTES: u64 = 150_000;
/// The most that a further page may send.
const PAGE_BYTES: u64 = 60_000;
/// Route files of the first load, below `src/routes/`, without their extension.
const FIRST_ROUTES: &[&str] = &["__root", "sign-in", "_shell", "_shell/index"];

/// How many files of the first load are named in the report.
const LARGEST_FILES: usize = 10;

const REPORT: &str = "docs/reports/bundle.md";
const TREND: &str = "## Trend";

/// Bytes of some files, over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    plain: u64,
    gzip: u64,
    brotli: u64,
}

impl std::iter::Sum for Size {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::default(), |sum, size| Self {
            plain: sum.plain + size.plain,
            gzip: sum.gzip + size.gzip,
            brotli: sum.brotli + size.brotli,
        })
    }
}

/// A line of the table.
#[derive(Debug)]
struct Row {
    what: String,
    files: Vec<(String, Size)>,
    size: Size,
    budget: u64,
}

impl Row {
    fn is_over(&self) -> bool {
        self.size.brotli > self.budget
    }
}

/// Fails when a page loads more than it may.
pub(crate) fn check() -> Result<()> {
    let rows = measure(&root().join("console/dist"))?;
    let over: Vec<String> = rows.iter().filter(|row| row.is_over()).map(line).collect();
    if !over.is_empty() {
        bail!("over budget (bytes of brotli, budget):\n{}", over.join("\n"));
    }
    let most = rows.iter().skip(1).max_by_key(|row| row.size.brotli);
    println!("budgets: {}", rows.first().map(line).unwrap_or_default());
    println!("budgets: {} further, the largest {}", rows.len() - 1, most.map(line).unwrap_or_default());
    Ok(())
}

/// Writes the report, with a new line in its trend, and fails like [`check`].
pub(crate) fn report() -> Result<()> {
    let rows = measure(&root().join("console/dist"))?;
    let path = root().join(REPORT);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, page(&rows, &before)?).with_context(|| format!("writing {REPORT}"))?;
    println!("budgets: {REPORT} written");
    check()
}

fn line(row: &Row) -> String {
    format!("{} sends {} of {}", row.what, row.size.brotli, row.budget)
}

/// The first load, then everything else, largest first.
fn measure(dist: &Path) -> Result<Vec<Row>> {
    let manifest = dist.join(".vite/manifest.json");
    let manifest = std::fs::read_to_string(&manifest)
        .with_context(|| format!("reading {}; build the console first: make console", manifest.display()))?;
    let manifest: Value = serde_json::from_str(&manifest).context("reading Vite's manifest")?;
    let bundle = Bundle { chunks: manifest.as_object().context("Vite's manifest is no object")? };
    let html = std::fs::read_to_string(dist.join("index.html")).context("reading index.html")?;

    let routes = bundle.routes();
    let mut first =
        bundle.closure(bundle.chunks.iter().filter(|(_, chunk)| chunk["isEntry"] == true).map(|(key, _)| key.as_str()));
    for name in FIRST_ROUTES {
        first.extend(bundle.closure(routes.get(*name).into_iter().flatten().copied()));
    }
    first.extend(named_in(&html));
    if !first.iter().any(|file| dist.join(format!("{file}.br")).exists()) {
        bail!("the files of console/dist are not compressed; build with `npm run build` or `make console`");
    }
    let mut further = Vec::new();
    let mut seen: BTreeSet<&str> = routes.values().flatten().copied().collect();
    for name in routes.keys().filter(|name| !FIRST_ROUTES.contains(&name.as_str())) {
        let keys = around(name, &routes).into_iter().filter_map(|name| routes.get(name)).flatten().copied();
        further.push((url(name), &bundle.closure(keys) - &first));
    }
    for (key, chunk) in bundle.chunks.iter().filter(|(_, chunk)| chunk["isDynamicEntry"] == true) {
        if seen.insert(key) {
            let name = chunk["name"].as_str().unwrap_or(key);
            further.push((format!("lazy `{name}`"), &bundle.closure([key.as_str()]) - &first));
        }
    }
    let mut rows = vec![row("first load (sign-in, frame, overview)".into(), &first, FIRST_LOAD_BYTES, dist)?];
    let mut others = Vec::new();
    for (what, files) in further {
        others.push(row(what, &files, PAGE_BYTES, dist)?);
    }
    others.sort_by(|a, b| b.size.brotli.cmp(&a.size.brotli).then_with(|| a.what.cmp(&b.what)));
    rows.append(&mut others);
    Ok(rows)
}

fn row(what: String, files: &BTreeSet<String>, budget: u64, dist: &Path) -> Result<Row> {
    let weighed = files.iter().map(|file| Ok((file.clone(), size(&dist.join(file))?)));
    let files = weighed.collect::<Result<Vec<_>>>()?;
    Ok(Row { what, size: files.iter().map(|(_, size)| *size).sum(), files, budget })
}

/// Bytes of a file in each of its forms; a form that does not exist is sent as the file is.
fn size(path: &Path) -> Result<Size> {
    let bytes = |ending: &str| std::fs::metadata(format!("{}{ending}", path.display())).map(|about| about.len());
    let plain = bytes("").with_context(|| format!("looking at {}", path.display()))?;
    Ok(Size { plain, gzip: bytes(".gz").unwrap_or(plain), brotli: bytes(".br").unwrap_or(plain) })
}

/// What Vite says about the files it made.
struct Bundle<'a> {
    chunks: &'a serde_json::Map<String, Value>,
}

impl<'a> Bundle<'a> {
    /// These chunks' files, with the styles that come with them and everything that they import.
    fn closure<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        let mut pending: Vec<String> = keys.into_iter().map(String::from).collect();
        let mut seen = BTreeSet::new();
        while let Some(key) = pending.pop() {
            let Some(chunk) = self.chunks.get(&key).filter(|_| seen.insert(key.clone())) else { continue };
            let styles = chunk["css"].as_array().into_iter().flatten();
            files.extend(styles.chain([&chunk["file"]]).filter_map(Value::as_str).map(String::from));
            pending
                .extend(chunk["imports"].as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from));
        }
        files.retain(|file| is_counted(file));
        files
    }

    /// The chunks of each route, by its file below `src/routes/` without extension. The router's plugin splits a
    /// file in parts, which it tells apart after a `?`.
    fn routes(&self) -> BTreeMap<String, Vec<&'a str>> {
        let mut routes: BTreeMap<String, Vec<&'a str>> = BTreeMap::new();
        for key in self.chunks.keys() {
            let file = key.split('?').next().unwrap_or_default();
            let Some(name) = file.strip_prefix("src/routes/").and_then(|name| name.strip_suffix(".tsx")) else {
                continue;
            };
            routes.entry(name.replace('.', "/")).or_default().push(key);
        }
        routes
    }
}

fn is_counted(file: &str) -> bool {
    file.ends_with(".js") || file.ends_with(".css")
}

/// Scripts and styles that the page names itself, beside the bundle's.
fn named_in(html: &str) -> impl Iterator<Item = String> {
    html.split(['"', '\'']).filter(|text| is_counted(text)).filter_map(|text| text.strip_prefix('/')).map(String::from)
}

/// The route itself and the routes that it is shown in: `_shell/servers/$name` for `_shell/servers/$name/logs`.
fn around<'a>(name: &'a str, routes: &'a BTreeMap<String, Vec<&str>>) -> Vec<&'a str> {
    let name_of_layout = |other: &'a String| other.strip_suffix("/route").unwrap_or(other);
    let is_around = |other: &&'a String| {
        name == other.as_str() || name.strip_prefix(name_of_layout(other)).is_some_and(|rest| rest.starts_with('/'))
    };
    routes.keys().filter(is_around).map(String::as_str).collect()
}

/// The address of a route's page.
fn url(name: &str) -> String {
    let parts = name.split('/').filter(|part| !part.starts_with('_') && !matches!(*part, "index" | "route"));
    let path = parts.fold(String::new(), |path, part| path + "/" + part);
    format!("`{}`", if path.is_empty() { "/" } else { &path })
}

fn page(rows: &[Row], before: &str) -> Result<String> {
    let mut out = String::from(
        "# What the console loads\n\n\
         <!-- Generated by `make bundle-report`; the lines of the trend are kept. Do not edit. -->\n\n\
         JavaScript and CSS over the wire, in bytes. The program sends the brotli form to every browser that takes \
         it. A further page counts what it loads beyond the first load, with the pages around it; `lazy` is loaded \
         when it is used. `cargo xtask budgets` fails when one is over its budget.\n\n\
         | page | files | plain | gzip | brotli | budget | used |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for Row { what, files, size, budget } in rows {
        let used = size.brotli * 100 / budget;
        let Size { plain, gzip, brotli } = size;
        let files = files.len();
        writeln!(out, "| {what} | {files} | {plain} | {gzip} | {brotli} | {budget} | {used} % |")?;
    }
    let first = rows.first().context("there is no first load")?;
    writeln!(
        out,
        "\n## The first load's largest files\n\n| file | plain | gzip | brotli |\n| --- | --- | --- | --- |"
    )?;
    let mut files: Vec<_> = first.files.iter().collect();
    files.sort_by_key(|(_, size)| std::cmp::Reverse(size.brotli));
    for (file, Size { plain, gzip, brotli }) in files.iter().take(LARGEST_FILES) {
        writeln!(out, "| `{}` | {plain} | {gzip} | {brotli} |", without_digest(file))?;
    }
    let largest = rows.iter().skip(1).map(|row| row.size.brotli).max().unwrap_or_default();
    let commit = git(&["log", "-1", "--format=%cs | %h"])?;
    let version = env!("CARGO_PKG_VERSION");
    let new = format!("| {commit} | {version} | {} | {largest} | {} |", first.size.brotli, rows.len());
    writeln!(
        out,
        "\n{TREND}\n\n| commit date | commit | version | first load | largest further page | pages |\n\
         | --- | --- | --- | --- | --- | --- |"
    )?;
    for line in earlier(before, &commit) {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{new}")?;
    Ok(out)
}

/// A file's name as people know it, so that the report changes only with sizes: `index.js` of
/// `assets/index-BHiL-cwH.js`. The digest has 8 characters.
fn without_digest(file: &str) -> String {
    let name = file.strip_prefix("assets/").unwrap_or(file);
    let Some((stem, extension)) = name.rsplit_once('.') else { return name.to_owned() };
    match stem.len().checked_sub(9).and_then(|end| stem.split_at_checked(end)) {
        Some((stem, digest)) if digest.starts_with('-') && name != file => format!("{stem}.{extension}"),
        _ => name.to_owned(),
    }
}

/// The trend's lines so far, but the one of this commit.
fn earlier<'a>(before: &'a str, commit: &str) -> impl Iterator<Item = &'a str> {
    let trend = before.split_once(TREND).map(|(_, trend)| trend).unwrap_or_default();
    let this = format!("| {commit} |");
    trend.lines().filter(move |line| line.starts_with("| 2") && !line.starts_with(&this))
}

fn git(args: &[&str]) -> Result<String> {
    let output = Command::new("git").args(args).current_dir(root()).output().context("running git")?;
    if !output.status.success() {
        bail!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dist() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: &str, bytes: usize| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
            std::fs::write(path, vec![b'x'; bytes]).expect("a file");
        };
        for (file, brotli) in [
            ("index", 100_000),
            ("shared", 10_000),
            ("home", 1_000),
            ("frame", 500),
            ("servers", 2_000),
            ("logs", 61_000),
        ] {
            write(&format!("assets/{file}.js"), brotli * 3);
            write(&format!("assets/{file}.js.br"), brotli);
        }
        write("assets/logs.css", 10);
        write("early.js", 7);
        let manifest = serde_json::json!({
            "index.html": {"file": "assets/index.js", "isEntry": true, "imports": ["_shared.js"]},
            "_shared.js": {"file": "assets/shared.js", "imports": ["index.html"]},
            "src/routes/_shell.tsx?tsr-split=component": {"file": "assets/frame.js", "isDynamicEntry": true},
            "src/routes/_shell/index.tsx?tsr-split=component": {"file": "assets/home.js", "isDynamicEntry": true},
            "src/routes/_shell/servers.tsx?tsr-split=component":
                {"file": "assets/servers.js", "isDynamicEntry": true, "imports": ["_shared.js"]},
            "src/routes/_shell/servers.$name.logs.tsx?tsr-split=component":
                {"file": "assets/logs.js", "isDynamicEntry": true, "css": ["assets/logs.css"]},
        });
        write(".vite/manifest.json", 0);
        std::fs::write(dir.path().join(".vite/manifest.json"), manifest.to_string()).expect("a file");
        let html = r#"<script src="/early.js"></script><script type="module" src="/assets/index.js"></script>"#;
        std::fs::write(dir.path().join("index.html"), html).expect("a file");
        dir
    }

    #[test]
    fn the_first_load_is_what_sign_in_and_overview_need_and_a_page_adds_only_its_own() {
        let rows = measure(dist().path()).expect("a table");
        let table: Vec<_> = rows.iter().map(|row| (row.what.as_str(), row.size.brotli, row.is_over())).collect();
        assert_eq!(
            table,
            [
                ("first load (sign-in, frame, overview)", 111_507, false),
                ("`/servers/$name/logs`", 63_010, true),
                ("`/servers`", 2_000, false),
            ]
        );
    }

    #[test]
    fn a_file_is_named_without_its_digest() {
        assert_eq!(without_digest("assets/index-BHiL-cwH.css"), "index.css");
        assert_eq!(without_digest("assets/admin/audit-BHiLxcwH.js"), "admin/audit.js");
        assert_eq!(without_digest("appearance.js"), "appearance.js");
    }

    #[test]
    fn the_report_keeps_the_trend_and_has_one_line_for_each_commit() {
        let rows = measure(dist().path()).expect("a table");
        let before = "## Trend\n\n| commit date | ... |\n| 2026-01-02 | abc1234 | 0.1.0 | 1 | 2 | 3 |\n";
        let once = page(&rows, before).expect("a page");
        assert!(once.contains("| `index.js` | 300000 | 300000 | 100000 |"), "{once}");
        assert!(once.contains("| 2026-01-02 | abc1234 |") && once.contains("| 111507 | 63010 | 3 |"), "{once}");
        assert_eq!(page(&rows, &once).expect("a page"), once);
    }
}
