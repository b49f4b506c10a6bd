//! There are no control groups here; limits are watched instead.

use toolyard_types::spec::Limits;

/// The groups of one instance: none.
#[derive(Debug, Default)]
pub(crate) struct Cgroup;

impl Cgroup {
    pub(crate) fn create(_name: &str, _limits: &Limits) -> Self {
        Self
    }

    pub(crate) fn limits_memory(&self) -> bool {
        false
    }

    pub(crate) fn limits_processes(&self) -> bool {
        false
    }

    pub(crate) fn limits_cpu(&self) -> bool {
        false
    }

    pub(crate) fn add(&mut self, _pid: i32) {}

    pub(crate) fn processes(&self) -> Option<Vec<i32>> {
        None
    }

    pub(crate) fn memory_kills(&self) -> u64 {
        0
    }

    pub(crate) fn remove(&self) {}
}
