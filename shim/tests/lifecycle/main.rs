//! The real shim binary over its real socket; the tests play containerd.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bootstrap;
mod cache;
mod clean;
mod control;
mod disks;
mod exec;
mod faults;
mod figures;
mod first;
mod flood;
mod harness;
mod home;
mod killed;
mod linux;
mod linux_rights;
mod oom;
mod programs;
mod rootless;
mod sandbox;
mod snapshot;
mod streams;
mod systemd;
mod tasks;
mod terminal;
mod toolbox;
mod warm;
