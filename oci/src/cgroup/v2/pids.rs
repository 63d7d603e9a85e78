//! Number of tasks: `pids.max`.

use crate::cgroup::limits::{Setting, or_max};

pub(super) fn plan(pids: Option<i64>) -> Vec<Setting> {
    let setting =
        |limit| Setting::limit("pids", "pids.max", or_max(limit), "pids.limit", limit < 0);
    pids.map(setting).into_iter().collect()
}
