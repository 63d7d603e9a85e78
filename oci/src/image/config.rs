//! What an image says of the containers that are made from it; OCI image spec, `config.md`.

use serde::Deserialize;

use super::fault::LayerFault;
use super::manifest;
use super::store::{ContentStore, ImageRef};
use crate::digest::Digest;
use crate::error::ImageError;

/// An image's configuration, as far as it tells which module its containers run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// The blob that it was read from.
    pub digest: Digest,
    /// Entry point and its arguments; artifacts have none.
    pub args: Vec<String>,
    /// Environment, `KEY=value`.
    pub env: Vec<String>,
    /// Working directory; empty when the image names none.
    pub cwd: String,
}

/// The configuration of the manifest that [`super::locate`] looks into first.
///
/// # Errors
/// [`ImageError::Config`] when the image or a document of it is not there, too large, or not what it says.
pub fn configuration(
    store: &dyn ContentStore,
    image: &ImageRef,
) -> Result<ImageConfig, ImageError> {
    let failed = |fault| ImageError::Config(Box::new(fault));
    let (digest, bytes) = manifest::config(store, image).map_err(failed)?;
    parse(digest, &bytes).map_err(|source| failed(LayerFault::Parse { digest, source }))
}

fn parse(digest: Digest, bytes: &[u8]) -> Result<ImageConfig, serde_json::Error> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        config: Option<Execution>,
    }
    // Named as in Go, with `null` for what is left out.
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase")]
    struct Execution {
        #[serde(default)]
        entrypoint: Option<Vec<String>>,
        #[serde(default)]
        cmd: Option<Vec<String>>,
        #[serde(default)]
        env: Option<Vec<String>>,
        #[serde(default)]
        working_dir: Option<String>,
    }
    let document: Document = serde_json::from_slice(bytes)?;
    let Execution { entrypoint, cmd, env, working_dir } = document.config.unwrap_or_default();
    let mut args = entrypoint.unwrap_or_default();
    args.extend(cmd.unwrap_or_default());
    let (env, cwd) = (env.unwrap_or_default(), working_dir.unwrap_or_default());
    Ok(ImageConfig { digest, args, env, cwd })
}
