//! Block devices: `blkio.*`. Source: Linux `cgroup-v1/blkio-controller.rst`.

use crate::cgroup::limits::Setting;
use crate::spec::{BlockIoLimits, DeviceRate};

/// The weight's file: of the schedulers that had their own, or of the one that is left, BFQ.
const WEIGHT: [&str; 2] = ["blkio.weight", "blkio.bfq.weight"];
const DEVICE_WEIGHT: [&str; 2] = ["blkio.weight_device", "blkio.bfq.weight_device"];

pub(super) fn plan(limits: &BlockIoLimits) -> Vec<Setting> {
    let limit =
        |file: &str, value: String, field| Setting::limit("blkio", file, value, field, false);
    let mut settings = Vec::new();
    if let Some(weight) = limits.weight {
        let setting = limit(WEIGHT[0], weight.to_string(), "blockIO.weight");
        settings.push(setting.or(WEIGHT[1], weight));
    }
    if let Some(weight) = limits.leaf_weight {
        settings.push(limit("blkio.leaf_weight", weight.to_string(), "blockIO.leafWeight"));
    }
    for one in &limits.weight_devices {
        let field = "blockIO.weightDevice";
        if let Some(weight) = one.weight {
            let value = format!("{} {weight}", one.device);
            settings
                .push(limit(DEVICE_WEIGHT[0], value.clone(), field).or(DEVICE_WEIGHT[1], value));
        }
        if let Some(weight) = one.leaf_weight {
            let value = format!("{} {weight}", one.device);
            settings.push(limit("blkio.leaf_weight_device", value, field));
        }
    }
    let mut throttle = |rates: &[DeviceRate], file: &str, field: &'static str| {
        let setting = |one: &DeviceRate| {
            let value = format!("{} {}", one.device, one.rate);
            Setting::limit("blkio", file, value, field, one.rate == 0)
        };
        settings.extend(rates.iter().map(setting));
    };
    throttle(&limits.read_bps, "blkio.throttle.read_bps_device", "blockIO.throttleReadBpsDevice");
    throttle(
        &limits.write_bps,
        "blkio.throttle.write_bps_device",
        "blockIO.throttleWriteBpsDevice",
    );
    throttle(
        &limits.read_iops,
        "blkio.throttle.read_iops_device",
        "blockIO.throttleReadIOPSDevice",
    );
    throttle(
        &limits.write_iops,
        "blkio.throttle.write_iops_device",
        "blockIO.throttleWriteIOPSDevice",
    );
    settings
}
