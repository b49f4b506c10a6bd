//! Faults that the built program must get over: full disks, frozen databases, dead peers, hanging servers. Each test says
//! what it did, what should happen and what happened (`Row`); `make faults` writes them to `docs/reports/faults.md`,
//! with longer loops than `make test` has time for.

mod agent;
mod command_line;
mod crash;
mod gateway;
mod links;
mod readiness;
mod remote;
mod remotes;
mod replicas;
mod servers;
mod shutdown;
mod store;
mod upgrade;
