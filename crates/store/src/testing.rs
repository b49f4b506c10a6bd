//! Databases for tests: a SQLite file, or a Postgres database copied from a migrated template.
//!
//! Only with the feature `testing`. `TOOLYARD_TEST_POSTGRES_URL` names a Postgres where databases may be made
//! (`scripts/postgres-test.sh start` prints one); without it the tests on Postgres fail instead of being skipped.

use std::path::PathBuf;

use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection};
use toolyard_types::{Clock, Secret};

use crate::{Location, Store};

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A SQLite file in a temporary directory.
    Sqlite,
    /// A database of its own on a Postgres.
    Postgres,
}

/// A database that lives as long as this.
#[derive(Debug)]
pub struct TestDatabase {
    location: Location,
    dir: tempfile::TempDir,
    drop_statement: Option<(String, String)>,
}

impl TestDatabase {
    /// Makes an empty, migrated database.
    pub async fn create(engine: Engine) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        match engine {
            Engine::Sqlite => {
                let location = Location::Sqlite(dir.path().join("toolyard.db"));
                Self { location, dir, drop_statement: None }
            }
            Engine::Postgres => {
                let admin_url = postgres_url();
                let name = format!("t_{}", toolyard_types::AuditId::generate().to_string().replace('-', ""));
                let template = template(&admin_url).await;
                let admin = connect(&admin_url).await;
                run(&admin, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
                admin.close().await.expect("the connection closes");
                let location = Location::Postgres(Secret::new(with_database(&admin_url, &name)));
                let drop_statement = Some((admin_url, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
                Self { location, dir, drop_statement }
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// A directory that lives as long.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Has the database refuse call records of the day of `at`, of which there are some already, or take them again.
    pub async fn refuse_calls(&self, at: toolyard_types::Timestamp, refuse: bool) {
        let (url, statement) = match (&self.location, refuse) {
            (Location::Sqlite(path), refuse) => {
                let day: String = at.to_string().chars().take(10).collect();
                let file = path.with_file_name("calls").join(format!("{day}.db"));
                let statement = match refuse {
                    true => "CREATE TRIGGER refuse BEFORE INSERT ON calls BEGIN SELECT RAISE(ABORT, 'refused'); END",
                    false => "DROP TRIGGER refuse",
                };
                (format!("sqlite://{}", file.display()), statement)
            }
            (Location::Postgres(url), true) => {
                (url.expose().to_owned(), "ALTER TABLE calls ADD CONSTRAINT refuse CHECK (FALSE) NOT VALID")
            }
            (Location::Postgres(url), false) => (url.expose().to_owned(), "ALTER TABLE calls DROP CONSTRAINT refuse"),
        };
        let db = connect(&url).await;
        run(&db, statement).await;
        db.close().await.expect("the connection closes");
    }

    /// Spoils the row of a toolset, so that what reads it fails.
    pub async fn break_toolset(&self, name: &str) {
        self.run_here(&format!("UPDATE toolsets SET members = '{{' WHERE name = '{name}'")).await;
    }

    /// Mends it: it has no members.
    pub async fn mend_toolset(&self, name: &str) {
        self.run_here(&format!("UPDATE toolsets SET members = '[]' WHERE name = '{name}'")).await;
    }

    /// Hides the table of toolboxes, so that whatever asks for one fails as when the database is away, or shows it again.
    pub async fn hide_toolboxes(&self, hide: bool) {
        self.hide("toolboxes", hide).await;
    }

    /// Has the look at writes fail, as where the database only reads, or work again.
    pub async fn refuse_write_checks(&self, refuse: bool) {
        self.hide("write_checks", refuse).await;
    }

    async fn hide(&self, table: &str, hide: bool) {
        let hidden = format!("hidden_{table}");
        let (from, to) = if hide { (table, hidden.as_str()) } else { (hidden.as_str(), table) };
        self.run_here(&format!("ALTER TABLE {from} RENAME TO {to}")).await;
    }

    async fn run_here(&self, statement: &str) {
        let url = match &self.location {
            Location::Sqlite(path) => format!("sqlite://{}", path.display()),
            Location::Postgres(url) => url.expose().to_owned(),
        };
        let db = connect(&url).await;
        run(&db, statement).await;
        db.close().await.expect("the connection closes");
    }

    /// Opens it.
    pub async fn open(&self, clock: Clock) -> Store {
        Store::open(&self.location, clock).await.expect("the test database opens")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some((admin_url, statement)) = self.drop_statement.take() else { return };
        // Its own thread and runtime: the test's runtime may be ending, and a drop cannot wait on it.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let admin = connect(&admin_url).await;
                admin.execute_unprepared(&statement).await.ok();
                admin.close().await.ok();
            });
            std::io::Result::Ok(())
        });
        let _ = dropping.join();
    }
}

/// Makes the template once for each schema, whichever test comes first.
async fn template(admin_url: &str) -> String {
    let name = format!("toolyard_template_{:016x}", crate::migrations::fingerprint());
    let admin = connect(admin_url).await;
    run(&admin, "SELECT pg_advisory_lock(7246129)").await;
    let known = format!("SELECT 1 AS one FROM pg_database WHERE datname = '{name}'");
    let statement = sea_orm::Statement::from_string(admin.get_database_backend(), known);
    if admin.query_one_raw(statement).await.expect("Postgres answers").is_none() {
        let fresh = format!("{name}_new");
        run(&admin, &format!("DROP DATABASE IF EXISTS {fresh} WITH (FORCE)")).await;
        run(&admin, &format!("CREATE DATABASE {fresh}")).await;
        let location = Location::Postgres(Secret::new(with_database(admin_url, &fresh)));
        Store::open(&location, Clock::system()).await.expect("the template is migrated").close().await;
        run(&admin, &format!("ALTER DATABASE {fresh} RENAME TO {name}")).await;
    }
    admin.close().await.expect("the connection closes");
    name
}

async fn connect(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    Database::connect(options).await.expect("the test Postgres can be reached")
}

async fn run(db: &DatabaseConnection, statement: &str) {
    db.execute_unprepared(statement).await.expect("the statement runs");
}

#[expect(clippy::disallowed_methods, reason = "tests learn where their Postgres is; no setting of the program")]
fn postgres_url() -> String {
    std::env::var("TOOLYARD_TEST_POSTGRES_URL")
        .expect("set TOOLYARD_TEST_POSTGRES_URL; `scripts/postgres-test.sh start` prints it")
}

fn with_database(url: &str, name: &str) -> String {
    let (base, _) = url.rsplit_once('/').expect("a Postgres URL names a database");
    format!("{base}/{name}")
}
