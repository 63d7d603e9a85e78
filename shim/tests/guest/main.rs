//! Real guest processes in real namespaces and cgroups. Needs root.

mod files;
mod hooks;
mod life;
mod namespaces;
mod programs;
mod rights;
mod support;
