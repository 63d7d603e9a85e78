//! Values of cgroup v1, a file a controller.

mod blkio;
mod cpu;
pub(super) mod cpuset;
mod hugetlb;
mod memory;
mod network;
mod pids;

use super::limits::Setting;
use super::rdma;
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
    settings.extend(blkio::plan(&resources.block_io));
    settings.extend(hugetlb::plan(&resources.huge_pages));
    settings.extend(rdma::plan(&resources.rdma));
    settings.extend(network::plan(&resources.network));
    Ok(settings)
}
