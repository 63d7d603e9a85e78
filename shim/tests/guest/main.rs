//! Real guest processes in real namespaces and cgroups. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of a test fail as the test itself does"
)]

mod files;
mod hooks;
mod life;
mod memory;
mod namespaces;
mod programs;
mod rights;
mod stop;
mod support;
