//! What an installer refuses, and what it does when the node does not play along.

use std::fmt::Display;

use coracle_installer::{Failure, Grade, Stop, Watcher};

use crate::fixtures::FIXTURES;
use crate::node::{Node, Suite};
use crate::scratch::{on_a_node, read_only, tree, write};
use crate::{doctor, install, install_args, uninstall};

const PLAIN: &str = "/etc/containerd/config.toml";

fn kubeadm(suite: Suite) -> Node {
    Node::start(&FIXTURES[0], suite)
}

/// Nothing is changed by an installation with these arguments, which says why.
fn refused(node: &Node, arguments: &[&str], words: &[&str]) {
    let before = tree();
    let failure = install(node, arguments).unwrap_err();
    let text = failure.to_string();
    assert!(matches!(failure, Failure::Refused(_)), "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert!(tree() == before);
    assert_eq!(node.restarts.get(), 0);
}

#[test]
fn what_makes_no_sense_is_refused_with_words() {
    on_a_node(|| {
        let node = kubeadm(Suite::Trixie);
        refused(
            &node,
            &["--distribution", "k3s"],
            &["/var/lib/rancher/k3s/agent", "found is containerd"],
        );
        refused(&node, &["--sandboxer"], &["containerd 2", "1.7"]);
        refused(&node, &["--local-pull"], &["2.1"]);
        refused(&node, &["--handler", "runc"], &["runc", "io.containerd.runc.v2", "--handler"]);
        refused(&node, &["--programs", "/nowhere"], &["/nowhere/containerd-shim-wasm-v1"]);
        refused(&node, &["--containerd", "/bin/true"], &["/bin/true --version"]);
        write("/usr/local/sbin/containerd-shim-wasm-v1", "somebody's");
        refused(&node, &["--link", "/usr/local/sbin"], &["is there already"]);
        let text = std::fs::read_to_string(PLAIN).unwrap();
        write(PLAIN, &text.replacen("[plugins]", "[plugins\n", 1));
        refused(&node, &[], &[PLAIN, "line "]);
        write(PLAIN, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n");
        refused(&node, &[], &["CRI", "--programs-only"]);
        write(PLAIN, "version = 7\n");
        refused(&node, &[], &["its version is 7"]);
        std::fs::remove_file("/usr/local/bin/containerd").unwrap();
        refused(&node, &[], &["no containerd found"]);
    });
}

#[test]
fn read_only_paths_are_named_and_nothing_stays() {
    on_a_node(|| {
        let node = kubeadm(Suite::Trixie);
        let before = tree();
        std::fs::create_dir_all("/opt/ro").unwrap();
        read_only("/opt/ro");
        let failure = install(&node, &["--bin-dir", "/opt/ro/bin"]).unwrap_err();
        assert!(
            matches!(failure, Failure::Undone(_)) && failure.to_string().contains("/opt/ro/bin"),
            "{failure}"
        );
        assert!(tree() == before);
        read_only("/etc/containerd");
        let failure = install(&node, &[]).unwrap_err();
        assert!(
            matches!(failure, Failure::Undone(_)) && failure.to_string().contains(PLAIN),
            "{failure}"
        );
        assert!(tree() == before);
        read_only("/var/lib/coracle");
        let failure = install(&node, &[]).unwrap_err();
        assert!(failure.to_string().contains("/var/lib/coracle"), "{failure}");
        assert_eq!(node.restarts.get(), 0);
        node.wait();
    });
}

/// Starts a second installer in the midst of the first.
struct Second<'a>(&'a Node, u32);

impl Watcher for Second<'_> {
    fn step(&mut self, _: &dyn Display) -> Result<(), Stop> {
        let failure = install(self.0, &[]).unwrap_err();
        assert!(matches!(failure, Failure::Busy), "{failure}");
        assert!(matches!(uninstall(self.0, &[]), Err(Failure::Busy)));
        self.1 += 1;
        Ok(())
    }
}

#[test]
fn of_two_installers_one_is_sent_away() {
    on_a_node(|| {
        let node = kubeadm(Suite::Bookworm);
        let mut second = Second(&node, 0);
        coracle_installer::install_with(&install_args(&[]), &node, &mut second).unwrap();
        assert!(second.1 > 8);
        assert!(!install(&node, &[]).unwrap());
    });
}

#[test]
fn a_restart_that_fails_is_taken_back() {
    on_a_node(|| {
        let node = kubeadm(Suite::Sid);
        let before = tree();
        node.failing.set(1);
        let failure = install(&node, &["--timeout", "2"]).unwrap_err();
        assert!(matches!(failure, Failure::Undone(_)), "{failure}");
        assert!(failure.to_string().contains("it is not to be"), "{failure}");
        node.wait();
        assert!(tree() == before);
        // Nothing can be done when nothing can be started any more, but for saying what a person can do.
        node.failing.set(9);
        let failure = install(&node, &["--timeout", "2"]).unwrap_err();
        let text = failure.to_string();
        assert!(matches!(failure, Failure::Broken { .. }), "{text}");
        assert!(text.contains("systemctl restart containerd"), "{text}");
        node.failing.set(0);
        node.launch();
        node.wait();
        install(&node, &[]).unwrap();
        uninstall(&node, &[]).unwrap();
        assert!(tree() == before);
    });
}

#[test]
fn drift_is_seen_and_repaired() {
    on_a_node(|| {
        let node = kubeadm(Suite::Sid);
        let fresh = std::fs::read_to_string(PLAIN).unwrap();
        install(&node, &["--link", "/usr/local/bin"]).unwrap();
        assert!(
            std::fs::read_link("/usr/local/bin/containerd-shim-wasm-v1")
                .unwrap()
                .starts_with("/opt/coracle")
        );
        let drifted = |words: &str| {
            let (report, grade) = doctor(&node);
            assert_eq!(grade, Grade::Drift, "{report}");
            assert!(report.contains(words), "{report}");
        };
        write("/opt/coracle/bin/coracle", "another");
        drifted("/opt/coracle/bin/coracle was changed");
        // Whoever looks after the node wrote its file anew, and restarted containerd.
        write(PLAIN, &fresh);
        node.launch();
        node.wait();
        drifted("CRI has not loaded the handler wasm");
        install(&node, &["--link", "/usr/local/bin"]).unwrap();
        let (report, grade) = doctor(&node);
        assert!(grade <= Grade::Hint, "{report}");
        assert_eq!(node.restarts.get(), 2);
        uninstall(&node, &[]).unwrap();
        assert_eq!(std::fs::read_to_string(PLAIN).unwrap(), fresh);
        assert!(!std::path::Path::new("/usr/local/bin/containerd-shim-wasm-v1").is_symlink());
    });
}

#[test]
fn a_node_that_is_still_being_built_needs_no_running_containerd() {
    on_a_node(|| {
        let node = Node::stopped(&FIXTURES[0], Suite::Sid);
        let before = tree();
        install(&node, &["--sandboxer"]).unwrap();
        assert_eq!(node.restarts.get(), 0);
        node.launch();
        node.wait();
        let (report, grade) = doctor(&node);
        assert!(grade <= Grade::Hint && report.contains("wasm is loaded"), "{report}");
        node.stop();
        uninstall(&node, &[]).unwrap();
        assert!(tree() == before);
    });
}

#[test]
fn a_dry_run_changes_nothing() {
    on_a_node(|| {
        let node = kubeadm(Suite::Sid);
        let before = tree();
        assert!(!install(&node, &["--dry-run"]).unwrap());
        assert!(tree() == before);
        install(&node, &[]).unwrap();
        let before = tree();
        assert!(!uninstall(&node, &[]).is_err());
        install(&node, &[]).unwrap();
        assert!(tree() == before);
    });
}

#[test]
fn programs_alone_leave_containerd_alone() {
    on_a_node(|| {
        let node = kubeadm(Suite::Trixie);
        write(PLAIN, "disabled_plugins = [\"cri\"]\n");
        let before = tree();
        install(&node, &["--programs-only", "--link", "/usr/local/bin"]).unwrap();
        assert_eq!(std::fs::read_to_string(PLAIN).unwrap(), "disabled_plugins = [\"cri\"]\n");
        assert!(!install(&node, &["--programs-only", "--link", "/usr/local/bin"]).unwrap());
        uninstall(&node, &[]).unwrap();
        assert!(tree() == before);
        assert_eq!(node.restarts.get(), 0);
    });
}

#[test]
fn programs_stay_for_containers_that_run() {
    on_a_node(|| {
        let node = kubeadm(Suite::Trixie);
        let before = tree();
        // A process whose program is at the shim's place and whose arguments are a shim's.
        std::fs::copy("/bin/sleep", format!("{}/containerd-shim-wasm-v1", crate::scratch::SOURCES))
            .unwrap();
        install(&node, &[]).unwrap();
        let mut shim = std::process::Command::new("/opt/coracle/bin/containerd-shim-wasm-v1");
        let mut shim =
            std::os::unix::process::CommandExt::arg0(&mut shim, "shim").arg("300").spawn().unwrap();
        let failure = uninstall(&node, &[]).unwrap_err();
        let text = failure.to_string();
        assert!(
            matches!(failure, Failure::Refused(_)) && text.contains(&shim.id().to_string()),
            "{text}"
        );
        uninstall(&node, &["--force"]).unwrap();
        assert!(std::path::Path::new("/opt/coracle/bin/containerd-shim-wasm-v1").exists());
        assert!(!std::fs::read_to_string(PLAIN).unwrap().contains("wasm"));
        shim.kill().unwrap();
        shim.wait().unwrap();
        uninstall(&node, &[]).unwrap();
        assert!(tree() == before);
    });
}
