//! Control groups: where they lie, which files they have, which values those take.
//!
//! [`Host`] knows what is mounted, [`CgroupPath`] what the spec asks for; together they give a
//! [`Cgroup`], which can be made, limited, paused, counted ([`stats`]) and removed. Limits are planned purely
//! ([`limits`]; for systemd [`mod@unit`]), a file a controller under `v1/` and `v2/`, and written afterwards, so tests need a
//! scratch folder and no rights. Signals and processes are the caller's business.
//!
//! Source: Linux `Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst`.

mod devices;
mod freezer;
mod group;
mod host;
pub mod limits;
mod oom;
mod path;
mod rdma;
pub mod stats;
pub mod unit;
mod v1;
mod v2;

pub use crate::error::CgroupError;
pub use devices::DevicePolicy;
pub use group::Cgroup;
pub use host::{Hierarchy, Host, Version};
pub use path::CgroupPath;
pub use unit::Unit;
