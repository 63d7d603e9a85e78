//! Update on the wire: new limits, as the JSON text of the OCI runtime spec's `linux.resources`.

use containerd_shim_protos::api;
use coracle_oci::SpecError;
use coracle_oci::spec::Resources;

/// The type that containerd gives the text; what stands before the last part is the registry's.
const TYPE: &str = "LinuxResources";

/// Why an Update call cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Nothing to change.
    #[error(
        "update of container {0} brings no resources: send linux.resources of the OCI runtime spec as JSON"
    )]
    Nothing(String),
    /// Limits of another system.
    #[error(
        "update of container {id} brings {found:?}: send LinuxResources of the OCI runtime spec as JSON"
    )]
    Type {
        /// The container.
        id: String,
        /// What came.
        found: String,
    },
    /// A text that is none, or a limit that cannot be.
    #[error("update of container {id}: {source}")]
    Spec {
        /// The container.
        id: String,
        /// What is wrong.
        source: SpecError,
    },
}

/// The new limits of an Update call.
///
/// # Errors
/// See [`UpdateError`].
pub fn resources(request: &api::UpdateTaskRequest) -> Result<Resources, Box<UpdateError>> {
    let id = || request.id.clone();
    let Some(any) = request.resources.as_ref().filter(|any| !any.value.is_empty()) else {
        return Err(Box::new(UpdateError::Nothing(id())));
    };
    if any.type_url.rsplit('/').next() != Some(TYPE) {
        let found = any.type_url.clone();
        return Err(Box::new(UpdateError::Type { id: id(), found }));
    }
    Resources::from_json(&any.value)
        .map_err(|source| Box::new(UpdateError::Spec { id: id(), source }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::protobuf::well_known_types::any::Any;

    fn request(kind: &str, text: &str) -> api::UpdateTaskRequest {
        let any = Any { type_url: kind.into(), value: text.into(), ..Any::default() };
        api::UpdateTaskRequest { id: "c".into(), resources: Some(any).into(), ..Default::default() }
    }

    #[test]
    fn limits_come_as_json_of_the_linux_kind() {
        let kind = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
        let limits = resources(&request(kind, r#"{"memory": {"limit": 5}}"#)).unwrap();
        assert_eq!(limits.memory.limit, Some(5));
        for (bad, word) in [
            (request(kind, ""), "no resources"),
            (api::UpdateTaskRequest { id: "c".into(), ..Default::default() }, "no resources"),
            (request("a/WindowsResources", "{}"), "WindowsResources"),
            (request(kind, "{"), "linux.resources"),
            (request(kind, r#"{"blockIO": {"weight": 1}}"#), "weight"),
        ] {
            let error = resources(&bad).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("container c"), "{word}: {error}");
        }
    }
}
