//! Control groups: paths, files and values, v1 and v2.

mod path;

pub use path::CgroupPath;
