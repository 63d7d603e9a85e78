//! Values of cgroup v1, a file a controller.

mod cpu;
pub(super) mod cpuset;
mod memory;
mod pids;

use super::limits::Setting;
use crate::error::CgroupError;
use crate::spec::Resources;

/// All settings for `resources`, in the order in which they are to be written.
pub(super) fn plan(resources: &Resources) -> Result<Vec<Setting>, CgroupError> {
    if let Some(key) = resources.unified.keys().next() {
        return Err(CgroupError::UnifiedOnV1 { key: key.clone() });
    }
    let mut settings = cpuset::plan(&resources.cpu);
    settings.extend(cpu::plan(&resources.cpu));
    settings.extend(memory::plan(&resources.memory)?);
    settings.extend(pids::plan(resources.pids));
    Ok(settings)
}
