//! The real shim binary over its real socket; the tests play containerd.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bootstrap;
mod cache;
mod clean;
mod disks;
mod faults;
mod first;
mod harness;
mod programs;
mod snapshot;
mod tasks;
mod warm;
