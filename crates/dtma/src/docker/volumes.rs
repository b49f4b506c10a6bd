//! Named volumes: what of a server outlives its containers.
//!
//! A volume belongs to this agent and one server, as its labels say, and every revision of the server that asks for
//! its name finds the same one. It goes when the control plane no longer knows the server, and not a moment earlier.
//!
//! The server's user must own it, and nothing that runs may be root to see to that: the engine itself unpacks an
//! archive of directories, each with its owner, into a container that is made with the volumes and never started. So
//! no image needs a `chown`, and the path of the volume on the host is not looked at. It is a second container because
//! the engine unpacks nothing above a mount of one whose root is read-only; and it comes after the server's, because
//! the engine fills an empty volume from the image, owner included. What lies in the volume keeps its owners.

use std::collections::HashMap;

use bollard::errors::Error as ApiError;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest};
use bollard::query_parameters::{
    ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::FutureExt;
use toolyard_types::ServerId;
use toolyard_types::agent::{DesiredInstance, Failure};
use toolyard_types::spec::Volume;
use toolyard_types::state::Reason;

use super::clients::Removal;
use super::keeper::not_started;
use super::{Docker, LABEL_AGENT, LABEL_ORGANIZATION, LABEL_SERVER, MAX_AT_ONCE, engine_failure, is_missing, short};
use crate::packages::failure;

/// The name that a server gave a volume.
const LABEL_VOLUME: &str = "dev.toolyard.volume";
/// One block of an archive.
const BLOCK: usize = 512;

/// The volumes of a server, as its container has them.
///
/// # Errors
/// When a path cannot be one.
pub(super) fn mounts(docker: &Docker, desired: &DesiredInstance) -> Result<Vec<Mount>, Failure> {
    let volumes = &desired.spec.volumes;
    if volumes.len() > Volume::MOST {
        return Err(failure(Reason::ConfigInvalid, format!("it has more than {} volumes", Volume::MOST)));
    }
    let mount = |volume: &Volume| {
        let shown = toolyard_types::name::printable(&volume.path);
        volume.check_path().map_err(|why| failure(Reason::ConfigInvalid, format!("volume path `{shown}` {why}")))?;
        Ok(Mount {
            typ: Some(MountType::VOLUME),
            source: Some(name(docker, desired.server, volume)),
            target: Some(volume.path.clone()),
            read_only: Some(false),
            // Should it go before the container is made, the engine makes it again as it was.
            volume_options: Some(MountVolumeOptions {
                labels: Some(labels(docker, desired, volume)),
                ..Default::default()
            }),
            ..Default::default()
        })
    };
    volumes.iter().map(mount).collect()
}

/// Makes the volumes that are not there yet.
///
/// # Errors
/// When the engine does not.
pub(super) async fn make(docker: &Docker, desired: &DesiredInstance) -> Result<(), Failure> {
    for volume in &desired.spec.volumes {
        let request = VolumeCreateRequest {
            name: Some(name(docker, desired.server, volume)),
            labels: Some(labels(docker, desired, volume)),
            ..Default::default()
        };
        docker.api.create_volume(request).await.map_err(|error| engine_failure(&error))?;
    }
    Ok(())
}

/// Gives a server's volumes to the user of its container, which was made of `image` and not started.
///
/// # Errors
/// When the engine refuses.
pub(super) async fn hand_over(
    docker: &Docker,
    desired: &DesiredInstance,
    (image, user): (Option<String>, Option<String>),
) -> Result<(), Failure> {
    let volumes = &desired.spec.volumes;
    if volumes.is_empty() {
        return Ok(());
    }
    let unknown = || failure(Reason::Internal, "the user of a container with volumes is not known by its number");
    let owner = user.as_deref().and_then(numbers).ok_or_else(unknown)?;
    let places: Vec<String> = (0..volumes.len()).map(|number| format!("toolyard-volume-{number}")).collect();
    let mounts = volumes.iter().zip(&places).map(|(volume, place)| Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name(docker, desired.server, volume)),
        target: Some(format!("/{place}")),
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
        ..Default::default()
    });
    let body = ContainerCreateBody {
        image,
        entrypoint: Some(vec!["/never-started".to_owned()]),
        labels: Some(docker.container_labels()),
        host_config: Some(HostConfig {
            cap_drop: Some(vec!["ALL".into()]),
            network_mode: Some("none".into()),
            mounts: Some(mounts.collect()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let made = docker.api.create_container(None, body).await.map_err(|error| not_started(&error))?;
    let mut removal = Removal::of(&docker.api, &made.id);
    let archive = bollard::body_full(Bytes::from(directories(&places, owner)));
    let options = UploadToContainerOptionsBuilder::new().path("/").build();
    let uploaded = docker.api.upload_to_container(&made.id, Some(options), archive).await;
    removal.now().await;
    uploaded.map_err(|error| engine_failure(&error))
}

/// Removes the volumes of servers that are not `kept`, asked once a volume was found. One that something still uses stays
/// for now.
pub(super) async fn collect_garbage(docker: &Docker, kept: &(dyn Fn(ServerId) -> bool + Send + Sync)) {
    let labels = [format!("{LABEL_AGENT}={}", docker.agent), LABEL_VOLUME.to_owned()];
    let filters = HashMap::from([("label", labels.to_vec())]);
    let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let found = match docker.api.list_volumes(Some(options)).await {
        Ok(found) => found.volumes.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "list volumes");
            return;
        }
    };
    let api = &short(&docker.api);
    let remove = |volume: bollard::models::Volume| async move {
        // One whose label cannot be read is nobody's that we know, and is not ours to remove.
        let server = volume.labels.get(LABEL_SERVER).and_then(|server| server.parse::<ServerId>().ok());
        let Some(server) = server.filter(|server| !kept(*server)) else { return };
        let options = RemoveVolumeOptionsBuilder::new().force(false).build();
        match api.remove_volume(&volume.name, Some(options)).await {
            Ok(()) => tracing::info!(server.id = %server, volume = volume.name, "removed a deleted server's volume"),
            Err(error) if is_missing(&error) => {}
            Err(ApiError::DockerResponseServerError { status_code: 409, .. }) => {
                tracing::debug!(volume = volume.name, "a volume stays for now; a container uses it");
            }
            Err(error) => tracing::warn!(volume = volume.name, %error, "remove a volume"),
        }
    };
    super::all(found.into_iter().map(|volume| remove(volume).boxed()).collect(), MAX_AT_ONCE).await;
}

fn name(docker: &Docker, server: ServerId, volume: &Volume) -> String {
    format!("toolyard-{}-{server}-{}", docker.agent, volume.name)
}

fn labels(docker: &Docker, desired: &DesiredInstance, volume: &Volume) -> HashMap<String, String> {
    let mut labels = docker.labels();
    labels.extend([
        (LABEL_ORGANIZATION.to_owned(), desired.organization.to_string()),
        (LABEL_SERVER.to_owned(), desired.server.to_string()),
        (LABEL_VOLUME.to_owned(), volume.name.to_string()),
    ]);
    labels
}

/// `uid:gid`.
fn numbers(user: &str) -> Option<(u32, u32)> {
    let (uid, gid) = user.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// An archive of empty directories, each for its owner only.
fn directories(names: &[String], owner: (u32, u32)) -> Vec<u8> {
    let mut archive: Vec<u8> = names.iter().flat_map(|name| directory(name, owner)).collect();
    // Two empty blocks are the end.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn directory(name: &str, (uid, gid): (u32, u32)) -> [u8; BLOCK] {
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        header.iter_mut().skip(at).zip(bytes).for_each(|(place, byte)| *place = *byte);
    };
    put(0, name.as_bytes());
    put(100, b"0000700\0");
    // In base 256, as GNU writes numbers that are too large for octal digits.
    for (at, id) in [(108, uid), (116, gid)] {
        let mut number = [0x80, 0, 0, 0, 0, 0, 0, 0];
        number.iter_mut().skip(4).zip(id.to_be_bytes()).for_each(|(place, byte)| *place = byte);
        put(at, &number);
    }
    put(124, b"00000000000\0");
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"5");
    put(257, b"ustar  \0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    header.iter_mut().skip(148).zip(sum.bytes()).for_each(|(place, byte)| *place = byte);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_two_numbers() {
        assert_eq!(numbers("2100000000:2100000000"), Some((2_100_000_000, 2_100_000_000)));
        assert!(["1000", "1000:staff", "node:1", ""].iter().all(|user| numbers(user).is_none()));
    }

    #[test]
    fn tar_itself_reads_the_archive() {
        use std::io::Write;
        let mut child = std::process::Command::new("tar")
            .args(["-tvf", "-", "--numeric-owner"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("tar");
        let mut stdin = child.stdin.take().expect("a pipe");
        let names = ["a".to_owned(), "b".to_owned()];
        stdin.write_all(&directories(&names, (2_100_000_001, 7))).expect("written");
        drop(stdin);
        let listed = child.wait_with_output().expect("it ends");
        let listed = String::from_utf8(listed.stdout).expect("text");
        let lines: Vec<_> = listed.lines().collect();
        assert!(lines.len() == 2 && lines[0].starts_with("drwx------ 2100000001/7 "), "{listed}");
        assert!(lines[0].ends_with(" a") && lines[1].ends_with(" b"), "{listed}");
    }
}
