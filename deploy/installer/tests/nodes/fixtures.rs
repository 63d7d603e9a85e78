//! The distributions' layouts, as a fresh node of each has them.

use std::path::Path;
use std::process::Command;

use crate::node::Suite;
use crate::scratch::write;

/// How a distribution runs containerd.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    Plain,
    Rancher { folder: &'static str, program: &'static str, unit: &'static str },
    Microk8s,
    K0s,
}

/// A layout.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) how: How,
    /// The containerds that such a node may have.
    pub(crate) suites: &'static [Suite],
    /// What the distribution's own template gives.
    pub(crate) base: &'static str,
    /// Files; `@default` is what `containerd config default` prints, with systemd for the groups.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// The file that an installation writes, for the oldest and the newest of the suites.
    pub(crate) written: (&'static str, &'static str),
}

impl How {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Plain => "/usr/local/bin/containerd",
            Self::Rancher { program, .. } => program,
            Self::Microk8s => "/snap/microk8s/current/bin/containerd",
            Self::K0s => "/var/lib/k0s/bin/containerd",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Plain => "containerd",
            Self::Rancher { unit, .. } => unit,
            Self::Microk8s => "snap.microk8s.daemon-containerd",
            Self::K0s => "k0sworker",
        }
    }

    pub(crate) fn config(self) -> &'static str {
        match self {
            Self::Plain => "/etc/containerd/config.toml",
            Self::Rancher { folder: K3S, .. } => {
                "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"
            }
            Self::Rancher { .. } => "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
            Self::Microk8s => "/var/snap/microk8s/current/args/containerd.toml",
            Self::K0s => "/etc/k0s/containerd.toml",
        }
    }

    pub(crate) fn socket(self) -> &'static str {
        match self {
            Self::Plain => "/run/containerd/containerd.sock",
            Self::Rancher { .. } => "/run/k3s/containerd/containerd.sock",
            Self::Microk8s => "/var/snap/microk8s/common/run/containerd.sock",
            Self::K0s => "/run/k0s/containerd.sock",
        }
    }

    pub(crate) fn arguments(self) -> Vec<String> {
        let mut arguments = Vec::new();
        if Path::new(self.config()).exists() {
            arguments.extend(["--config".to_owned(), self.config().to_owned()]);
        }
        let state = match self {
            Self::Plain => return arguments,
            Self::Rancher { .. } => "/run/k3s/containerd",
            Self::Microk8s => "/run/microk8s",
            Self::K0s => "/run/k0s/containerd",
        };
        let more = ["--address", self.socket(), "--state", state, "--root", "/var/lib/containerd"];
        arguments.extend(more.map(str::to_owned));
        arguments
    }
}

impl Fixture {
    pub(crate) fn write_files(&self, containerd: &Path) {
        for (path, text) in self.files {
            if *text == "@default" {
                let printed =
                    Command::new(containerd).args(["config", "default"]).output().unwrap();
                let text = String::from_utf8(printed.stdout).unwrap();
                assert!(text.contains("SystemdCgroup = false"));
                write(path, &text.replace("SystemdCgroup = false", "SystemdCgroup = true"));
            } else {
                write(path, text);
            }
        }
        if let How::Rancher { folder, .. } = self.how {
            std::fs::create_dir_all(folder).unwrap();
        }
    }
}

const K3S: &str = "/var/lib/rancher/k3s/agent/etc/containerd";
const RKE2: &str = "/var/lib/rancher/rke2/agent/etc/containerd";
const K3S_HOW: How = How::Rancher {
    folder: K3S,
    program: "/var/lib/rancher/k3s/data/current/bin/containerd",
    unit: "k3s-agent",
};
const RKE2_HOW: How = How::Rancher {
    folder: RKE2,
    program: "/var/lib/rancher/rke2/bin/containerd",
    unit: "rke2-server",
};
const PLAIN: &str = "/etc/containerd/config.toml";
const OLD: &[Suite] = &[Suite::Bookworm, Suite::Trixie];
const NEW: &[Suite] = &[Suite::Sid];
const TEMPLATE_V3: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl";
const MICROK8S: &str = "/var/snap/microk8s/current/args/containerd-template.toml";
const K0S_DROP_IN: &str = "/etc/k0s/containerd.d/coracle.toml";
const CONF_D: &str = "/etc/containerd/conf.d/coracle.toml";

/// All layouts.
pub(crate) const FIXTURES: &[Fixture] = &[
    Fixture {
        name: "kubeadm, config default",
        how: How::Plain,
        suites: &Suite::ALL,
        base: "",
        files: &[(PLAIN, "@default")],
        written: (PLAIN, PLAIN),
    },
    Fixture {
        name: "no file",
        how: How::Plain,
        suites: &Suite::ALL,
        base: "",
        files: &[],
        written: (PLAIN, PLAIN),
    },
    Fixture {
        name: "version 1",
        how: How::Plain,
        suites: OLD,
        base: "",
        files: &[(PLAIN, include_str!("fixtures/version1.toml"))],
        written: (PLAIN, PLAIN),
    },
    Fixture {
        name: "kind",
        how: How::Plain,
        suites: &Suite::ALL,
        base: "",
        files: &[
            (PLAIN, include_str!("fixtures/kind.toml")),
            (
                "/etc/containerd/cri-base.json",
                "{\"ociVersion\": \"1.1.0\", \"process\": {}, \"linux\": {}}\n",
            ),
        ],
        written: (PLAIN, PLAIN),
    },
    Fixture {
        name: "AKS",
        how: How::Plain,
        suites: &Suite::ALL,
        base: "",
        files: &[(PLAIN, include_str!("fixtures/aks.toml"))],
        written: (PLAIN, PLAIN),
    },
    Fixture {
        name: "EKS, containerd 2",
        how: How::Plain,
        suites: NEW,
        base: "",
        files: &[(PLAIN, include_str!("fixtures/eks-v3.toml"))],
        written: (PLAIN, PLAIN),
    },
    Fixture {
        name: "GKE, folder of imports",
        how: How::Plain,
        suites: &Suite::ALL,
        base: "",
        files: &[
            (PLAIN, include_str!("fixtures/imports-v2.toml")),
            ("/etc/containerd/conf.d/50-debug.toml", "version = 2\n[debug]\n  level = \"info\"\n"),
        ],
        written: (PLAIN, CONF_D),
    },
    Fixture {
        name: "inline tables",
        how: How::Plain,
        suites: &Suite::ALL,
        base: "",
        files: &[(PLAIN, include_str!("fixtures/inline.toml"))],
        written: (PLAIN, PLAIN),
    },
    Fixture {
        name: "k3s, version 2",
        how: K3S_HOW,
        suites: OLD,
        base: include_str!("fixtures/k3s-v2.toml"),
        files: &[],
        written: (
            "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl",
            "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl",
        ),
    },
    Fixture {
        name: "k3s, version 3",
        how: K3S_HOW,
        suites: NEW,
        base: include_str!("fixtures/k3s-v3.toml"),
        files: &[],
        written: (TEMPLATE_V3, TEMPLATE_V3),
    },
    Fixture {
        name: "k3s, version 3, template of the user's",
        how: K3S_HOW,
        suites: NEW,
        base: include_str!("fixtures/k3s-v3.toml"),
        files: &[(
            TEMPLATE_V3,
            "{{ template \"base\" . }}\n\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'gvisor']\n  \
             runtime_type = \"io.containerd.runsc.v1\"\n",
        )],
        written: (TEMPLATE_V3, TEMPLATE_V3),
    },
    Fixture {
        name: "RKE2, version 3, folder of imports",
        how: RKE2_HOW,
        suites: NEW,
        base: include_str!("fixtures/rke2-v3.toml"),
        files: &[],
        written: (
            "/var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.d/coracle.toml",
            "/var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.d/coracle.toml",
        ),
    },
    Fixture {
        name: "k0s",
        how: How::K0s,
        suites: &[Suite::Trixie],
        base: include_str!("fixtures/k0s-cri.toml"),
        files: &[("/etc/k0s/containerd.toml", include_str!("fixtures/k0s.toml"))],
        written: (K0S_DROP_IN, K0S_DROP_IN),
    },
    Fixture {
        name: "MicroK8s",
        how: How::Microk8s,
        suites: &Suite::ALL,
        base: "",
        files: &[(MICROK8S, include_str!("fixtures/microk8s.toml"))],
        written: (MICROK8S, MICROK8S),
    },
];
