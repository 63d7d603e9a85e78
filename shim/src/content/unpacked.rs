//! Unpacked images: where containerd keeps their root file systems, and a look at one.

use std::time::{Duration, SystemTime};

use containerd_client::services::v1::snapshots::{
    RemoveSnapshotRequest, ViewSnapshotRequest, snapshots_client::SnapshotsClient,
};
use containerd_client::services::v1::{
    CreateRequest, DeleteRequest, GetImageRequest, InfoRequest, ListNamespacesRequest,
    content_client::ContentClient, images_client::ImagesClient, leases_client::LeasesClient,
    namespaces_client::NamespacesClient,
};
use containerd_client::tonic::Request;
use containerd_client::tonic::metadata::MetadataValue;
use coracle_oci::StoreError;
use coracle_oci::digest::Digest;

use super::{ContainerdContent, NAMESPACE_HEADER};
use crate::request::RootfsMount;

/// The label of a configuration that names the snapshot of its layers, by snapshotter.
const UNPACKED: &str = "containerd.io/gc.ref.snapshot.";
/// The snapshotter that nearly everybody uses.
const USUAL: &str = "overlayfs";
/// The label of a lease that tells when it ends.
const EXPIRES: &str = "containerd.io/gc.expire";
/// The header that puts what a call makes under a lease.
const LEASE_HEADER: &str = "containerd-lease";
/// How long containerd keeps what was left by a process that did not end as it should.
const LEASE: Duration = Duration::from_secs(3600);

/// A look at an unpacked image. It must be given back.
#[derive(Debug)]
pub struct View {
    /// What shows its root file system, read-only.
    pub mounts: Vec<RootfsMount>,
    snapshotter: String,
    key: String,
}

impl ContainerdContent {
    /// A view of the layers that belong to an image's configuration, under a name of the caller's; `None` when they were
    /// not unpacked.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn view(&self, config: &Digest, key: &str) -> Result<Option<View>, StoreError> {
        let Some((snapshotter, parent)) = self.unpacked(config)? else { return Ok(None) };
        let labels = [(EXPIRES.to_owned(), rfc3339(SystemTime::now() + LEASE))];
        let lease = CreateRequest { id: key.to_owned(), labels: labels.into() };
        let lease = self.request(lease);
        self.call("a lease", async {
            LeasesClient::new(self.channel.clone()).create(lease).await
        })?;
        let mut request = self.request(ViewSnapshotRequest {
            snapshotter: snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.clone(),
            ..Default::default()
        });
        if let Ok(value) = key.parse::<MetadataValue<_>>() {
            request.metadata_mut().insert(LEASE_HEADER, value);
        }
        let viewed = self.call(&format!("snapshot {parent}"), async {
            SnapshotsClient::new(self.channel.clone()).view(request).await
        });
        let mounts = match viewed {
            Ok(answer) => answer.into_inner().mounts,
            Err(error) => {
                self.end_lease(key);
                return Err(error);
            }
        };
        let mounts = mounts.into_iter().map(|mount| RootfsMount {
            kind: mount.r#type,
            source: mount.source,
            options: mount.options,
        });
        Ok(Some(View { mounts: mounts.collect(), snapshotter, key: key.to_owned() }))
    }

    /// Gives a view back. What cannot be removed goes when its lease ends.
    pub fn give_back(&self, view: &View) {
        let View { snapshotter, key, .. } = view;
        let request = RemoveSnapshotRequest { snapshotter: snapshotter.clone(), key: key.clone() };
        let request = self.request(request);
        let removed = self.call(&format!("snapshot {key}"), async {
            SnapshotsClient::new(self.channel.clone()).remove(request).await
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "view of an image left to containerd");
        }
        self.end_lease(key);
    }

    fn end_lease(&self, key: &str) {
        let request = self.request(DeleteRequest { id: key.to_owned(), sync: false });
        let ended = self.call(&format!("lease {key}"), async {
            LeasesClient::new(self.channel.clone()).delete(request).await
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "lease left to containerd");
        }
    }

    /// The snapshotter that has the layers of a configuration, and its name for them.
    fn unpacked(&self, config: &Digest) -> Result<Option<(String, String)>, StoreError> {
        let object = config.to_string();
        let request = self.request(InfoRequest { digest: object.clone() });
        let info = self.call(&object, async {
            ContentClient::new(self.channel.clone()).info(request).await
        })?;
        let labels = info.into_inner().info.unwrap_or_default().labels;
        let found = labels
            .into_iter()
            .filter_map(|(label, chain)| Some((label.strip_prefix(UNPACKED)?.to_owned(), chain)));
        // Any other one has the same files.
        Ok(found.min_by_key(|(snapshotter, _)| (snapshotter != USUAL, snapshotter.clone())))
    }

    /// Namespaces in which there is an image of that name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn namespaces_with(&self, image: &str) -> Result<Vec<String>, StoreError> {
        let all = self.call("namespaces", async {
            NamespacesClient::new(self.channel.clone()).list(ListNamespacesRequest::default()).await
        })?;
        let mut found = Vec::new();
        for namespace in all.into_inner().namespaces {
            let Ok(header) = namespace.name.parse::<MetadataValue<_>>() else { continue };
            let mut request = Request::new(GetImageRequest { name: image.to_owned() });
            request.metadata_mut().insert(NAMESPACE_HEADER, header);
            let answer = self
                .call(image, async { ImagesClient::new(self.channel.clone()).get(request).await });
            if answer.is_ok() {
                found.push(namespace.name);
            }
        }
        Ok(found)
    }
}

/// A time as containerd's labels have it, in UTC. Days are counted in eras of 400 years that begin in March.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
