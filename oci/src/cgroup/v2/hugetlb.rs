//! Huge pages: `hugetlb.*.max`.

use crate::cgroup::limits::{Absent, Setting, or_max};
use crate::spec::HugePageLimit;

pub(super) fn plan(limits: &[HugePageLimit]) -> Vec<Setting> {
    let both = |one: &HugePageLimit| {
        let setting = |file: &str| {
            let file = format!("hugetlb.{}.{file}", one.page_size);
            Setting::limit("hugetlb", &file, or_max(one.limit), "hugepageLimits", one.limit < 0)
        };
        // Reservations have a limit of their own since Linux 5.7; before, there is nothing to limit.
        let reserved = Setting { absent: Absent::Ignore, ..setting("rsvd.max") };
        [setting("max"), reserved]
    };
    limits.iter().flat_map(both).collect()
}
