//! Opening: migrations under a lock, and refusal of what is newer.

use sea_orm::{ConnectionTrait, Database, Statement};
use toolyard_store::testing::TestDatabase;
use toolyard_store::{Location, Store, StoreError, StoreOptions};
use toolyard_types::Clock;

use crate::world::{World, both_engines};

pub(crate) async fn execute(location: &Location, statement: &str) {
    let url = match location {
        Location::Sqlite(path) => format!("sqlite://{}", path.display()),
        Location::Postgres(url) => url.expose().to_owned(),
    };
    let db = Database::connect(url).await.unwrap();
    db.execute_unprepared(statement).await.unwrap();
    db.close().await.unwrap();
}

async fn names(location: &Location, table: &str) -> Vec<String> {
    let url = match location {
        Location::Sqlite(path) => format!("sqlite://{}", path.display()),
        Location::Postgres(url) => url.expose().to_owned(),
    };
    let db = Database::connect(url).await.unwrap();
    let sql = format!("SELECT name FROM {table}");
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    let names = rows.iter().map(|row| row.try_get("", "name").unwrap()).collect();
    db.close().await.unwrap();
    names
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

    async fn a_database_that_was_in_use_and_is_gone_is_refused_and_not_made_anew(engine) {
        let database = TestDatabase::create(engine).await;
        if let Location::Postgres(_) = database.location() {
            execute(database.location(), "DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
        }
        let options = || StoreOptions { must_exist: true, ..StoreOptions::default() };
        for _ in 0..2 {
            let refused = Store::open_with(database.location(), Clock::system(), options()).await.unwrap_err();
            assert!(matches!(refused, StoreError::Gone(_)), "{refused:?}");
        }
        if let Location::Sqlite(path) = database.location() {
            assert!(!path.exists());
            std::fs::write(path, "").unwrap();
            let refused = Store::open_with(database.location(), Clock::system(), options()).await.unwrap_err();
            assert!(matches!(refused, StoreError::Gone(_)), "{refused:?}");
        }
        Store::open(database.location(), Clock::system()).await.unwrap().close().await;
        Store::open_with(database.location(), Clock::system(), options()).await.unwrap();
    }

    async fn nothing_is_written_to_a_file_that_was_removed_or_replaced(engine) {
        let world = World::start(engine).await;
        let Location::Sqlite(path) = world.database.location() else { return };
        let put_away = path.with_extension("away");
        for replaced in [false, true] {
            std::fs::rename(path, &put_away).unwrap();
            if replaced {
                std::fs::write(path, "").unwrap();
            }
            let refused = world.store.system("test").await.err();
            assert!(matches!(refused, Some(StoreError::Removed(_))), "{refused:?}");
            assert!(world.store.check_writes("test", "1").await.is_err());
            std::fs::rename(&put_away, path).unwrap();
            world.store.check_writes("test", "2").await.unwrap();
        }
    }

    async fn a_damaged_file_is_named_and_damage_in_the_middle_of_one_is_found(engine) {
        let database = TestDatabase::create(engine).await;
        let Location::Sqlite(path) = database.location() else { return };
        let store = Store::open(database.location(), Clock::system()).await.unwrap();
        assert_eq!(store.damage().await.unwrap(), None);
        store.close().await;
        let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)";
        execute(database.location(), &format!("CREATE TABLE big AS {rows} SELECT i, hex(randomblob(100)) FROM n")).await;
        let whole = std::fs::read(path).unwrap();

        // Nobody reads there.
        let mut torn = whole.clone();
        let from = torn.len() - 3 * 4096;
        torn[from..].fill(0xaa);
        std::fs::write(path, &torn).unwrap();
        let store = Store::open(database.location(), Clock::system()).await.unwrap();
        assert!(store.damage().await.unwrap().is_some());
        store.close().await;

        std::fs::write(path, vec![0xaa; 8192]).unwrap();
        let refused = Store::open(database.location(), Clock::system()).await.unwrap_err();
        assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused:?}");
        let causes = std::iter::successors(std::error::Error::source(&refused), |cause| cause.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        assert_eq!(causes.iter().filter(|cause| cause.contains("(code: ")).count(), 1, "said once: {causes:?}");
        assert!(toolyard_store::tells_of_damage(&"(code: 779) database disk image is malformed"), "of an index");
        assert!(!toolyard_store::tells_of_damage(&"(code: 13) database or disk is full"));
    }

    async fn a_database_in_use_is_copied_before_its_schema_changes_and_an_empty_one_is_not(engine) {
        let world = World::start(engine).await;
        world.organization("acme").await;
        let backups = world.database.dir().join("backups");
        assert!(!backups.exists());
        // As an earlier version left it.
        execute(world.database.location(), "DROP TABLE write_checks").await;
        execute(world.database.location(), "DELETE FROM seaql_migrations WHERE version = 'm0015_write_checks'").await;
        Store::open(world.database.location(), Clock::system()).await.unwrap().check_writes("test", "1").await.unwrap();
        let copied = match world.database.location() {
            Location::Sqlite(_) => {
                use std::os::unix::fs::PermissionsExt;
                let copy = backups.join("before-m0015_write_checks.db");
                assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
                names(&Location::Sqlite(copy), "organizations").await
            }
            postgres => names(postgres, "toolyard_backup.organizations").await,
        };
        assert_eq!(copied, ["acme"]);
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

#[tokio::test]
async fn a_write_ahead_log_that_is_removed_while_in_use_is_saved_and_nothing_more_is_written() {
    let database = TestDatabase::create(crate::world::Engine::Sqlite).await;
    let store = database.open(Clock::system()).await;
    store.check_writes("one", "1").await.unwrap();
    let Location::Sqlite(path) = database.location() else { panic!("a file") };
    std::fs::remove_file(path.with_extension("db-wal")).unwrap();
    let make = async |name: &str| {
        let mut tx = store.system("test").await?;
        tx.create_organization(&crate::world::name(name)).await?;
        tx.commit().await
    };
    make("acknowledged").await.unwrap();
    assert!(matches!(store.check_writes("one", "2").await, Err(StoreError::LogRemoved(_))));
    assert!(matches!(make("refused").await, Err(StoreError::LogRemoved(_))));
    // As after a crash: what is in the file is what there is.
    let copy = database.dir().join("copy.db");
    std::fs::copy(path, &copy).unwrap();
    let again = Store::open(&Location::Sqlite(copy), Clock::system()).await.unwrap();
    let names: Vec<_> = again.system_read("test").await.unwrap().organizations().await.unwrap();
    assert_eq!(names.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["acknowledged"]);
}
