//! Processor time: `cpu.shares`, `cpu.cfs_*`, `cpu.idle`, `cpu.rt_*`. Source: Linux `sched-bwc.rst`, `sched-rt-group.rst`.

use crate::cgroup::limits::Setting;
use crate::spec::{CpuLimits, DEFAULT_SHARES};

pub(super) fn plan(cpu: &CpuLimits) -> Vec<Setting> {
    let mut settings = Vec::new();
    // A group that only runs when nobody else wants to has no shares; writing them would fail.
    let idle = cpu.idle.unwrap_or(0) != 0;
    if let Some(shares) = cpu.shares.filter(|_| !idle) {
        let usual = shares == DEFAULT_SHARES;
        settings.push(Setting::limit("cpu", "cpu.shares", shares, "cpu.shares", usual));
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
    if let Some(period) = cpu.realtime_period {
        let (file, field) = ("cpu.rt_period_us", "cpu.realtimePeriod");
        settings.push(Setting::limit("cpu", file, period, field, false));
    }
    if let Some(time) = cpu.realtime_runtime {
        let (file, field) = ("cpu.rt_runtime_us", "cpu.realtimeRuntime");
        settings.push(Setting::limit("cpu", file, time, field, time < 0));
    }
    settings
}
