//! The real shim binary over its real socket; the tests play containerd.

mod bootstrap;
mod harness;
mod tasks;
