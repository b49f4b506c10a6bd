//! What the tests share.

use toolyard_store::Store;
pub(crate) use toolyard_store::testing::{Engine, TestDatabase};
use toolyard_types::{Clock, Name, OrganizationId, Timestamp};

/// Runs a test once on SQLite and once on Postgres: `both_engines! { async fn name(engine) { ... } }`.
macro_rules! both_engines {
    ($($(#[$meta:meta])* async fn $name:ident($engine:ident) $body:block)*) => {$(
        mod $name {
            use super::*;
            async fn run($engine: crate::world::Engine) $body
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() { run(crate::world::Engine::Sqlite).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() { run(crate::world::Engine::Postgres).await; }
        }
    )*};
}
pub(crate) use both_engines;

/// A store on a database of its own, at a clock that stands still.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) database: TestDatabase,
}

impl World {
    pub(crate) async fn start(engine: Engine) -> Self {
        let database = TestDatabase::create(engine).await;
        let clock = Clock::stopped_at(Timestamp::parse("2026-11-22T12:00:00Z").unwrap());
        Self { store: database.open(clock.clone()).await, clock, database }
    }

    /// Makes an organization.
    pub(crate) async fn organization(&self, text: &str) -> OrganizationId {
        let mut tx = self.store.system("test").await.unwrap();
        let organization = tx.create_organization(&name(text)).await.unwrap();
        tx.commit().await.unwrap();
        organization.id
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}
