//! Marks of packets: `net_cls.classid`, `net_prio.ifpriomap`. Source: Linux `cgroup-v1/net_cls.rst`, `net_prio.rst`.

use crate::cgroup::limits::Setting;
use crate::spec::NetworkClass;

pub(super) fn plan(network: &NetworkClass) -> Vec<Setting> {
    let class = network
        .class_id
        .map(|class| Setting::limit("net_cls", "net_cls.classid", class, "network.classID", false));
    let priority = |(name, priority): &(String, u32)| {
        let (value, field) = (format!("{name} {priority}"), "network.priorities");
        Setting::limit("net_prio", "net_prio.ifpriomap", value, field, false)
    };
    class.into_iter().chain(network.priorities.iter().map(priority)).collect()
}
