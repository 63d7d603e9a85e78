//! Huge pages: `hugetlb.*.limit_in_bytes`. Source: Linux `cgroup-v1/hugetlb.rst`.

use crate::cgroup::limits::{Absent, Setting};
use crate::spec::HugePageLimit;

pub(super) fn plan(limits: &[HugePageLimit]) -> Vec<Setting> {
    let both = |one: &HugePageLimit| {
        let setting = |file: &str| {
            let file = format!("hugetlb.{}.{file}", one.page_size);
            Setting::limit("hugetlb", &file, one.limit.to_string(), "hugepageLimits", one.limit < 0)
        };
        // Reservations have a limit of their own since Linux 5.7; before, there is nothing to limit.
        let reserved = Setting { absent: Absent::Ignore, ..setting("rsvd.limit_in_bytes") };
        [setting("limit_in_bytes"), reserved]
    };
    limits.iter().flat_map(both).collect()
}
