//! containerd's content store over its gRPC socket; implements [`coracle_oci::image::ContentStore`].
//!
//! The trait is synchronous, since the room that uses it knows no runtime. The calls are made from
//! a blocking thread and carried out by the shim's one event loop, which keeps running meanwhile.
//! A connection lives as long as the [`ContainerdContent`] value: an idle shim holds none.

pub(crate) mod unpacked;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1::{
    GetContainerRequest, GetImageRequest, InfoRequest, ReadContentRequest,
    containers_client::ContainersClient, content_client::ContentClient,
    images_client::ImagesClient,
};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Status, metadata::MetadataValue};
use coracle_oci::digest::Digest;
use coracle_oci::image::{ContentStore, Descriptor, ImageRef};
use coracle_oci::{DigestError, StoreError};
use tokio::runtime::Handle;

/// containerd answers from local disk; longer than this means that it hangs.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// The header that selects containerd's namespace.
const NAMESPACE_HEADER: &str = "containerd-namespace";

/// containerd, as seen from one Create call.
#[derive(Debug)]
pub struct ContainerdContent {
    runtime: Handle,
    channel: Channel,
    namespace: MetadataValue<containerd_client::tonic::metadata::Ascii>,
}

/// containerd cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody told where containerd listens.
    #[error("no address of containerd: the flag -address and GRPC_ADDRESS are both empty")]
    NoAddress,
    /// The socket does not answer.
    #[error("connect to containerd at {path}: {}", innermost(source.as_ref()), path = path.display())]
    Connect {
        /// containerd's main socket.
        path: PathBuf,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The namespace cannot be a header.
    #[error("namespace {0:?} cannot be sent to containerd")]
    Namespace(String),
}

/// The transport says only that it failed; the kernel's word is at the end of the chain.
fn innermost<'e>(error: &'e (dyn std::error::Error + 'static)) -> &'e dyn std::error::Error {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

impl ContainerdContent {
    /// Connects. Call from a thread that may block, never from the event loop.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(
        runtime: Handle,
        address: Option<&Path>,
        namespace: &str,
    ) -> Result<Self, ConnectError> {
        let path = address.ok_or(ConnectError::NoAddress)?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ConnectError::Connect {
            path: path.to_owned(),
            source,
        };
        let header = namespace.parse();
        let namespace = header.map_err(|_| ConnectError::Namespace(namespace.to_owned()))?;
        let channel = runtime
            .block_on(async {
                tokio::time::timeout(CALL_TIMEOUT, containerd_client::connect(path)).await
            })
            .map_err(|elapsed| failed(elapsed.into()))?
            .map_err(|error| failed(error.into()))?;
        Ok(Self { runtime, channel, namespace })
    }

    /// The image of a container, from its record; `None` when the record names none, as Docker's
    /// graph drivers leave it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn image_of(&self, container: &str) -> Result<Option<ImageRef>, StoreError> {
        let object = format!("container {container}");
        let request = self.request(GetContainerRequest { id: container.to_owned() });
        let answer = self.call(&object, async {
            ContainersClient::new(self.channel.clone()).get(request).await
        })?;
        let record = answer.into_inner().container.unwrap_or_default();
        Ok(ImageRef::new(&record.image))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(NAMESPACE_HEADER, self.namespace.clone());
        request
    }

    fn call<T>(
        &self,
        object: &str,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, StoreError> {
        let failed = |reason: String| StoreError::Failed { object: object.to_owned(), reason };
        self.runtime
            .block_on(async { tokio::time::timeout(CALL_TIMEOUT, work).await })
            .map_err(|_| failed(format!("no answer within {} s", CALL_TIMEOUT.as_secs())))?
            .map_err(|status| match status.code() {
                Code::NotFound => StoreError::NotFound(object.to_owned()),
                _ => failed(status.message().to_owned()),
            })
    }

    /// Collects a blob whose size was checked before; the stream is held to it.
    async fn collect(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Status> {
        let request =
            self.request(ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 });
        let mut stream = ContentClient::new(self.channel.clone()).read(request).await?.into_inner();
        let capacity = usize::try_from(size).map_err(|_| Status::out_of_range("too large"))?;
        let mut bytes = Vec::with_capacity(capacity);
        while let Some(piece) = stream.message().await? {
            if bytes.len() + piece.data.len() > capacity {
                return Err(Status::out_of_range("the blob is longer than containerd said"));
            }
            bytes.extend_from_slice(&piece.data);
        }
        Ok(bytes)
    }
}

impl ContentStore for ContainerdContent {
    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let object = digest.to_string();
        let request = self.request(InfoRequest { digest: object.clone() });
        let info = self.call(&object, async {
            ContentClient::new(self.channel.clone()).info(request).await
        })?;
        let size = info.into_inner().info.unwrap_or_default().size;
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if size > limit {
            return Err(StoreError::TooLarge { object, size, limit });
        }
        self.call(&object, self.collect(digest, size))
    }

    fn image_target(&self, name: &str) -> Result<Descriptor, StoreError> {
        let object = format!("image {name}");
        let request = self.request(GetImageRequest { name: name.to_owned() });
        let answer = self
            .call(&object, async { ImagesClient::new(self.channel.clone()).get(request).await })?;
        let target = answer.into_inner().image.and_then(|image| image.target).unwrap_or_default();
        let digest = target.digest.parse().map_err(|error: DigestError| StoreError::Failed {
            object,
            reason: error.to_string(),
        })?;
        Ok(Descriptor {
            media_type: target.media_type,
            digest,
            size: u64::try_from(target.size).unwrap_or(u64::MAX),
        })
    }
}
