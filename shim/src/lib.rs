//! The containerd shim for WebAssembly containers.
//!
//! Reading order: [`cli`] turns the command line into one [`cli::Command`]; [`bootstrap`] answers
//! `start` and leaves a process behind that [`serve`]s; [`service`] receives the Task API there,
//! [`request`] makes its messages typed, [`registry`] finds the [`task`], and [`response`] turns
//! what came of it back into messages. [`group`] is a task's control group, of which [`stats`] and
//! [`update`] speak, and [`systemd`] tells systemd. [`sandbox`] holds a pod's namespaces where containerd leaves that to
//! the shim. [`figures`] tells the node daemon what happens. [`cleanup`] answers `delete` when a shim is gone. [`warm`] is what the
//! operator's tool starts to compile for containers to come.
//!
//! Wire types (ttrpc, protobuf) stay in `bootstrap`, `config`, `events`, `request`, `response`,
//! `sandbox`, `service`, `stats` and `update`; everything else speaks domain types.

pub mod bootstrap;
pub mod cache;
pub mod cleanup;
pub mod cli;
pub mod compile;
pub mod config;
pub mod content;
pub mod create;
mod daemon;
pub mod events;
pub mod exit;
pub mod figures;
pub mod find;
pub mod group;
pub mod guest;
pub mod io;
pub mod mounts;
pub mod registry;
pub mod request;
pub mod response;
pub mod sandbox;
pub mod serve;
pub mod service;
pub mod stats;
pub mod systemd;
pub mod task;
pub mod telemetry;
pub mod toolbox;
pub mod update;
pub mod warm;

/// The runtime name under which containerd and Docker know this shim.
pub const RUNTIME_NAME: &str = "io.containerd.wasm.v1";
