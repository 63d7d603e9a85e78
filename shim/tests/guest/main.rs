//! Real guest processes in real namespaces and cgroups. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of a test fail as the test itself does"
)]

mod confinement;
mod files;
mod handler;
mod hooks;
mod life;
mod memory;
mod namespaces;
mod programs;
mod reports;
mod rights;
mod stop;
mod suite;
mod support;
mod toolbox;
mod toolbox_net;
mod toolbox_tar;

// The suites' programs are described once for all that run them.
#[path = "../../../deploy/tests/suites/official.rs"]
mod official;
#[path = "../../../deploy/tests/suites/program.rs"]
mod program;
