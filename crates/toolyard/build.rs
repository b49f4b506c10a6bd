//! Embeds the built web console (`console/dist`) into the program.
//!
//! The files are copied to cargo's output directory first, so that a console build running at the same time cannot
//! take one away between two reads. Encoded forms (`.br`, `.gz`) are made by the console's own build; here
//! they are only found. A crate for embedding would bring each file as it is; here a file with its encoded forms,
//! content type and digest is one row, the same in every profile. Without `console/dist/index.html` the table is
//! empty, and the program says so at `/`.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What a file may be; one of another kind fails the build rather than being guessed by browsers.
const CONTENT_TYPES: &[(&str, &str)] = &[
    ("css", "text/css; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff2", "font/woff2"),
];

fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../console/dist");
    // Cargo would run this again each time for a path that is not there; an empty directory of our own can be
    // watched. Where the sources are read-only, running again is all that is lost.
    let _ = fs::create_dir_all(&dist);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", dist.display());
    if let Err(error) = embed(&dist) {
        println!("cargo::error=console: {error}");
    }
}

/// Writes `console.rs`, a table of assets, and the files that it includes.
fn embed(dist: &Path) -> Result<(), String> {
    let out = out_dir();
    let copies = out.join("console");
    let _ = fs::remove_dir_all(&copies);
    fs::create_dir_all(&copies).map_err(|error| format!("cannot make {}: {error}", copies.display()))?;
    let mut table = String::from("&[\n");
    if dist.join("index.html").is_file() {
        for (number, path) in files(dist)?.into_iter().enumerate() {
            row(&mut table, dist, &copies, number, &path)?;
        }
    }
    table.push_str("]\n");
    fs::write(out.join("console.rs"), table).map_err(|error| format!("cannot write the table: {error}"))
}

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts in the environment; not a setting")]
fn out_dir() -> PathBuf {
    PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it for build scripts"))
}

/// The files to serve, sorted, as paths below `dist` with `/`. Names that start with a dot are the build's own notes.
fn files(dist: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(below) = pending.pop() {
        let listed = fs::read_dir(dist.join(&below)).map_err(|error| format!("cannot list dist/{below}: {error}"))?;
        for entry in listed {
            let entry = entry.map_err(|error| format!("cannot list dist/{below}: {error}"))?;
            let name = entry.file_name().into_string().map_err(|name| format!("dist has a file named {name:?}"))?;
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            if name.starts_with('.') || name.ends_with(".map") {
                continue;
            }
            if entry.path().is_dir() {
                pending.push(path);
            } else if encoded(dist, &path).is_none() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The file that this one is an encoded form of.
fn encoded<'a>(dist: &Path, path: &'a str) -> Option<&'a str> {
    [".br", ".gz"].iter().find_map(|ending| path.strip_suffix(ending)).filter(|plain| dist.join(plain).is_file())
}

fn row(table: &mut String, dist: &Path, copies: &Path, number: usize, path: &str) -> Result<(), String> {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    let content_type = CONTENT_TYPES.iter().find(|(known, _)| *known == extension);
    let (_, content_type) = content_type
        .ok_or_else(|| format!("dist/{path} has no known content type; add it to crates/toolyard/build.rs"))?;
    let plain = copy(&dist.join(path), &copies.join(number.to_string()))
        .map_err(|error| format!("cannot read dist/{path}: {error}"))?;
    let mut forms = String::new();
    for (field, ending) in [("brotli", "br"), ("gzip", "gz")] {
        let form = format!("{number}.{ending}");
        // An encoded form that is not smaller is not worth its negotiation.
        let there = match copy(&dist.join(format!("{path}.{ending}")), &copies.join(&form)) {
            Ok(bytes) => bytes.len() < plain.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(format!("cannot read dist/{path}.{ending}: {error}")),
        };
        let value = if there { format!("Some({})", include(&form)) } else { "None".to_owned() };
        let _ = write!(forms, " {field}: {value},");
    }
    let digest = Sha256::digest(&plain).iter().take(16).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let plain = include(&number.to_string());
    let _ = writeln!(
        table,
        "    Asset {{ path: {path:?}, content_type: {content_type:?}, digest: {digest:?}, plain: {plain},{forms} }},"
    );
    Ok(())
}

fn include(copy: &str) -> String {
    format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/console/{copy}\"))")
}

fn copy(from: &Path, to: &Path) -> io::Result<Vec<u8>> {
    let bytes = fs::read(from)?;
    fs::write(to, &bytes)?;
    Ok(bytes)
}
