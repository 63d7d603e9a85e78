//! Placement: `cpuset.cpus` and `cpuset.mems`.

use crate::cgroup::limits::Setting;
use crate::spec::CpuLimits;

pub(super) fn plan(cpu: &CpuLimits) -> Vec<Setting> {
    let cpus = cpu.cpus.as_ref().map(|list| ("cpuset.cpus", list, "cpu.cpus"));
    let mems = cpu.mems.as_ref().map(|list| ("cpuset.mems", list, "cpu.mems"));
    let setting = |(file, list, field)| Setting::limit("cpuset", file, list, field, false);
    cpus.into_iter().chain(mems).map(setting).collect()
}
