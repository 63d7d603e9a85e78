//! Annotations: all raw pairs, and names for those that this project acts on.

use std::collections::BTreeMap;

/// What kind of container CRI asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerType {
    /// The pod's own container, which only holds its namespaces.
    Sandbox,
    /// An ordinary container, also everything that has no pod at all.
    Container,
}

/// Which image form an annotation claims; content decides, this only explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageVariant {
    /// `compat`: a tar layer holds the module.
    Compat,
    /// `compat-smart`: as above, if the entry point looks like wasm.
    CompatSmart,
}

/// The container's annotations, sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations(BTreeMap<String, String>);

impl Annotations {
    /// Takes over raw pairs.
    #[must_use]
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// The raw value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All raw pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The first non-empty value among `keys`: engines name the same fact differently.
    fn any(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.get(key)).filter(|value| !value.is_empty())
    }

    /// Id of the pod's sandbox, by which containers of one pod share a shim.
    #[must_use]
    pub fn sandbox_id(&self) -> Option<&str> {
        self.any(&["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"])
    }

    /// Name of the pod.
    #[must_use]
    pub fn sandbox_name(&self) -> Option<&str> {
        self.any(&["io.kubernetes.cri.sandbox-name"])
    }

    /// Kubernetes namespace of the pod.
    #[must_use]
    pub fn sandbox_namespace(&self) -> Option<&str> {
        self.any(&["io.kubernetes.cri.sandbox-namespace"])
    }

    /// Name of the container within its pod.
    #[must_use]
    pub fn container_name(&self) -> Option<&str> {
        self.any(&["io.kubernetes.cri.container-name"])
    }

    /// Image reference as CRI or nerdctl wrote it down.
    #[must_use]
    pub fn image_name(&self) -> Option<&str> {
        self.any(&["io.kubernetes.cri.image-name", "nerdctl/image-name"])
    }

    /// Sandbox or container, as CRI says; a container when nothing is said.
    #[must_use]
    pub fn container_type(&self) -> ContainerType {
        let keys = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
        match self.any(&keys) {
            Some("sandbox") => ContainerType::Sandbox,
            _ => ContainerType::Container,
        }
    }

    /// `run.oci.handler`, by which crun's users choose a wasm handler (`wasm`, `wasm-smart`).
    #[must_use]
    pub fn handler(&self) -> Option<&str> {
        self.any(&["run.oci.handler"])
    }

    /// `module.wasm.image/variant`, by which compat images announce themselves.
    #[must_use]
    pub fn image_variant(&self) -> Option<ImageVariant> {
        match self.any(&["module.wasm.image/variant"])? {
            "compat" => Some(ImageVariant::Compat),
            "compat-smart" => Some(ImageVariant::CompatSmart),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        Annotations::new(pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())))
    }

    #[test]
    fn typed_access_covers_cri_and_crun() {
        let all = annotations(&[
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.kubernetes.cri.sandbox-id", "abc"),
            ("run.oci.handler", "wasm-smart"),
            ("module.wasm.image/variant", "compat-smart"),
            ("x", ""),
        ]);
        assert_eq!(all.container_type(), ContainerType::Sandbox);
        assert_eq!(all.sandbox_id(), Some("abc"));
        assert_eq!(all.handler(), Some("wasm-smart"));
        assert_eq!(all.image_variant(), Some(ImageVariant::CompatSmart));
        assert_eq!(all.get("x"), Some(""));
        assert_eq!(all.iter().count(), 5);
    }

    #[test]
    fn nothing_said_means_container() {
        let none = annotations(&[("io.kubernetes.cri.sandbox-id", "")]);
        assert_eq!(none.container_type(), ContainerType::Container);
        assert_eq!(none.sandbox_id(), None);
        assert_eq!(none.image_variant(), None);
    }
}
