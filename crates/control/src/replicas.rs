//! The replicas of this control plane on one store: each tells that it is there, hears of the others, has agents link
//! to all of them, and reaches toolboxes by way of another one while its own link is missing.

use std::time::Duration;

use toolyard_link::tls::renew_at;
use toolyard_store::ReplicaRow;
use toolyard_types::{ReplicaId, Timestamp};

use crate::{Control, ControlError, Result};

/// How often a replica tells that it is there.
const EVERY: Duration = Duration::from_secs(2);
/// One that was silent for longer is taken for gone. Clocks of replicas may differ by a few seconds.
const SILENT: Duration = Duration::from_secs(15);
const FORGOTTEN: Duration = Duration::from_secs(3600);
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Tells and hears until everything ends. One process has a SQLite file for itself.
pub(crate) async fn keep(control: Control) {
    if control.store().backend_name() == "sqlite" {
        return;
    }
    let id = control.replica();
    let mut own = Own { id, started_at: control.clock().now(), renew_at: Timestamp::default() };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = control.stopping().cancelled() => break,
            _ = ticks.tick() => {}
        }
        if let Err(error) = control.in_time(own.tell_and_hear(&control)).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "hearing of other replicas is put off");
        }
    }
    let leaving = async {
        let tx = control.store().system("telling that this replica ends").await?;
        tx.remove_replica(id).await?;
        tx.commit().await
    };
    if let Err(error) = leaving.await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the other replicas take this one for gone later");
    }
}

struct Own {
    id: ReplicaId,
    started_at: Timestamp,
    renew_at: Timestamp,
}

impl Own {
    async fn tell_and_hear(&mut self, control: &Control) -> Result<()> {
        // Set once the listener is bound.
        let Some(address) = control.fleet().agent_addresses().into_iter().next() else { return Ok(()) };
        let now = control.clock().now();
        let row = ReplicaRow {
            id: self.id,
            address,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            seen_at: now,
        };
        let tx = control.store().system("telling that this replica is there").await?;
        tx.put_replica(&row).await?;
        tx.trim_replicas(now.minus(FORGOTTEN)).await?;
        let there = tx.replicas(now.minus(SILENT)).await?;
        tx.commit().await?;
        metrics::gauge!("toolyard_replicas").set(u32::try_from(there.len()).unwrap_or(u32::MAX));
        self.renew(control, now)?;
        let (mut all, mut others) = (Vec::new(), Vec::new());
        for replica in there {
            if replica.id != self.id && replica.address != row.address {
                others.push(replica.address.clone());
            }
            if !all.contains(&replica.address) {
                all.push(replica.address);
            }
        }
        let replicas = control.fleet().replicas();
        replicas.set(&others).map_err(ControlError::internal("reaching the other replicas"))?;
        // The only gateway is where an agent syncs: it need not be told.
        control.set_links(if others.is_empty() { Vec::new() } else { all });
        Ok(())
    }

    fn renew(&mut self, control: &Control, now: Timestamp) -> Result<()> {
        if now < self.renew_at {
            return Ok(());
        }
        let doing = "making this replica's certificate";
        let until = now.plus(CERTIFICATE_LIFETIME);
        let made = control.authority().issue_replica(self.id, now, until).map_err(ControlError::internal(doing))?;
        control.fleet().replicas().set_certificate(made.0, made.1).map_err(ControlError::internal(doing))?;
        self.renew_at = renew_at(now, until);
        Ok(())
    }
}
