//! Memory: `memory.max`, `memory.low`, `memory.swap.max`.

use crate::cgroup::limits::{Setting, or_max};
use crate::error::CgroupError;
use crate::spec::MemoryLimits;

pub(super) fn plan(memory: &MemoryLimits) -> Result<Vec<Setting>, CgroupError> {
    let mut settings = Vec::new();
    if let Some(swap) = swap(memory)? {
        let (file, field) = ("memory.swap.max", "memory.swap");
        settings.push(Setting::limit("memory", file, or_max(swap), field, swap < 0).optional());
    }
    if let Some(limit) = memory.limit {
        let field = "memory.limit";
        settings.push(Setting::limit("memory", "memory.max", or_max(limit), field, limit < 0));
    }
    if let Some(reservation) = memory.reservation {
        let (value, field) = (or_max(reservation), "memory.reservation");
        settings.push(Setting::limit("memory", "memory.low", value, field, reservation < 0));
    }
    Ok(settings)
}

/// Swap alone, as v2 counts it; the spec counts it together with memory, as v1 does.
fn swap(memory: &MemoryLimits) -> Result<Option<i64>, CgroupError> {
    let problem =
        |value, problem| Err(CgroupError::Limit { setting: "memory.swap", value, problem });
    match (memory.swap, memory.limit) {
        // Unlimited memory without a word on swap means unlimited swap, as it did on v1.
        (None, Some(limit)) if limit < 0 => Ok(Some(-1)),
        (None, _) => Ok(None),
        (Some(both), _) if both < 0 => Ok(Some(-1)),
        (Some(both), Some(limit)) if limit >= 0 => {
            if both >= limit {
                return Ok(Some(both - limit));
            }
            problem(both, "it counts memory and swap together, so it cannot be below memory.limit")
        }
        (Some(both), _) => problem(both, "it needs a memory.limit beside it"),
    }
}
