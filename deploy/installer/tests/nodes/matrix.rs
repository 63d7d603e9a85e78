//! Every layout with every containerd that it may have: install, install again, upgrade, uninstall.

use std::path::Path;

use coracle_installer::Grade;

use crate::fixtures::{FIXTURES, Fixture};
use crate::node::{Node, Suite};
use crate::scratch::{SOURCES, on_a_node, tree, write, write_sources};
use crate::{doctor, install, state, uninstall};

/// What a test is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// Every layout, with every containerd.
    All,
    /// One layout of each kind of file; all of them when `INSTALLER_TESTS` says `all`.
    EachKind,
}

/// A root file, a drop-in, a template's block, a template of TOML, a file that is merged.
const KINDS: [&str; 5] = ["no file", "GKE, folder of imports", "k3s, version 3", "MicroK8s", "k0s"];

impl Where {
    fn includes(self, fixture: &Fixture, suite: Suite) -> bool {
        let everything = std::env::var_os("INSTALLER_TESTS").is_some_and(|which| which == "all");
        let newest = fixture.suites.last() == Some(&suite);
        match self {
            _ if everything => true,
            Self::All => true,
            // The oldest containerd, too.
            Self::EachKind if fixture.name == "no file" => suite == Suite::Bookworm,
            Self::EachKind => newest && KINDS.contains(&fixture.name),
        }
    }
}

/// Runs a test on layouts with their containerds, and says which of them failed.
pub(crate) fn everywhere(places: Where, test: impl Fn(&'static Fixture, Suite) + Sync) {
    for fixture in FIXTURES {
        for suite in fixture.suites {
            if !places.includes(fixture, *suite) {
                continue;
            }
            let begun = std::time::Instant::now();
            let run = || on_a_node(|| test(fixture, *suite));
            if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                eprintln!("failed: {} with {suite:?}", fixture.name);
                std::panic::resume_unwind(panic);
            }
            eprintln!("{} with {suite:?}: {} ms", fixture.name, begun.elapsed().as_millis());
        }
    }
}

/// The dump without our handler, which must be there.
fn without_handler(mut dump: toml::Table) -> toml::Table {
    let plugins = dump["plugins"].as_table_mut().unwrap();
    let keys = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri"];
    let removed = keys.into_iter().filter_map(|key| {
        let runtimes = plugins.get_mut(key)?.get_mut("containerd")?.get_mut("runtimes")?;
        runtimes.as_table_mut()?.remove("wasm")
    });
    assert_eq!(removed.count(), 1);
    dump
}

#[test]
fn what_is_installed_works_and_can_be_taken_back_to_the_byte() {
    everywhere(Where::All, |fixture, suite| {
        let node = Node::start(fixture, suite);
        let (before, dump) = (tree(), node.dump());
        assert_eq!(doctor(&node).1, Grade::Absent);

        assert!(install(&node, &[]).unwrap());
        node.wait();
        let (report, grade) = doctor(&node);
        assert!(grade <= Grade::Hint, "{report}");
        assert!(report.contains("wasm is loaded by containerd"), "{report}");
        let written = if suite == Suite::Sid { fixture.written.1 } else { fixture.written.0 };
        let text = std::fs::read_to_string(written).unwrap();
        let kind = if suite == Suite::Bookworm {
            "runtime_type = \"/opt/coracle/bin/"
        } else {
            "\"io.containerd.wasm.v1\""
        };
        assert!(text.contains(kind), "{text}");
        // Without a file there were defaults, which a file with a version is, too.
        assert_eq!(without_handler(node.dump()), dump);
        let restarts = node.restarts.get();
        assert_eq!(restarts, u32::from(fixture.how.unit() != "k0sworker"));

        let installed = tree();
        assert!(!install(&node, &[]).unwrap(), "a second installation has nothing to do");
        assert!(tree() == installed && node.restarts.get() == restarts);

        write_sources("second");
        assert!(install(&node, &[]).unwrap());
        assert_eq!(node.restarts.get(), restarts, "new programs need no restart");
        let shim = "containerd-shim-wasm-v1";
        let bytes = |folder: &str| std::fs::read(format!("{folder}/{shim}")).unwrap();
        assert_eq!(bytes("/opt/coracle/bin"), bytes(SOURCES));

        assert!(uninstall(&node, &[]).unwrap());
        node.wait();
        assert!(tree() == before, "not as it was");
        assert_eq!(node.dump(), dump);
        assert!(!uninstall(&node, &[]).unwrap(), "a second time has nothing to do");
    });
}

#[test]
fn a_lost_record_or_changes_of_others_keep_nobody_from_uninstalling() {
    everywhere(Where::EachKind, |fixture, suite| {
        let node = Node::start(fixture, suite);
        let (before, dump) = (tree(), node.dump());
        install(&node, &[]).unwrap();
        std::fs::remove_dir_all(state()).unwrap();
        uninstall(&node, &[]).unwrap();
        node.wait();
        assert_eq!(node.dump(), dump);
        // Folders that were made for a file of ours are all that may stay.
        let files = |tree: Vec<(_, u32, Vec<u8>)>| {
            tree.into_iter()
                .filter(|(path, _, _): &(std::path::PathBuf, _, _)| !path.is_dir())
                .collect::<Vec<_>>()
        };
        assert!(files(tree()) == files(before), "not as it was");

        install(&node, &[]).unwrap();
        let written = if suite == Suite::Sid { fixture.written.1 } else { fixture.written.0 };
        let text = std::fs::read_to_string(written).unwrap();
        let others =
            "\n[proxy_plugins.others]\n  type = \"snapshot\"\n  address = \"/run/others.sock\"\n";
        write(written, &format!("{text}{others}"));
        install(&node, &[]).unwrap();
        uninstall(&node, &[]).unwrap();
        node.wait();
        let rest = std::fs::read_to_string(written).unwrap();
        assert!(rest.contains("others.sock") && !rest.contains("wasm"), "{rest}");
        assert!(!Path::new("/opt/coracle/bin/coracle").exists());
    });
}
