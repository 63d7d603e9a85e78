//! The node daemon beside real containerds.
//!
//! Run by `make test-node` inside a test bed (`deploy/testbed/with.sh`); each test has beds of its own, with containerd
//! 1.7 and 2.1. Without a bed these tests fail: they cannot be skipped by accident.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod away;
mod cluster;
mod containers;
mod end;
mod handlers;
mod node;
mod pull;
mod traces;

// The bed is described once for all that use it.
#[allow(dead_code, reason = "the shim's tests use the rest")]
#[path = "../../../../shim/tests/e2e/bed.rs"]
mod bed;
#[allow(dead_code, reason = "the shim's tests use the rest")]
#[path = "../../../../shim/tests/e2e/own_bed.rs"]
mod own_bed;
#[allow(dead_code, reason = "the shim's tests use the rest")]
#[path = "../../../../shim/tests/e2e/pack.rs"]
mod pack;
