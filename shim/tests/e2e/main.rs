//! The main job under real daemons: containerd's `ctr` and Docker, side by side.
//!
//! Run by `make test-e2e` inside a test bed (`deploy/testbed/with.sh`), whose environment names the
//! daemons. Each test runs on every daemon of the bed and reports all daemons that failed, not
//! only the first. Without a bed these tests fail: they cannot be skipped by accident.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bad_input;
mod bed;
mod cache;
mod control;
mod cri;
mod ctr;
mod exec;
mod faults;
mod lifecycle;
mod linux;
mod network;
mod own_bed;
mod pack;
mod pods;
mod pods_use;
mod pods_users;
mod programs;
mod recovery;
mod run;
mod suite;

// The suites' programs are described once for all that run them.
#[path = "../../../deploy/tests/suites/official.rs"]
mod official;
#[path = "../../../deploy/tests/suites/program.rs"]
mod program;
