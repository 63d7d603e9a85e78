//! Block devices: `io.weight`, `io.max`.

use crate::cgroup::limits::Setting;
use crate::error::CgroupError;
use crate::spec::{BlockIoLimits, DeviceRate};

pub(super) fn plan(limits: &BlockIoLimits) -> Result<Vec<Setting>, CgroupError> {
    let leaf = limits.weight_devices.iter().find_map(|one| one.leaf_weight).or(limits.leaf_weight);
    if let Some(weight) = leaf {
        return Err(CgroupError::Limit {
            setting: "blockIO.leafWeight",
            value: weight.into(),
            problem: "cgroup v2 has no weight against groups beneath; leave it out",
        });
    }
    let mut settings = Vec::new();
    // BFQ has files of its own, with its own range.
    if let Some(bfq) = limits.weight {
        let setting = Setting::limit("io", "io.bfq.weight", bfq, "blockIO.weight", false);
        settings.push(setting.or("io.weight", weight(bfq)));
    }
    for one in &limits.weight_devices {
        if let Some(bfq) = one.weight {
            let value = format!("{} {bfq}", one.device);
            let field = "blockIO.weightDevice";
            let setting = Setting::limit("io", "io.bfq.weight", value, field, false);
            settings.push(setting.or("io.weight", format!("{} {}", one.device, weight(bfq))));
        }
    }
    let mut throttle = |rates: &[DeviceRate], key: &str, field: &'static str| {
        let setting = |one: &DeviceRate| {
            let rate = if one.rate == 0 { "max".to_owned() } else { one.rate.to_string() };
            let value = format!("{} {key}={rate}", one.device);
            Setting::limit("io", "io.max", value, field, one.rate == 0)
        };
        settings.extend(rates.iter().map(setting));
    };
    throttle(&limits.read_bps, "rbps", "blockIO.throttleReadBpsDevice");
    throttle(&limits.write_bps, "wbps", "blockIO.throttleWriteBpsDevice");
    throttle(&limits.read_iops, "riops", "blockIO.throttleReadIOPSDevice");
    throttle(&limits.write_iops, "wiops", "blockIO.throttleWriteIOPSDevice");
    Ok(settings)
}

/// Turns the spec's weight (10 to 1000) into that of `io.weight` (1 to 10000), in a straight line,
/// as runtimes agreed on.
fn weight(bfq: u16) -> u64 {
    1 + (u64::from(bfq).saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_keeps_both_ends() {
        assert_eq!((weight(10), weight(1000)), (1, 10_000));
        assert_eq!(weight(500), 4950);
    }
}
