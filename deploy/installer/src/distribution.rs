//! The distributions of Kubernetes: where each keeps what an installer must know. The only place that names them.

use clap::ValueEnum;

/// Who set containerd up on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// containerd reads /etc/containerd/config.toml: kubeadm, kind, EKS, AKS, GKE, or no Kubernetes at all.
    #[value(aliases = ["kubeadm", "kind", "eks", "aks", "gke"])]
    Containerd,
    /// k3s, server or agent.
    K3s,
    /// RKE2, server or agent.
    Rke2,
    /// k0s.
    K0s,
    /// MicroK8s.
    Microk8s,
}

impl Distribution {
    /// All of them. The general one comes last: others may have a containerd of that kind beside theirs.
    pub const ALL: [Self; 5] = [Self::K3s, Self::Rke2, Self::K0s, Self::Microk8s, Self::Containerd];

    /// As it is said on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::K0s => "k0s",
            Self::Microk8s => "microk8s",
        }
    }

    /// What is known of it.
    pub(crate) fn layout(self) -> Layout {
        match self {
            Self::Containerd => CONTAINERD,
            Self::K3s => K3S,
            Self::Rke2 => RKE2,
            Self::K0s => K0S,
            Self::Microk8s => MICROK8S,
        }
    }
}

/// Where a distribution keeps things.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// One of these exists where the distribution is.
    pub(crate) signs: &'static [&'static str],
    /// Where containerd's program may be, the first that exists.
    pub(crate) programs: &'static [&'static str],
    /// containerd's socket, when the configuration names none.
    pub(crate) socket: &'static str,
    /// Units of which one runs containerd, perhaps not by itself.
    pub(crate) units: &'static [&'static str],
    /// How containerd comes to its configuration.
    pub(crate) origin: Origin,
}

/// How containerd comes to its configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    /// It is a file of the administrator's.
    File { config: &'static str },
    /// k3s and RKE2 render it into `config.toml` of this folder, at each start, from their own template or the user's.
    Rendered { folder: &'static str },
    /// MicroK8s puts values of the environment into a template of the user's.
    Template { template: &'static str },
    /// k0s merges the files of a folder into its own, whenever one of them changes, and restarts containerd itself.
    Merged { folder: &'static str, root: &'static str, cri: &'static str },
}

const PLAIN_PROGRAMS: &[&str] = &[
    "/usr/local/bin/containerd",
    "/usr/bin/containerd",
    "/usr/local/sbin/containerd",
    "/usr/sbin/containerd",
    "/bin/containerd",
    "/opt/bin/containerd",
    "/opt/containerd/bin/containerd",
    "/run/torcx/bin/containerd",
];

const CONTAINERD: Layout = Layout {
    signs: PLAIN_PROGRAMS,
    programs: PLAIN_PROGRAMS,
    socket: "/run/containerd/containerd.sock",
    units: &["containerd"],
    origin: Origin::File { config: "/etc/containerd/config.toml" },
};

const K3S: Layout = Layout {
    signs: &["/var/lib/rancher/k3s/agent"],
    programs: &["/var/lib/rancher/k3s/data/current/bin/containerd"],
    socket: "/run/k3s/containerd/containerd.sock",
    units: &["k3s", "k3s-agent"],
    origin: Origin::Rendered { folder: "/var/lib/rancher/k3s/agent/etc/containerd" },
};

const RKE2: Layout = Layout {
    signs: &["/var/lib/rancher/rke2/agent"],
    programs: &["/var/lib/rancher/rke2/bin/containerd"],
    socket: "/run/k3s/containerd/containerd.sock",
    units: &["rke2-server", "rke2-agent"],
    origin: Origin::Rendered { folder: "/var/lib/rancher/rke2/agent/etc/containerd" },
};

const K0S: Layout = Layout {
    signs: &["/var/lib/k0s/bin/containerd", "/etc/k0s/containerd.toml"],
    programs: &["/var/lib/k0s/bin/containerd"],
    socket: "/run/k0s/containerd.sock",
    units: &["k0sworker", "k0scontroller"],
    origin: Origin::Merged {
        folder: "/etc/k0s/containerd.d",
        root: "/etc/k0s/containerd.toml",
        cri: "/run/k0s/containerd-cri.toml",
    },
};

const MICROK8S: Layout = Layout {
    signs: &["/var/snap/microk8s/current/args"],
    programs: &["/snap/microk8s/current/bin/containerd"],
    socket: "/var/snap/microk8s/common/run/containerd.sock",
    units: &["snap.microk8s.daemon-containerd"],
    origin: Origin::Template {
        template: "/var/snap/microk8s/current/args/containerd-template.toml",
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for distribution in Distribution::ALL {
            assert_eq!(Distribution::from_str(distribution.name(), false), Ok(distribution));
        }
        assert_eq!(Distribution::from_str("kind", false), Ok(Distribution::Containerd));
    }
}
