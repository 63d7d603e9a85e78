//! Every step fails once, and every step is the last of an installer that is killed.

use coracle_installer::{Failure, Stop};

use crate::fixtures::Fixture;
use crate::matrix::{Where, everywhere};
use crate::node::{Node, Suite};
use crate::scratch::{tree, write_sources};
use crate::{Trap, install, install_args, uninstall, uninstall_args};

type Tree = Vec<(std::path::PathBuf, u32, Vec<u8>)>;

/// The configuration files of a tree.
fn configs(tree: &Tree) -> Tree {
    let is_config = |path: &std::path::Path| {
        let text = path.to_string_lossy();
        path.is_file() && !text.starts_with("/opt") && !text.starts_with("/var/lib/coracle") && !text.contains("/usr/")
            && !text.contains(".coracle-")
            // What the distribution writes itself follows only at its next start.
            && !text.ends_with("agent/etc/containerd/config.toml") && !text.ends_with("args/containerd.toml")
    };
    tree.iter().filter(|(path, _, _)| is_config(path)).cloned().collect()
}

/// The paths where the node is not as it should be.
fn differing(should: &Tree) -> Vec<std::path::PathBuf> {
    let is = tree();
    let one_sided = |a: &Tree, b: &Tree| {
        a.iter().filter(|file| !b.contains(file)).map(|file| file.0.clone()).collect::<Vec<_>>()
    };
    [one_sided(&is, should), one_sided(should, &is)].concat()
}

/// How many steps an act takes, which is carried out.
fn steps(act: impl FnOnce(&mut Trap) -> Result<bool, Failure>) -> usize {
    let mut trap = Trap::none();
    act(&mut trap).unwrap();
    trap.steps.len()
}

/// A containerd that is started anew takes the configuration that is there, which is one of the two.
fn one_or_the_other(node: &Node, old: &Tree, new: &Tree, step: usize) {
    let now = configs(&tree());
    assert!(now == configs(old) || now == configs(new), "half done at step {step}");
    // The old one has been started from often enough.
    if now != configs(old) {
        node.launch();
    }
    node.wait();
}

fn each_step_may_fail(fixture: &'static Fixture, suite: Suite, how: Stop) {
    let node = Node::start(fixture, suite);
    let bare = tree();
    let put = |trap: &mut Trap| coracle_installer::install_with(&install_args(&[]), &node, trap);
    let take =
        |trap: &mut Trap| coracle_installer::uninstall_with(&uninstall_args(&[]), &node, trap);
    let puts = steps(put);
    let full = tree();
    let takes = steps(take);
    assert!(tree() == bare && puts > 8 && takes > 6);
    for step in 0..puts {
        attempt(&node, step, how, put, (&bare, &full));
        if how == Stop::Kill {
            if step % 2 == 0 {
                install(&node, &[]).unwrap();
            }
            uninstall(&node, &[]).unwrap();
            assert!(tree() == bare, "not repaired after step {step}: {:?}", differing(&bare));
        }
    }
    for step in 0..takes {
        if tree() != full {
            install(&node, &[]).unwrap();
        }
        attempt(&node, step, how, take, (&full, &bare));
        if how == Stop::Kill && step % 2 == 0 {
            install(&node, &[]).unwrap();
            assert!(tree() == full, "not repaired after step {step}: {:?}", differing(&full));
        }
    }
    uninstall(&node, &[]).unwrap();
    node.wait();
    assert!(tree() == bare);
}

fn attempt(
    node: &Node,
    step: usize,
    how: Stop,
    act: impl FnOnce(&mut Trap) -> Result<bool, Failure>,
    (from, to): (&Tree, &Tree),
) {
    let mut trap = Trap::at(step, how);
    let failure = act(&mut trap).unwrap_err();
    let last = trap.steps.last().unwrap();
    match (how, failure) {
        (Stop::Fail, Failure::Undone(_)) => {
            assert!(tree() == *from, "not put back after: {last}");
            node.wait();
        }
        // Once the configuration is done for good, what is left is only in the way.
        (Stop::Fail, Failure::Untidy(_)) => assert!(configs(&tree()) == configs(to), "{last}"),
        (Stop::Kill, Failure::Killed) => one_or_the_other(node, from, to, step),
        (_, failure) => panic!("{last}: {failure}"),
    }
}

#[test]
fn a_step_that_fails_is_taken_back_with_all_before_it() {
    everywhere(Where::EachKind, |fixture, suite| each_step_may_fail(fixture, suite, Stop::Fail));
}

#[test]
fn an_installer_that_is_killed_leaves_a_node_that_works_and_is_repaired() {
    everywhere(Where::EachKind, |fixture, suite| each_step_may_fail(fixture, suite, Stop::Kill));
}

#[test]
fn an_upgrade_that_fails_leaves_the_old_programs() {
    crate::scratch::on_a_node(|| {
        let node = Node::start(&crate::fixtures::FIXTURES[0], Suite::Trixie);
        install(&node, &[]).unwrap();
        let first = tree();
        write_sources("second");
        let args = install_args(&[]);
        for how in [Stop::Fail, Stop::Kill] {
            for step in 0.. {
                let mut trap = Trap::at(step, how);
                match coracle_installer::install_with(&args, &node, &mut trap) {
                    Err(Failure::Undone(_)) => assert!(tree() == first),
                    Err(Failure::Killed | Failure::Untidy(_)) => {}
                    Err(failure) => panic!("{failure}"),
                    Ok(_) => break,
                }
                write_sources("first");
                install(&node, &[]).unwrap();
                assert!(tree() == first, "not repaired after {:?}", trap.steps.last());
                write_sources("second");
            }
            write_sources("first");
            install(&node, &[]).unwrap();
            write_sources("second");
        }
        assert_eq!(node.restarts.get(), 1);
    });
}
