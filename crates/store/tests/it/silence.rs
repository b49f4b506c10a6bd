//! Postgres that falls silent without closing anything, as at a failover without RST: what is open stays open and says
//! nothing, what is new works.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use toolyard_store::testing::TestDatabase;
use toolyard_store::{CallFilter, CallStore, EventKind, Location, Store};
use toolyard_types::{Clock, Secret, Timestamp};

use crate::migrations::execute;
use crate::world::{Engine, name};

/// A proxy in front of a Postgres whose connections can be frozen: from then on they carry nothing and never end.
struct Proxy {
    address: SocketAddr,
    freezes: watch::Sender<u64>,
    /// How many connections were made.
    made: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let freezes = watch::Sender::new(0);
        let freezing = freezes.clone();
        let made = Arc::new(AtomicUsize::new(0));
        let making = made.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                making.fetch_add(1, Ordering::Relaxed);
                let server = TcpStream::connect(&to).await.unwrap();
                let frozen = freezing.subscribe();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(pump(from_client, to_server, frozen.clone()));
                tokio::spawn(pump(from_server, to_client, frozen));
            }
        });
        Self { address, freezes, made }
    }

    fn freeze(&self) {
        self.freezes.send_modify(|count| *count += 1);
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut frozen: watch::Receiver<u64>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            biased;
            _ = frozen.changed() => std::future::pending().await,
            read = from.read(&mut buffer) => read.unwrap_or(0),
        };
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Where a proxy leads to the same database.
fn through(location: &Location, proxy: &Proxy) -> Location {
    let Location::Postgres(url) = location else { panic!("a Postgres") };
    Location::Postgres(Secret::new(url.expose().replace(&address_of(location), &proxy.address.to_string())))
}

/// The host and port of a Postgres.
fn address_of(location: &Location) -> String {
    let Location::Postgres(url) = location else { panic!("a Postgres") };
    let authority = url.expose().split("://").nth(1).unwrap().split('/').next().unwrap();
    authority.rsplit('@').next().unwrap().to_owned()
}

async fn write(store: &Store) -> toolyard_store::Result<()> {
    let mut tx = store.system("test").await?;
    tx.event(None, EventKind::FlagChanged, "flag/test", serde_json::json!({}));
    tx.commit().await
}

async fn read(store: &Store) -> toolyard_store::Result<()> {
    store.system_read("test").await?.last_event().await.map(drop)
}

/// Writes and reads without a pause until `stop`; each that is begun is answered, and each answer counted.
async fn work(store: Store, answered: Arc<AtomicUsize>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        let _ = write(&store).await;
        let _ = read(&store).await;
        answered.fetch_add(2, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_falls_silent_six_times_costs_no_connection_and_is_back_in_less_than_five_seconds() {
    let database = TestDatabase::create(Engine::Postgres).await;
    let proxy = Proxy::start(address_of(database.location())).await;
    let location = through(database.location(), &proxy);
    let store = Store::open(&location, Clock::system()).await.unwrap();
    let (stop, stopping) = watch::channel(false);
    let answered = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> =
        (0..8).map(|_| tokio::spawn(work(store.clone(), answered.clone(), stopping.clone()))).collect();
    for round in 0..6 {
        tokio::time::timeout(Duration::from_secs(5), write(&store)).await.unwrap().unwrap();
        proxy.freeze();
        let began = Instant::now();
        while tokio::time::timeout(Duration::from_secs(5), write(&store)).await.is_ok_and(|done| done.is_err()) {}
        tokio::time::timeout(Duration::from_secs(5), read(&store)).await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "round {round}: back after {:?}", began.elapsed());
    }
    let before = answered.load(Ordering::Relaxed);
    stop.send_replace(true);
    for worker in workers {
        tokio::time::timeout(Duration::from_secs(10), worker).await.unwrap().unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) > before, "those that worked all the time went on");
    // All are free again, so none is lost, and so many as ever can be had at once.
    settled(&store).await;
    let all = futures_util::future::join_all((0..store.readers()).map(|_| store.system_read("test"))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    drop(all);
    settled(&store).await;
    store.close().await;
}

/// Waits until nobody uses a connection.
async fn settled(store: &Store) {
    let began = Instant::now();
    loop {
        let (open, idle) = store.connections();
        if usize::try_from(open).unwrap() == idle {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{open} connections are open, {idle} of them idle");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_away_in_the_midst_of_a_query_costs_no_connection() {
    let database = TestDatabase::create(Engine::Postgres).await;
    let proxy = Proxy::start(address_of(database.location())).await;
    let store = Store::open(&through(database.location(), &proxy), Clock::system()).await.unwrap();
    let all = futures_util::future::join_all((0..store.readers()).map(|_| store.system_read("test"))).await;
    drop(all);
    settled(&store).await;
    let before = proxy.made.load(Ordering::Relaxed);
    for number in 0..600_u64 {
        let store = store.clone();
        let given_up = Duration::from_micros(number * 7 % 3000);
        let one = async move { if number % 2 == 0 { read(&store).await } else { write(&store).await } };
        tokio::spawn(async move { tokio::time::timeout(given_up, one).await.map(drop) });
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(5), write(&store)).await.unwrap().unwrap();
    settled(&store).await;
    assert_eq!(proxy.made.load(Ordering::Relaxed), before, "none was thrown away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_only_read_for_a_while_is_written_to_when_it_takes_writes_again() {
    let database = TestDatabase::create(Engine::Postgres).await;
    let Location::Postgres(url) = database.location() else { panic!("a Postgres") };
    let (host, own) = url.expose().rsplit_once('/').unwrap();
    let admin = Location::Postgres(Secret::new(format!("{host}/postgres")));
    let only_reads = |yes: bool| format!("ALTER DATABASE {own} SET default_transaction_read_only = {yes}");
    let url = Location::Postgres(url.clone());
    let store = Store::open(&url, Clock::system()).await.unwrap();
    write(&store).await.unwrap();
    settled(&store).await;
    execute(database.location(), &only_reads(true)).await;
    // What is made from now on only reads.
    let held = futures_util::future::join_all((0..store.readers()).map(|_| store.system_read("test"))).await;
    drop(held);
    settled(&store).await;
    execute(&admin, &only_reads(false)).await;
    for _ in 0..store.readers() {
        let _ = write(&store).await;
    }
    settled(&store).await;
    let held = futures_util::future::join_all((0..8).map(|_| write(&store))).await;
    assert!(held.iter().all(Result::is_ok), "{held:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_ends_what_a_silent_connection_left_so_that_its_locks_hold_nobody_up() {
    let database = TestDatabase::create(Engine::Postgres).await;
    let proxy = Proxy::start(address_of(database.location())).await;
    let silent = Store::open(&through(database.location(), &proxy), Clock::system()).await.unwrap();
    let holding = silent.system("test").await.unwrap();
    holding.lock("test").await.unwrap();
    proxy.freeze();
    let other = database.open(Clock::system()).await;
    let began = Instant::now();
    let locked = async { while other.system("test").await.unwrap().lock("test").await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(6), locked).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "it was held for {:?}", began.elapsed());
    assert!(holding.commit().await.is_err(), "what was not written is not called written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_records_are_read_again_after_their_connections_fell_silent() {
    let database = TestDatabase::create(Engine::Postgres).await;
    let proxy = Proxy::start(address_of(database.location())).await;
    let calls = CallStore::open(&through(database.location(), &proxy)).await.unwrap();
    let organization = {
        let store = database.open(Clock::system()).await;
        let mut tx = store.system("test").await.unwrap();
        let organization = tx.create_organization(&name("acme")).await.unwrap();
        tx.commit().await.unwrap();
        organization.id
    };
    let filter = CallFilter::default();
    let list = || calls.list(organization, &filter, Timestamp::from_ms(0), None, 10);
    for _ in 0..3 {
        list().await.unwrap();
        proxy.freeze();
        tokio::time::timeout(Duration::from_secs(5), list()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_postgres_that_is_not_there_at_the_start_is_told_with_its_address_and_the_cause() {
    // Nobody listens where nobody may.
    let location = Location::Postgres(Secret::new("postgres://toolyard:secret@127.0.0.1:1/toolyard"));
    let error = Store::open(&location, Clock::system()).await.unwrap_err();
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let told = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(told.contains("Postgres at 127.0.0.1:1: ") && told.contains("refused"), "{told}");
    assert!(!told.contains("secret"), "{told}");
}
