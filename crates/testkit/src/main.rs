//! Serves the fixture registry until it is killed; prints its address. Point npm at it with
//! `npm_config_registry`.

use toolyard_testkit::{fixture, npm_registry::NpmRegistry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let registry = NpmRegistry::start(vec![fixture::package()]).await?;
    println!("{}", registry.url());
    std::future::pending().await
}
