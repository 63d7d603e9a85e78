//! Values of cgroup v2, a file a controller. Source for all: Linux `cgroup-v2.rst`.

mod cpu;
mod cpuset;
mod memory;
mod pids;

use super::limits::{Absent, Setting};
use crate::error::CgroupError;
use crate::spec::Resources;

/// Controllers that a container's group needs its parents to hand down.
pub(super) const CONTROLLERS: [&str; 4] = ["cpuset", "cpu", "memory", "pids"];

/// All settings for `resources`, in the order in which they are to be written.
pub(super) fn plan(resources: &Resources) -> Result<Vec<Setting>, CgroupError> {
    let mut settings = cpuset::plan(&resources.cpu);
    settings.extend(cpu::plan(&resources.cpu));
    settings.extend(memory::plan(&resources.memory)?);
    settings.extend(pids::plan(resources.pids));
    // Raw values are the user's last word.
    for (file, value) in &resources.unified {
        let controller = file.split('.').next().unwrap_or_default().to_owned();
        let (file, value) = (file.clone(), value.clone());
        let field = "linux.resources.unified";
        settings.push(Setting { controller, file, value, field, absent: Absent::Fail });
    }
    Ok(settings)
}
