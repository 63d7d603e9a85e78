//! containerd as shims ask it: what image a container is of, and what is in that.
//!
//! It keeps images and records here and nothing else: the driver takes its place towards the shims.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::{Container, CreateContainerRequest, DeleteContainerRequest};
use containerd_client::tonic::Request;

use crate::subject::{program, told};

/// containerd's namespace of the benchmark.
pub(crate) const NAMESPACE: &str = "bench";

/// containerd's socket; shims of programs in root file systems never use it.
pub(crate) fn socket() -> Result<PathBuf> {
    Ok(std::env::var_os("TESTBED_C21_SOCKET")
        .unwrap_or("/run/containerd/containerd.sock".into())
        .into())
}

/// Loads an image of `make images`.
pub(crate) fn import(file: &str) -> Result<()> {
    let mut client = Command::new(told("TESTBED_C21")?);
    client.env("TESTBED_NAMESPACE", NAMESPACE).args(["images", "import", "--no-unpack"]);
    let done = client.arg("--all-platforms").arg(program(file)?).output()?;
    ensure!(done.status.success(), "importing {file}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Records a container of an image, as a client does before it asks for a task.
pub(crate) async fn record(id: &str, image: &str) -> Result<()> {
    let mut container = Container {
        id: id.to_owned(),
        image: image.to_owned(),
        runtime: Some(Runtime { name: "io.containerd.wasm.v1".into(), options: None }),
        ..Default::default()
    };
    // It wants some spec; the one that counts is in the bundle.
    let spec = container.spec.get_or_insert_default();
    spec.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Spec".into();
    spec.value = b"{}".to_vec();
    let request = request(CreateContainerRequest { container: Some(container) })?;
    client().await?.create(request).await.with_context(|| format!("recording {id}"))?;
    Ok(())
}

/// Removes the record of a container.
pub(crate) async fn forget(id: &str) -> Result<()> {
    let request = request(DeleteContainerRequest { id: id.to_owned() })?;
    client().await?.delete(request).await.with_context(|| format!("forgetting {id}"))?;
    Ok(())
}

/// A connection for one call.
async fn client() -> Result<ContainersClient<containerd_client::tonic::transport::Channel>> {
    let channel =
        containerd_client::connect(socket()?).await.context("connecting to containerd")?;
    Ok(ContainersClient::new(channel))
}

fn request<T>(message: T) -> Result<Request<T>> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", NAMESPACE.parse()?);
    Ok(request)
}
