//! Placement: `cpuset.cpus` and `cpuset.mems`. Source: Linux `cgroup-v1/cpusets.rst`.

use std::path::Path;

use crate::cgroup::limits::{Setting, write, write_error};
use crate::error::CgroupError;
use crate::spec::CpuLimits;

const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

pub(super) fn plan(cpu: &CpuLimits) -> Vec<Setting> {
    let field = ["cpu.cpus", "cpu.mems"];
    let values = [&cpu.cpus, &cpu.mems];
    let all = FILES.iter().zip(values).zip(field);
    all.filter_map(|((file, value), field)| {
        Some(Setting::limit("cpuset", file, value.as_ref()?, field, false))
    })
    .collect()
}

/// A new group of v1 has no processors and takes no process until it has: copies the parent's. `fresh` is one
/// that the caller has just made, of which that is known.
pub(in crate::cgroup) fn inherit(dir: &Path, fresh: bool) -> Result<(), CgroupError> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    for name in FILES {
        let (ours, theirs) = (dir.join(name), parent.join(name));
        let read = |file: &Path| {
            crate::file::read_text(file)
                .map(|text| text.trim().to_owned())
                .map_err(|source| CgroupError::Read { file: file.to_path_buf(), source })
        };
        if fresh || read(&ours)?.is_empty() {
            let value = read(&theirs)?;
            write(&ours, &value).map_err(|source| write_error(ours, &value, source))?;
        }
    }
    Ok(())
}
