//! Opening: migrations under a lock, and refusal of what is newer.

use sea_orm::{ConnectionTrait, Database};
use toolyard_store::testing::TestDatabase;
use toolyard_store::{Location, Store, StoreError};
use toolyard_types::Clock;

use crate::world::{World, both_engines};

async fn execute(location: &Location, statement: &str) {
    let url = match location {
        Location::Sqlite(path) => format!("sqlite://{}", path.display()),
        Location::Postgres(url) => url.expose().to_owned(),
    };
    let db = Database::connect(url).await.unwrap();
    db.execute_unprepared(statement).await.unwrap();
    db.close().await.unwrap();
}

both_engines! {
    async fn many_that_open_an_empty_database_at_once_all_succeed(engine) {
        let database = TestDatabase::create(engine).await;
        if let Location::Postgres(_) = database.location() {
            execute(database.location(), "DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
        }
        let openings = (0..4).map(|_| {
            let location = database.location().clone();
            tokio::spawn(async move { Store::open(&location, Clock::system()).await })
        });
        for opening in openings.collect::<Vec<_>>() {
            let store = opening.await.unwrap().unwrap();
            assert!(store.system_read("test").await.unwrap().organizations().await.unwrap().is_empty());
        }
    }

    async fn a_database_that_needs_a_newer_program_is_refused_and_left_alone(engine) {
        let world = World::start(engine).await;
        execute(world.database.location(), "UPDATE schema_info SET compatible_from = '99.1.0'").await;
        let refused = Store::open(world.database.location(), Clock::system()).await.unwrap_err();
        assert!(matches!(&refused, StoreError::TooOld(needed) if needed == "99.1.0"), "{refused:?}");
        assert_eq!(refused.to_string(), "the database needs at least version 99.1.0 of Toolyard");
    }

    async fn a_database_of_the_next_release_that_is_still_compatible_opens(engine) {
        let world = World::start(engine).await;
        execute(world.database.location(), "CREATE TABLE of_the_next_release (id TEXT PRIMARY KEY)").await;
        execute(
            world.database.location(),
            "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_of_the_next_release', 0)",
        )
        .await;
        Store::open(world.database.location(), Clock::system()).await.unwrap();
    }
}
