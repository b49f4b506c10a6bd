//! How this process was deployed, found out rather than configured.

use std::path::Path;

/// How Toolyard runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeploymentTarget {
    /// Started by hand or by anything unknown.
    Bare,
    /// A systemd service.
    Systemd,
    /// A container.
    Container,
    /// A pod of a cluster.
    Cluster,
}

impl DeploymentTarget {
    /// As shown in `/api/v1/version`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Systemd => "systemd",
            Self::Container => "container",
            Self::Cluster => "cluster",
        }
    }

    /// Finds out from the environment and the marker files below `root` (`/` outside tests).
    ///
    /// Kubernetes and systemd say so in the environment; Docker and Podman leave a file.
    pub(crate) fn detect(variable: impl Fn(&str) -> Option<String>, root: &Path) -> Self {
        if variable("KUBERNETES_SERVICE_HOST").is_some() {
            return Self::Cluster;
        }
        if root.join(".dockerenv").exists()
            || root.join("run/.containerenv").exists()
            || variable("container").is_some()
        {
            return Self::Container;
        }
        if variable("INVOCATION_ID").is_some() || variable("NOTIFY_SOCKET").is_some() {
            return Self::Systemd;
        }
        Self::Bare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_deployment_target_is_told_from_its_marks() {
        let dir = tempfile::tempdir().expect("a directory");
        let detect = |name: &'static str| {
            DeploymentTarget::detect(move |asked| (asked == name).then(|| "x".to_owned()), dir.path()).as_str()
        };
        assert_eq!(detect(""), "bare");
        assert_eq!(detect("INVOCATION_ID"), "systemd");
        assert_eq!(detect("container"), "container");
        assert_eq!(detect("KUBERNETES_SERVICE_HOST"), "cluster");
        std::fs::write(dir.path().join(".dockerenv"), "").expect("a file");
        assert_eq!(detect("INVOCATION_ID"), "container");
    }
}
