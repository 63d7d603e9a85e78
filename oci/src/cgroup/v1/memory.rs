//! Memory: `memory.*_in_bytes`. Source: Linux `cgroup-v1/memory.rst`.

use crate::cgroup::limits::Setting;
use crate::error::CgroupError;
use crate::spec::MemoryLimits;

pub(super) fn plan(memory: &MemoryLimits) -> Result<Vec<Setting>, CgroupError> {
    let mut settings = Vec::new();
    let mut bytes = |file: &str, value: i64, field: &'static str| {
        let setting = Setting::limit("memory", file, value.max(-1), field, value < 0);
        settings.push(setting);
    };
    if let Some(limit) = memory.limit {
        bytes("memory.limit_in_bytes", limit, "memory.limit");
    }
    if let Some(reservation) = memory.reservation {
        bytes("memory.soft_limit_in_bytes", reservation, "memory.reservation");
    }
    // Memory without a limit within a limit of memory and swap would be no change.
    let no_limit = memory.limit.is_some_and(|limit| limit < 0);
    if let Some(swap) = memory.swap.or(no_limit.then_some(-1)) {
        if let Some(limit) = memory.limit
            && swap >= 0
            && (swap < limit || limit < 0)
        {
            return Err(CgroupError::Limit {
                setting: "memory.swap",
                value: swap,
                problem: "it counts memory and swap together, so it cannot be below memory.limit",
            });
        }
        let field = "memory.swap";
        let file = "memory.memsw.limit_in_bytes";
        settings.push(Setting::limit("memory", file, swap.max(-1), field, swap < 0).optional());
    }
    if let Some(swappiness) = memory.swappiness {
        let (file, field) = ("memory.swappiness", "memory.swappiness");
        settings.push(Setting::limit("memory", file, swappiness, field, false).optional());
    }
    if let Some(bytes) = memory.kernel_tcp {
        let (file, field) = ("memory.kmem.tcp.limit_in_bytes", "memory.kernelTCP");
        settings.push(Setting::limit("memory", file, bytes.max(-1), field, bytes < 0));
    }
    if memory.disable_oom_killer {
        let (file, field) = ("memory.oom_control", "memory.disableOOMKiller");
        settings.push(Setting::limit("memory", file, 1, field, false));
    }
    Ok(settings)
}
