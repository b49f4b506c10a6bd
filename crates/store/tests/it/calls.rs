//! Call records: by time, by organization, forgotten by the day.

use toolyard_store::{CallBucket, CallCount, CallCursor, CallFilter, CallStore, Location};
use toolyard_types::snapshot::{CallOutcome, CallRecord};
use toolyard_types::{OrganizationId, RevisionId, ServerId, Timestamp, ToolsetId};

use crate::migrations::execute;
use crate::world::{TestDatabase, both_engines};

const HOUR_MS: i64 = 3600 * 1000;

fn at(hours: i64) -> Timestamp {
    let start = Timestamp::parse("2026-11-20T00:00:00Z").unwrap();
    Timestamp::from_ms(start.as_ms() + hours * HOUR_MS)
}

fn record(organization: OrganizationId, hours: i64) -> CallRecord {
    CallRecord {
        at: at(hours),
        organization,
        actor: "api_key:1".into(),
        server: Some(ServerId::generate()),
        toolset: None,
        method: "tools/call".into(),
        target: "echo \u{1f4a5} 'quoted'".into(),
        outcome: CallOutcome::ToolError,
        duration_us: 1500,
        request_bytes: 10,
        response_bytes: u64::from(u32::MAX) + 1,
        request_id: "r".into(),
        revision: Some(RevisionId::generate()),
    }
}

/// The database that holds the records of the first day.
fn first_day(database: &TestDatabase) -> Location {
    match database.location() {
        Location::Sqlite(path) => Location::Sqlite(path.with_file_name("calls").join("2026-11-20.db")),
        location => location.clone(),
    }
}

both_engines! {
    async fn records_of_several_days_come_newest_first_in_pages(engine) {
        let database = TestDatabase::create(engine).await;
        let calls = CallStore::open(database.location()).await.unwrap();
        let (acme, other) = (OrganizationId::generate(), OrganizationId::generate());
        let mut records: Vec<_> = (0..70).map(|hour| record(acme, hour)).collect();
        records.push(record(other, 5));
        // Two at the same moment are still told apart by the cursor.
        records.push(record(acme, 69));
        calls.insert(&mut records.clone()).await.unwrap();

        let mut seen = Vec::new();
        let mut cursor: Option<CallCursor> = None;
        loop {
            let page = calls.list(acme, &CallFilter::default(), at(0), cursor, 16).await.unwrap();
            let Some(last) = page.last() else { break };
            cursor = Some(last.cursor);
            seen.extend(page.into_iter().map(|call| call.record));
        }
        assert_eq!(seen.len(), 71);
        assert!(seen.is_sorted_by(|a, b| a.at >= b.at));
        assert_eq!(seen[70], records[0]);
        assert_eq!(calls.list(other, &CallFilter::default(), at(0), None, 10).await.unwrap().len(), 1);
        assert_eq!(calls.list(acme, &CallFilter::default(), at(60), None, 100).await.unwrap().len(), 11);
        calls.close().await;
    }

    async fn a_nul_that_a_client_sent_holds_no_record_up(engine) {
        let database = TestDatabase::create(engine).await;
        let calls = CallStore::open(database.location()).await.unwrap();
        let acme = OrganizationId::generate();
        let hostile = CallRecord { method: "tools\0".into(), target: "ec\0ho".into(), ..record(acme, 1) };
        calls.insert(&mut vec![hostile, record(acme, 2)]).await.unwrap();
        let found = calls.list(acme, &CallFilter::default(), at(0), None, 10).await.unwrap();
        assert_eq!((found.len(), found[1].record.target.as_str()), (2, "ec\u{fffd}ho"));
        assert_eq!(found[1].record.method, "tools\u{fffd}");
        calls.close().await;
    }

    async fn records_are_filtered_and_a_narrowed_reader_sees_only_its_own(engine) {
        let database = TestDatabase::create(engine).await;
        let calls = CallStore::open(database.location()).await.unwrap();
        let acme = OrganizationId::generate();
        let (a, b, set) = (ServerId::generate(), ServerId::generate(), ToolsetId::generate());
        let of = |server, toolset, actor: &str, outcome, hours| CallRecord {
            server: Some(server), toolset, actor: actor.into(), outcome, ..record(acme, hours)
        };
        calls.insert(&mut vec![
            of(a, None, "api_key:1", CallOutcome::Ok, 1),
            of(b, None, "api_key:2", CallOutcome::Timeout, 25),
            of(b, Some(set), "user:1", CallOutcome::Ok, 26),
        ]).await.unwrap();
        let found = async |filter: CallFilter| {
            calls.list(acme, &filter, at(0), None, 10).await.unwrap().into_iter().map(|call| call.record.at).collect::<Vec<_>>()
        };
        assert_eq!(found(CallFilter { server: Some(b), ..CallFilter::default() }).await, [at(26), at(25)]);
        assert_eq!(found(CallFilter { toolset: Some(set), ..CallFilter::default() }).await, [at(26)]);
        assert_eq!(found(CallFilter { actor: Some("api_key:1".into()), ..CallFilter::default() }).await, [at(1)]);
        assert_eq!(found(CallFilter { outcome: Some(CallOutcome::Timeout), ..CallFilter::default() }).await, [at(25)]);
        assert_eq!(found(CallFilter { request_id: Some("nobody's".into()), ..CallFilter::default() }).await, []);
        let within = |servers: &[ServerId], toolsets: &[ToolsetId]| CallFilter {
            within: Some((servers.to_vec(), toolsets.to_vec())), ..CallFilter::default()
        };
        assert_eq!(found(within(&[a], &[set])).await, [at(26), at(1)]);
        assert_eq!(found(within(&[a], &[])).await, [at(1)]);
        assert!(found(within(&[], &[])).await.is_empty());
        let both = CallFilter { outcome: Some(CallOutcome::Ok), ..within(&[b], &[]) };
        assert_eq!(found(both).await, [at(26)]);
        calls.close().await;
    }

    async fn an_outcome_that_a_version_before_does_not_know_is_written_in_a_word_that_it_knows(engine) {
        let database = TestDatabase::create(engine).await;
        let acme = OrganizationId::generate();
        let calls = CallStore::open(database.location()).await.unwrap();
        let outcomes = [CallOutcome::ServerNotReady, CallOutcome::UpstreamFailed, CallOutcome::Ok];
        let records = (1..).zip(outcomes).map(|(hour, outcome)| CallRecord { outcome, ..record(acme, hour) });
        calls.insert(&mut records.collect::<Vec<_>>()).await.unwrap();
        let that_ended = async |outcome: CallOutcome| {
            let filter = CallFilter { outcome: Some(outcome), ..CallFilter::default() };
            let found = calls.list(acme, &filter, at(0), None, 10).await.unwrap();
            assert!(found.iter().all(|call| call.record.outcome == outcome), "{found:?}");
            found.iter().map(|call| call.record.at).collect::<Vec<_>>()
        };
        for (hour, outcome) in (1..).zip(outcomes) {
            assert_eq!(that_ended(outcome).await, [at(hour)]);
        }
        let counts = calls.counts(acme, &CallFilter::default(), at(0), 24 * HOUR_MS).await.unwrap();
        let counts: Vec<_> = counts.iter().map(|count| (count.outcome, count.count)).collect();
        assert_eq!(counts, [(CallOutcome::Ok, 1), (CallOutcome::ServerNotReady, 1), (CallOutcome::UpstreamFailed, 1)]);
        calls.close().await;

        execute(&first_day(&database), "UPDATE calls SET target = outcome").await;
        let calls = CallStore::open(database.location()).await.unwrap();
        let found = calls.list(acme, &CallFilter::default(), at(0), None, 10).await.unwrap();
        let written: Vec<_> = found.iter().map(|call| call.record.target.as_str()).collect();
        assert_eq!(written, ["ok", "upstream_failed", "upstream_failed"]);
        calls.close().await;
    }

    async fn an_outcome_of_a_later_version_hides_no_record_and_counts_as_a_failure_of_the_server(engine) {
        let database = TestDatabase::create(engine).await;
        let acme = OrganizationId::generate();
        let calls = CallStore::open(database.location()).await.unwrap();
        calls.insert(&mut (1..=3).map(|hour| record(acme, hour)).collect::<Vec<_>>()).await.unwrap();
        calls.close().await;
        let day = first_day(&database);
        let write = async |hour, words: &str| {
            execute(&day, &format!("UPDATE calls SET {words} WHERE at = {}", at(hour).as_ms())).await;
        };
        write(1, "outcome = 'of_later'").await;
        write(2, "outcome = 'timeout', finer_outcome = 'of_later'").await;

        let calls = CallStore::open(database.location()).await.unwrap();
        let found = async |outcome: Option<CallOutcome>| {
            let filter = CallFilter { outcome, ..CallFilter::default() };
            let found = calls.list(acme, &filter, at(0), None, 10).await.unwrap();
            found.iter().map(|call| (call.record.at, call.record.outcome)).collect::<Vec<_>>()
        };
        let (failed, late) = ((at(1), CallOutcome::UpstreamFailed), (at(2), CallOutcome::Timeout));
        assert_eq!(found(None).await, [(at(3), CallOutcome::ToolError), late, failed]);
        assert_eq!(found(Some(CallOutcome::UpstreamFailed)).await, [failed]);
        assert_eq!(found(Some(CallOutcome::Timeout)).await, [late]);
        let counts = calls.counts(acme, &CallFilter::default(), at(0), 24 * HOUR_MS).await.unwrap();
        assert_eq!(counts.len(), 3, "{counts:?}");
        calls.close().await;
    }

    async fn records_of_a_version_before_are_read_and_its_days_go_on(engine) {
        let database = TestDatabase::create(engine).await;
        let acme = OrganizationId::generate();
        let calls = CallStore::open(database.location()).await.unwrap();
        let before = record(acme, 1);
        calls.insert(&mut vec![before.clone()]).await.unwrap();
        calls.close().await;
        execute(&first_day(&database), "ALTER TABLE calls DROP COLUMN finer_outcome").await;

        let calls = CallStore::open(database.location()).await.unwrap();
        let after = CallRecord { outcome: CallOutcome::ServerNotReady, ..record(acme, 2) };
        calls.insert(&mut vec![after.clone()]).await.unwrap();
        let found = calls.list(acme, &CallFilter::default(), at(0), None, 10).await.unwrap();
        assert_eq!(found.into_iter().map(|call| call.record).collect::<Vec<_>>(), [after, before]);
        calls.close().await;
    }

    async fn calls_are_summed_up_by_stretches_with_exact_percentiles(engine) {
        let database = TestDatabase::create(engine).await;
        let calls = CallStore::open(database.location()).await.unwrap();
        let (acme, server) = (OrganizationId::generate(), ServerId::generate());
        let mut records: Vec<_> = (1..=100).map(|number| CallRecord {
            server: Some(server),
            outcome: if number > 98 { CallOutcome::Timeout } else { CallOutcome::Ok },
            duration_us: (number * 37 % 100 + 1) * 1000,
            ..record(acme, 23)
        }).collect();
        records.push(CallRecord { server: Some(server), outcome: CallOutcome::Cancelled, duration_us: 7, ..record(acme, 24) });
        records.push(record(acme, 24));
        records.push(CallRecord { server: Some(server), ..record(acme, 1) });
        calls.insert(&mut records.clone()).await.unwrap();
        let filter = CallFilter { server: Some(server), ..CallFilter::default() };
        let buckets = calls.buckets(acme, &filter, at(20), 2 * HOUR_MS).await.unwrap();
        assert_eq!(buckets, [
            CallBucket { at: at(22), count: 100, errors: 2, p50_us: 50_000, p95_us: 95_000, p99_us: 99_000 },
            CallBucket { at: at(24), count: 1, errors: 0, p50_us: 7, p95_us: 7, p99_us: 7 },
        ]);
        let counts = calls.counts(acme, &CallFilter::default(), at(23), 60_000).await.unwrap();
        let count = |at, outcome, count| CallCount { at, outcome, count };
        assert_eq!(counts, [
            count(at(23), CallOutcome::Ok, 98),
            count(at(23), CallOutcome::Timeout, 2),
            count(at(24), CallOutcome::Cancelled, 1),
            count(at(24), CallOutcome::ToolError, 1),
        ]);
        calls.close().await;
    }

    async fn old_days_are_forgotten_whole_and_the_rest_stays(engine) {
        let database = TestDatabase::create(engine).await;
        let calls = CallStore::open(database.location()).await.unwrap();
        let acme = OrganizationId::generate();
        let records: Vec<_> = (0..72).map(|hour| record(acme, hour)).collect();
        calls.insert(&mut records.clone()).await.unwrap();
        assert_eq!(calls.forget_before(at(30)).await.unwrap(), 1, "only the first day ended before");
        assert_eq!(calls.list(acme, &CallFilter::default(), at(0), None, 500).await.unwrap().len(), 48);
        assert_eq!(calls.forget_before(at(30)).await.unwrap(), 0);
        calls.insert(&mut vec![record(acme, 1)]).await.unwrap();
        assert_eq!(calls.list(acme, &CallFilter::default(), at(0), None, 500).await.unwrap().len(), 49, "a late record finds its day again");
        calls.close().await;
    }

    async fn two_that_write_the_same_new_day_at_once_both_succeed(engine) {
        let database = TestDatabase::create(engine).await;
        let acme = OrganizationId::generate();
        let writers = (0..4).map(|_| {
            let location = database.location().clone();
            tokio::spawn(async move {
                let calls = CallStore::open(&location).await.unwrap();
                let records: Vec<_> = (0..600).map(|_| record(acme, 1)).collect();
                calls.insert(&mut records.clone()).await.unwrap();
                calls.close().await;
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let calls = CallStore::open(database.location()).await.unwrap();
        let mut cursor = None;
        let mut count = 0;
        loop {
            let page = calls.list(acme, &CallFilter::default(), at(0), cursor, 500).await.unwrap();
            let Some(last) = page.last() else { break };
            cursor = Some(last.cursor);
            count += page.len();
        }
        assert_eq!(count, 2400);
        calls.close().await;
    }

    async fn more_records_than_the_bound_go_by_whole_days_and_then_from_the_beginning_of_the_newest(engine) {
        let database = TestDatabase::create(engine).await;
        let calls = CallStore::open(database.location()).await.unwrap();
        let acme = OrganizationId::generate();
        let mut records: Vec<_> = (0..72).map(|hour| record(acme, hour)).collect();
        calls.insert(&mut records).await.unwrap();
        assert!(records.is_empty(), "what was written is taken away");
        let left = async || calls.list(acme, &CallFilter::default(), at(0), None, 100).await.unwrap();
        assert_eq!(calls.keep_at_most(72).await.unwrap(), 0);
        assert_eq!(calls.keep_at_most(60).await.unwrap(), 24);
        assert_eq!(left().await.len(), 48);
        assert_eq!(calls.keep_at_most(20).await.unwrap(), 30);
        let left = left().await;
        assert_eq!((left.len(), left[17].record.at), (18, at(54)));
        assert_eq!(calls.keep_at_most(20).await.unwrap(), 0);
        calls.close().await;
    }

    async fn what_a_failure_leaves_was_not_written(engine) {
        let database = TestDatabase::create(engine).await;
        let calls = CallStore::open(database.location()).await.unwrap();
        let acme = OrganizationId::generate();
        // The second day cannot be written.
        let day = at(24).to_string()[..10].to_owned();
        match database.location() {
            Location::Sqlite(path) => std::fs::create_dir(path.with_file_name("calls").join(format!("{day}.db"))).unwrap(),
            Location::Postgres(_) => {
                execute(database.location(), &format!("CREATE TABLE calls_{} (no INTEGER)", day.replace('-', ""))).await;
            }
        }
        let mut records: Vec<_> = [30, 1, 31, 2].map(|hour| record(acme, hour)).into();
        calls.insert(&mut records).await.unwrap_err();
        assert_eq!(records.iter().map(|record| record.at).collect::<Vec<_>>(), [at(30), at(31)]);
        match database.location() {
            Location::Sqlite(path) => std::fs::remove_dir(path.with_file_name("calls").join(format!("{day}.db"))).unwrap(),
            Location::Postgres(_) => execute(database.location(), &format!("DROP TABLE calls_{}", day.replace('-', ""))).await,
        }
        // As another process would find it.
        let calls = CallStore::open(database.location()).await.unwrap();
        calls.insert(&mut records).await.unwrap();
        assert_eq!(calls.list(acme, &CallFilter::default(), at(0), None, 10).await.unwrap().len(), 4);
        calls.close().await;
    }
}

#[tokio::test]
async fn a_damaged_or_removed_file_of_a_day_stands_in_nobodys_way() {
    let database = TestDatabase::create(crate::world::Engine::Sqlite).await;
    let Location::Sqlite(path) = database.location() else { unreachable!() };
    let dir = path.parent().unwrap().join("calls");
    let acme = OrganizationId::generate();
    let calls = CallStore::open(database.location()).await.unwrap();
    calls.insert(&mut vec![record(acme, 1), record(acme, 30), record(acme, 60)]).await.unwrap();
    calls.close().await;
    let damaged = dir.join("2026-11-21.db");
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", damaged.display()));
    }
    std::fs::write(&damaged, vec![7; 9000]).unwrap();

    let calls = CallStore::open(database.location()).await.unwrap();
    let all = async || calls.list(acme, &CallFilter::default(), at(0), None, 10).await.unwrap().len();
    assert_eq!(all().await, 2);
    let aside = std::fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let aside: Vec<_> = aside.filter(|name| name.starts_with("2026-11-21.db.damaged-")).collect();
    assert_eq!(aside.len(), 1, "it is kept for whoever can read it: {aside:?}");
    assert_eq!(std::fs::read(dir.join(&aside[0])).unwrap(), vec![7; 9000]);
    // The day goes on in a file of its own, and what was kept goes with its day.
    calls.insert(&mut vec![record(acme, 31)]).await.unwrap();
    assert_eq!(all().await, 3);
    assert_eq!(calls.buckets(acme, &CallFilter::default(), at(0), HOUR_MS).await.unwrap().len(), 3);
    calls.forget_before(at(50)).await.unwrap();
    assert!(!dir.join(&aside[0]).exists());

    // Removed while it is in use: what comes after is in a new one.
    std::fs::remove_dir_all(&dir).unwrap();
    calls.insert(&mut vec![record(acme, 61)]).await.unwrap();
    assert!(dir.join("2026-11-22.db").exists());
    assert_eq!(all().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_day_is_set_aside_once_however_many_find_it_and_what_they_write_is_kept() {
    let database = TestDatabase::create(crate::world::Engine::Sqlite).await;
    let Location::Sqlite(path) = database.location() else { unreachable!() };
    let dir = path.parent().unwrap().join("calls");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("2026-11-21.db"), vec![7; 9000]).unwrap();
    let acme = OrganizationId::generate();
    let calls = CallStore::open(database.location()).await.unwrap();
    let all = async || calls.list(acme, &CallFilter::default(), at(0), None, 100).await.unwrap().len();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let calls = calls.clone();
            tokio::spawn(async move {
                calls.insert(&mut vec![record(acme, 30)]).await.unwrap();
                calls.list(acme, &CallFilter::default(), at(0), None, 100).await.unwrap().len()
            })
        })
        .collect();
    for writer in writers {
        assert!(writer.await.unwrap() > 0, "each reads at least what it wrote");
    }
    assert_eq!(all().await, 8);
    let names = std::fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let aside: Vec<_> = names.filter(|name| name.contains(".damaged-")).collect();
    assert_eq!(aside, ["2026-11-21.db.damaged-1"]);
    calls.close().await;
}
