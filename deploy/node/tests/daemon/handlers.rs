//! What CRI says of its runtime handlers.

use std::path::PathBuf;
use std::time::Duration;

use coracle_cri::{CriError, Runtimes, runtimes};

fn ask(daemon: &str) -> Result<Runtimes, CriError> {
    let variable = format!("TESTBED_{daemon}_SOCKET");
    let socket = std::env::var(&variable);
    let socket = PathBuf::from(socket.unwrap_or_else(|_| panic!("{variable}: see make test-node")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(runtimes(&socket, Duration::from_secs(30)))
}

/// containerd 1.7 lists none: there they are in its configuration.
#[test]
fn handlers_are_known_from_both_lines_of_containerd() {
    for daemon in ["K17", "K21"] {
        let Runtimes { handlers, not_ready } = ask(daemon).unwrap();
        for handler in ["runc", "wasm"] {
            assert!(handlers.contains(handler), "{daemon}: {handlers:?}");
        }
        assert!(!handlers.contains("kata"), "{daemon}: {handlers:?}");
        assert_eq!(not_ready, [""; 0], "{daemon}");
    }
}

#[test]
fn a_containerd_without_cri_is_told_of() {
    let error = ask("C21").unwrap_err();
    assert!(matches!(error, CriError::NoCri { .. }), "{error}");
}
