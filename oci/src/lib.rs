//! OCI bundles and images as Coracle sees them.
//!
//! This room knows specs, images and control groups, and runs nothing. Reading order:
//!
//! 1. [`spec`]: a bundle's `config.json` becomes one [`spec::Workload`]; nothing past it sees JSON.
//! 2. [`image`]: a workload and its image become one [`image::Module`], found by content.
//! 3. [`cgroup`]: paths, files and values of control groups, v1 and v2.
//!
//! Two small tables serve all of them: [`digest`] (content addresses that are verified when they
//! are made) and [`media_type`] (the one list of what an image may hold); [`file`](mod@file) reads small files.

pub mod cgroup;
pub mod digest;
pub mod error;
pub mod file;
pub mod image;
pub mod media_type;
pub mod spec;

pub use error::{CgroupError, DigestError, ImageError, SpecError, StoreError};
