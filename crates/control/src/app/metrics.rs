//! What a server did and used: its calls summed up by the store, and what its instances used as their agents told.

use toolyard_store::CallFilter;
use toolyard_types::agent::Usage;
use toolyard_types::api::activity::{CallBucket, InstanceResources, MetricsWindow, ResourceSample, ServerMetrics};
use toolyard_types::{Name, Timestamp};

use super::servers::unknown;
use crate::{Caller, Control, Result};

/// The metrics of one server.
pub(crate) async fn of_server(
    control: &Control,
    caller: &Caller,
    name: &Name,
    window: MetricsWindow,
) -> Result<ServerMetrics> {
    let tx = control.store().org_read(caller.organization).await?;
    let row = tx.server(name).await?.filter(|row| !row.deleted).ok_or_else(|| unknown(name))?;
    let live = tx.live_instances(&[row.id]).await?;
    let toolboxes = tx.toolboxes().await?;
    drop(tx);
    let (bucket_seconds, until) = (window.bucket_seconds(), control.clock().now());
    let bucket_ms = i64::from(bucket_seconds) * 1000;
    // As many whole stretches as fit, the one that is not over included.
    let stretches = i64::from(window.seconds() / bucket_seconds);
    let since = Timestamp::from_ms((until.as_ms().div_euclid(bucket_ms) - stretches + 1) * bucket_ms);
    let filter = CallFilter { server: Some(row.id), ..CallFilter::default() };
    let calls = control.calls().store().buckets(caller.organization, &filter, since, bucket_ms).await?;
    let resources = live
        .iter()
        .map(|instance| {
            let samples = samples(&control.fleet().samples_of(instance.toolbox, instance.id, until));
            InstanceResources {
                instance: instance.id,
                toolbox: toolboxes.iter().find(|it| it.id == instance.toolbox).map(|it| it.name.clone()),
                since: samples.first().map(|sample| sample.at),
                samples,
            }
        })
        .collect();
    let calls = calls
        .into_iter()
        .map(|it| CallBucket {
            at: it.at,
            count: it.count,
            errors: it.errors,
            p50_us: it.p50_us,
            p95_us: it.p95_us,
            p99_us: it.p99_us,
        })
        .collect();
    Ok(ServerMetrics { window, since, until, bucket_seconds, calls, resources })
}

fn samples(usages: &[Usage]) -> Vec<ResourceSample> {
    let before = std::iter::once(None).chain(usages.iter().map(Some));
    before
        .zip(usages)
        .map(|(before, usage)| ResourceSample {
            at: usage.at,
            memory_bytes: usage.memory_bytes,
            cpu: before.and_then(|before| busy(before, usage)),
            processes: usage.processes,
        })
        .collect()
}

/// Processors kept busy between two samples; unknown when the process was started again in between.
fn busy(before: &Usage, after: &Usage) -> Option<f64> {
    let used_ms = u32::try_from(after.cpu_ms.checked_sub(before.cpu_ms)?).ok()?;
    let took_ms = u32::try_from(after.at.since(before.at).as_millis()).ok().filter(|took| *took > 0)?;
    Some(f64::from(used_ms) / f64::from(took_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(at_ms: i64, cpu_ms: u64) -> Usage {
        Usage { memory_bytes: 1, cpu_ms, processes: 1, at: Timestamp::from_ms(at_ms) }
    }

    #[test]
    fn the_processor_share_is_what_was_used_between_two_samples() {
        let samples = samples(&[usage(0, 100), usage(20_000, 5_100), usage(40_000, 50)]);
        let shares: Vec<_> = samples.iter().map(|sample| sample.cpu).collect();
        assert_eq!(shares, [None, Some(0.25), None]);
    }
}
