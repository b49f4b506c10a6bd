//! A small npm registry on a loopback port: packages with checksums, tarballs, and ways to go wrong.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use base64::Engine;
use serde_json::json;
use sha2::{Digest, Sha512};

/// A file of this name has the set-user-id and set-group-id bits in the archive of its package.
pub const SET_ID_FILE: &str = "set-id";

/// A package of one version.
#[derive(Clone, Debug)]
pub struct NpmPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its files by path, with `package.json` among them.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A running registry; ends when dropped.
#[derive(Debug)]
pub struct NpmRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    packages: BTreeMap<String, (NpmPackage, Vec<u8>)>,
    swapped: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl NpmRegistry {
    /// Starts a registry with `packages`.
    ///
    /// # Errors
    /// When no loopback port can be had, or a package cannot be packed.
    pub async fn start(packages: Vec<NpmPackage>) -> io::Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), packages).await
    }

    /// The same at another address of this machine, for hosts that do not share its loopback.
    ///
    /// # Errors
    /// When no port can be had there, or a package cannot be packed.
    pub async fn start_on(address: IpAddr, packages: Vec<NpmPackage>) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind((address, 0)).await?;
        let address = listener.local_addr()?;
        let mut packed = BTreeMap::new();
        for package in packages {
            let tarball = tarball(&package.files)?;
            packed.insert(package.name.clone(), (package, tarball));
        }
        let shared = Arc::new(Shared { address, packages: packed, swapped: Mutex::default() });
        let router = Router::new()
            .route("/{name}", get(packument))
            .route("/{name}/-/{file}", get(download))
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // A registry that cannot accept any more is seen by the test that needs it.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, task })
    }

    /// Its address, for `npm_config_registry`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// From now on serves other bytes than the ones whose checksum it announces.
    pub fn tamper(&self, name: &str) {
        let other = tarball(&[("package.json".into(), b"{}".to_vec())]).unwrap_or_default();
        self.shared.swapped.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), other);
    }
}

impl Drop for NpmRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn packument(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    let Some((package, tarball)) = shared.packages.get(&name) else {
        return (StatusCode::NOT_FOUND, Json(json!({ "error": "Not found" }))).into_response();
    };
    let integrity = format!("sha512-{}", base64::engine::general_purpose::STANDARD.encode(Sha512::digest(tarball)));
    let version = &package.version;
    let url = format!("http://{}/{name}/-/{name}-{version}.tgz", shared.address);
    let manifest = package.files.iter().find(|(path, _)| path == "package.json").map(|(_, bytes)| bytes.as_slice());
    let mut manifest: serde_json::Value =
        serde_json::from_slice(manifest.unwrap_or(b"{}")).unwrap_or_else(|_| json!({}));
    manifest["dist"] = json!({ "integrity": integrity, "tarball": url });
    Json(json!({ "name": name, "dist-tags": { "latest": version }, "versions": { version: manifest } })).into_response()
}

async fn download(State(shared): State<Arc<Shared>>, Path((name, _file)): Path<(String, String)>) -> Response {
    if let Some(other) = shared.swapped.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
        return other.clone().into_response();
    }
    match shared.packages.get(&name) {
        Some((_, tarball)) => tarball.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The longest name that a header has room for.
const LONGEST_NAME: usize = 100;

/// A gzipped ustar archive with everything below `package/`, as npm wants it. A name that is too long for its header comes
/// before it as a file of its own kind, as GNU tar does it.
fn tarball(files: &[(String, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for (path, bytes) in files {
        let path = format!("package/{path}");
        let short = path.get(..LONGEST_NAME).unwrap_or(&path);
        if short != path {
            write_entry(&mut out, ("././@LongLink", "L"), path.as_bytes())?;
        }
        write_entry(&mut out, (short, "0"), bytes)?;
    }
    out.write_all(&[0; 1024])?;
    out.finish()
}

fn write_entry(out: &mut impl Write, (path, kind): (&str, &str), bytes: &[u8]) -> io::Result<()> {
    out.write_all(&header(path, kind, bytes.len()))?;
    out.write_all(bytes)?;
    out.write_all(&vec![0; bytes.len().next_multiple_of(512) - bytes.len()])
}

fn header(path: &str, kind: &str, size: usize) -> [u8; 512] {
    let mut block = [0_u8; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, if path == format!("package/{SET_ID_FILE}") { "0006755\0" } else { "0000755\0" });
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, kind);
    put(257, "ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
