//! Processor time: `cpu.weight`, `cpu.max`, `cpu.idle`.

use crate::cgroup::limits::Setting;
use crate::spec::{CpuLimits, DEFAULT_SHARES};

pub(super) fn plan(cpu: &CpuLimits) -> Vec<Setting> {
    let mut settings = Vec::new();
    // A group that only runs when nobody else wants to has no weight; writing one would fail.
    let idle = cpu.idle.unwrap_or(0) != 0;
    if let Some(shares) = cpu.shares.filter(|_| !idle) {
        let usual = shares == DEFAULT_SHARES;
        settings.push(Setting::limit("cpu", "cpu.weight", weight(shares), "cpu.shares", usual));
    }
    if cpu.quota.is_some() || cpu.period.is_some() {
        let quota = cpu.quota.filter(|quota| *quota > 0);
        let mut value = quota.map_or("max".to_owned(), |quota| quota.to_string());
        // Without one the period stays as it is.
        if let Some(period) = cpu.period {
            value += &format!(" {period}");
        }
        settings.push(Setting::limit("cpu", "cpu.max", value, "cpu.quota", quota.is_none()));
    }
    if let Some(burst) = cpu.burst {
        settings.push(Setting::limit("cpu", "cpu.max.burst", burst, "cpu.burst", burst == 0));
    }
    if let Some(idle) = cpu.idle {
        settings.push(Setting::limit("cpu", "cpu.idle", idle, "cpu.idle", idle == 0));
    }
    settings
}

/// Turns v1's shares (2 to 262144, default 1024) into v2's weight (1 to 10000, default 100).
///
/// The exponent is the parabola through the three pairs that must fit: lowest, default, highest.
/// It is the curve that runtimes agreed on in 2025, since the straight line used before gave the
/// default shares a weight of only 39.
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    // At most 18 bits, so the conversion is exact.
    let log = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // Between 1 and 10000 by construction, and the cast saturates anyway.
    10_f64.powf(exponent).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_keeps_the_three_fixed_points_and_never_falls() {
        assert_eq!((weight(0), weight(2), weight(1024), weight(262_144)), (1, 1, 100, 10_000));
        assert_eq!(weight(u64::MAX), 10_000);
        // One processor of a pod, half of one, and the smallest container.
        assert_eq!((weight(512), weight(102)), (59, 17));
        let weights: Vec<u64> = (2..=262_144).map(weight).collect();
        assert!(weights.is_sorted());
        assert!(weights.iter().all(|weight| (1..=10_000).contains(weight)));
    }
}
