//! Values of cgroup v2, a file a controller. Source for all: Linux `cgroup-v2.rst`.

mod cpu;
mod cpuset;
mod hugetlb;
mod io;
mod memory;
mod pids;

use super::limits::{Absent, Setting};
use super::rdma;
use crate::error::CgroupError;
use crate::spec::Resources;

/// Controllers that a container's group needs its parents to hand down.
pub(super) const CONTROLLERS: [&str; 7] =
    ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"];

/// All settings for `resources`, in the order in which they are to be written.
pub(super) fn plan(resources: &Resources) -> Result<Vec<Setting>, CgroupError> {
    refuse_v1_only(resources)?;
    let mut settings = cpuset::plan(&resources.cpu);
    settings.extend(cpu::plan(&resources.cpu));
    settings.extend(memory::plan(&resources.memory)?);
    settings.extend(pids::plan(resources.pids));
    settings.extend(io::plan(&resources.block_io)?);
    settings.extend(hugetlb::plan(&resources.huge_pages));
    settings.extend(rdma::plan(&resources.rdma));
    // Raw values are the user's last word.
    for (file, value) in &resources.unified {
        let controller = file.split('.').next().unwrap_or_default().to_owned();
        let (file, value) = (file.clone(), value.clone());
        let field = "linux.resources.unified";
        let absent = Absent::Fail;
        settings.push(Setting { controller, file, value, field, absent, instead: None });
    }
    Ok(settings)
}

/// Limits that this version has no file for and that would silently not be kept.
fn refuse_v1_only(resources: &Resources) -> Result<(), CgroupError> {
    let refuse = |setting, value, problem| Err(CgroupError::Limit { setting, value, problem });
    let real_time = "cgroup v2 does not limit real-time tasks; leave it out";
    let network = &resources.network;
    let network_class = "cgroup v2 marks no packets; leave it out and match the group's path";
    if let Some(time) = resources.cpu.realtime_runtime {
        return refuse("cpu.realtimeRuntime", time, real_time);
    }
    if let Some(period) = resources.cpu.realtime_period {
        return refuse("cpu.realtimePeriod", period.cast_signed(), real_time);
    }
    if let Some(bytes) = resources.memory.kernel_tcp.filter(|bytes| *bytes >= 0) {
        let problem = "cgroup v2 counts buffers as memory; leave it out and set memory.limit";
        return refuse("memory.kernelTCP", bytes, problem);
    }
    if let Some(class) = network.class_id {
        return refuse("network.classID", class.into(), network_class);
    }
    if let Some((_, priority)) = network.priorities.first() {
        return refuse("network.priorities", (*priority).into(), network_class);
    }
    Ok(())
}
