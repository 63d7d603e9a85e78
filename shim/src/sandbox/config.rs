//! What CRI says of a pod, as far as a sandbox acts on it.
//!
//! containerd passes CRI's `PodSandboxConfig` as the options of CreateSandbox. Fields that are not
//! listed here are skipped, as protobuf has it. Source: `runtime/v1/api.proto` of Kubernetes' CRI.

use std::collections::HashMap;

use prost::Message as _;

/// What the type of the options ends with, whatever package path it has.
const TYPE: &str = "runtime.v1.PodSandboxConfig";

/// A pod.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodSandboxConfig {
    /// Empty if the pod has the node's name.
    #[prost(string, tag = "2")]
    pub(super) hostname: String,
    /// How its containers resolve names.
    #[prost(message, optional, tag = "4")]
    pub(super) dns: Option<DnsConfig>,
    /// Annotations of the pod.
    #[prost(map = "string, string", tag = "7")]
    pub(super) annotations: HashMap<String, String>,
    /// The part for Linux.
    #[prost(message, optional, tag = "8")]
    pub(super) linux: Option<LinuxPodSandboxConfig>,
}

/// Lines of `resolv.conf(5)`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DnsConfig {
    /// Addresses of name servers.
    #[prost(string, repeated, tag = "1")]
    pub(super) servers: Vec<String>,
    /// Domains to search.
    #[prost(string, repeated, tag = "2")]
    pub(super) searches: Vec<String>,
    /// Options such as `ndots:5`.
    #[prost(string, repeated, tag = "3")]
    pub(super) options: Vec<String>,
}

/// A pod on Linux.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LinuxPodSandboxConfig {
    /// The pod's control group, or its slice.
    #[prost(string, tag = "1")]
    pub(super) cgroup_parent: String,
    /// Rights and namespaces.
    #[prost(message, optional, tag = "2")]
    pub(super) security_context: Option<SecurityContext>,
    /// Kernel settings of the pod's namespaces.
    #[prost(map = "string, string", tag = "3")]
    pub(super) sysctls: HashMap<String, String>,
}

/// Rights and namespaces of a pod.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SecurityContext {
    /// Which namespaces are the node's.
    #[prost(message, optional, tag = "1")]
    pub(super) namespaces: Option<NamespaceOption>,
}

/// Whose each namespace is: one of the constants below.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NamespaceOption {
    /// Network.
    #[prost(int32, tag = "1")]
    pub(super) network: i32,
    /// Process ids.
    #[prost(int32, tag = "2")]
    pub(super) pid: i32,
    /// System V and POSIX queues.
    #[prost(int32, tag = "3")]
    pub(super) ipc: i32,
    /// Users and groups; only pods with a user namespace have it.
    #[prost(message, optional, tag = "5")]
    pub(super) users: Option<UserNamespace>,
}

/// A pod's user namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UserNamespace {
    /// Whose it is. Absent means the pod's, as protobuf has it for zero.
    #[prost(int32, tag = "1")]
    pub(super) mode: i32,
}

/// CRI's `NamespaceMode.NODE`.
pub(super) const NODE: i32 = 2;

impl PodSandboxConfig {
    /// Decodes the options of CreateSandbox; those of a client that is no CRI say nothing.
    ///
    /// # Errors
    /// Options that claim to be CRI's and cannot be decoded.
    pub(super) fn decode_options(url: &str, value: &[u8]) -> Result<Self, prost::DecodeError> {
        if url.ends_with(TYPE) { Self::decode(value) } else { Ok(Self::default()) }
    }

    pub(super) fn namespaces(&self) -> NamespaceOption {
        let linux = self.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        linux.and_then(|context| context.namespaces.clone()).unwrap_or_default()
    }
}

impl DnsConfig {
    /// The text of a `resolv.conf(5)`.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 1 (metadata) is one that is not read, field 2 is the host name.
    const WIRE: [u8; 14] =
        [0x0a, 0x03, 0x0a, 0x01, b'p', 0x12, 0x03, b'w', b'e', b'b', 0x42, 0x02, 0x0a, 0x00];

    #[test]
    fn fields_have_the_numbers_of_cri() {
        let config =
            PodSandboxConfig::decode_options("types/runtime.v1.PodSandboxConfig", &WIRE).unwrap();
        assert_eq!(config.hostname, "web");
        assert_eq!(config.linux.unwrap().cgroup_parent, "");
    }

    #[test]
    fn foreign_options_say_nothing_and_broken_ones_are_an_error() {
        let foreign = PodSandboxConfig::decode_options("example/Other", b"\xff\xff").unwrap();
        assert_eq!(foreign, PodSandboxConfig::default());
        assert!(
            PodSandboxConfig::decode_options("runtime.v1.PodSandboxConfig", b"\x12\x7f").is_err()
        );
    }

    #[test]
    fn resolv_conf() {
        let dns = DnsConfig {
            servers: vec!["10.0.0.10".into(), "fd00::a".into()],
            searches: vec!["a.svc".into(), "svc".into()],
            options: vec!["ndots:5".into()],
        };
        let want = "search a.svc svc\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n";
        assert_eq!(dns.text(), want);
        assert_eq!(DnsConfig::default().text(), "");
    }
}
