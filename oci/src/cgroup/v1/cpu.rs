//! Processor time: `cpu.shares`, `cpu.cfs_*`, `cpu.idle`. Source: Linux `sched-bwc.rst`.

use crate::cgroup::limits::Setting;
use crate::spec::CpuLimits;

pub(super) fn plan(cpu: &CpuLimits) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = cpu.shares {
        settings.push(Setting::limit("cpu", "cpu.shares", shares, "cpu.shares", false));
    }
    if let Some(period) = cpu.period {
        settings.push(Setting::limit("cpu", "cpu.cfs_period_us", period, "cpu.period", false));
    }
    if let Some(quota) = cpu.quota {
        let (value, none) = (quota.max(-1), quota < 0);
        settings.push(Setting::limit("cpu", "cpu.cfs_quota_us", value, "cpu.quota", none));
    }
    if let Some(burst) = cpu.burst {
        settings.push(Setting::limit("cpu", "cpu.cfs_burst_us", burst, "cpu.burst", burst == 0));
    }
    if let Some(idle) = cpu.idle {
        settings.push(Setting::limit("cpu", "cpu.idle", idle, "cpu.idle", idle == 0));
    }
    settings
}
