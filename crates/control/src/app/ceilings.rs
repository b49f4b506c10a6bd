//! How much one server may be given, whoever asks for it.

use toolyard_types::FieldError;
use toolyard_types::spec::RevisionSpec;

use crate::limits::ServerCeilings;
use crate::{ControlError, Result};

/// Checks that nothing is raised above its ceiling. What a server has from before stays, and may be lowered.
///
/// # Errors
/// `validation_failed`, naming each ceiling and the setting that raises it.
pub(super) fn check(
    ceilings: &ServerCeilings,
    (spec, replicas): (&RevisionSpec, u32),
    before: Option<(&RevisionSpec, u32)>,
) -> Result<()> {
    let errors: Vec<_> = rows(ceilings, spec, replicas)
        .into_iter()
        .zip(before.map_or([0; 5], |(spec, replicas)| rows(ceilings, spec, replicas).map(|row| row.asked)))
        .filter(|(row, had)| row.most > 0 && row.asked > row.most && row.asked > *had)
        .map(|(row, _)| FieldError { field: row.field.to_owned(), message: row.message() })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(ControlError::Invalid(errors)) }
}

struct Row {
    field: &'static str,
    setting: &'static str,
    asked: u64,
    most: u64,
}

impl Row {
    fn message(&self) -> String {
        let most = match self.field.ends_with("_bytes") {
            true => format!("{} MiB", self.most >> 20),
            false => self.most.to_string(),
        };
        let setting = self.setting;
        // Only no limit at all asks for that much.
        if self.asked == u64::MAX {
            return format!(
                "cannot be without a limit here: at most {most}; whoever runs Toolyard raises that with `{setting}`, \
                 or lifts it with 0"
            );
        }
        format!("must be at most {most} here; whoever runs Toolyard raises that with `{setting}`")
    }
}

fn rows(ceilings: &ServerCeilings, spec: &RevisionSpec, replicas: u32) -> [Row; 5] {
    let row = |field, setting, asked, most| Row { field, setting, asked, most };
    let bytes = |mib: u32| u64::from(mib) << 20;
    let limits = &spec.limits;
    let disk_bytes = if limits.disk_bytes == 0 { u64::MAX } else { limits.disk_bytes };
    // Where there are no copies the number of them says nothing.
    let copies = if spec.instancing.mode.is_shared() { 0 } else { spec.instancing.max_copies };
    [
        row("limits.memory_bytes", "server_max_memory_mib", limits.memory_bytes, bytes(ceilings.memory_mib)),
        row("limits.processes", "server_max_processes", limits.processes.into(), ceilings.processes.into()),
        row("limits.disk_bytes", "server_max_disk_mib", disk_bytes, bytes(ceilings.disk_mib)),
        row("replicas", "server_max_replicas", replicas.into(), ceilings.replicas.into()),
        row("instancing.max_copies", "server_max_copies", copies.into(), ceilings.copies.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolyard_types::server_json::ServerJson;

    use crate::app::expand::{Wish, choose, expand};

    fn spec(change: impl FnOnce(&mut Wish)) -> RevisionSpec {
        let document: ServerJson = serde_json::from_value(serde_json::json!({
            "name": "a/b", "description": "d", "version": "1",
            "packages": [{ "registryType": "npm", "identifier": "pkg", "version": "1.0.0", "transport": { "type": "stdio" } }],
        }))
        .unwrap();
        let mut wish = Wish::new(None, None, choose(&document, None).unwrap());
        change(&mut wish);
        expand(&wish).unwrap()
    }

    fn fields(result: Result<()>) -> Vec<String> {
        match result {
            Ok(()) => Vec::new(),
            Err(ControlError::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_server_has_stays_and_may_be_lowered_but_is_not_raised() {
        let ceilings = ServerCeilings { memory_mib: 1024, processes: 100, disk_mib: 0, replicas: 2, copies: 10 };
        let memory = |gib: u64| {
            spec(|wish| {
                (wish.limits.memory_bytes, wish.limits.processes) = (gib << 30, 50);
                wish.limits.disk_bytes = 1 << 40;
            })
        };
        assert!(fields(check(&ceilings, (&memory(1), 2), None)).is_empty());
        assert_eq!(fields(check(&ceilings, (&memory(2), 3), None)), ["limits.memory_bytes", "replicas"]);
        let had = memory(4);
        for lower in [4, 3] {
            assert!(fields(check(&ceilings, (&memory(lower), 5), Some((&had, 5)))).is_empty());
        }
        assert_eq!(fields(check(&ceilings, (&memory(5), 5), Some((&had, 4)))), ["limits.memory_bytes", "replicas"]);
        let unlimited = spec(|wish| wish.limits.disk_bytes = 0);
        let disk = ServerCeilings { disk_mib: 1024, ..ServerCeilings::default() };
        let refused = check(&disk, (&unlimited, 1), None);
        let told = format!("{refused:?}");
        assert!(told.contains("cannot be without a limit here: at most 1024 MiB"), "{told}");
        assert_eq!(fields(refused), ["limits.disk_bytes"]);
        assert!(fields(check(&disk, (&unlimited, 1), Some((&unlimited, 1)))).is_empty());
        assert!(fields(check(&ServerCeilings { memory_mib: 0, ..ceilings }, (&memory(64), 1), None)).is_empty());
    }
}
