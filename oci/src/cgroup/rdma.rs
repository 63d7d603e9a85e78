//! RDMA devices: `rdma.max`, the same in both versions. Source: Linux `cgroup-v1/rdma.rst`.

use super::limits::Setting;
use crate::spec::RdmaLimit;

pub(super) fn plan(limits: &[RdmaLimit]) -> Vec<Setting> {
    let number = |limit: Option<u32>| limit.map_or("max".to_owned(), |limit| limit.to_string());
    let setting = |one: &RdmaLimit| {
        let (handles, objects) = (number(one.handles), number(one.objects));
        let value = format!("{} hca_handle={handles} hca_object={objects}", one.device);
        let unlimited = one.handles.is_none() && one.objects.is_none();
        Setting::limit("rdma", "rdma.max", value, "rdma", unlimited)
    };
    limits.iter().map(setting).collect()
}
