//! Features of processors that compiled code may use, by the names of the standard library.

/// Which every machine has that the engine supports: x86-64-v2.
pub const BASELINE: &[&str] = &["cmpxchg16b", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"];

/// All that code may use where the machine has it, those of [`BASELINE`] included.
pub const RECORDED: &[&str] = &[
    "cmpxchg16b",
    "popcnt",
    "sse3",
    "ssse3",
    "sse4.1",
    "sse4.2",
    "avx",
    "avx2",
    "avxvnni",
    "avx512bitalg",
    "avx512dq",
    "avx512f",
    "avx512vbmi",
    "avx512vl",
    "avx512vnni",
    "bmi1",
    "bmi2",
    "fma",
    "lzcnt",
];

macro_rules! detected {
    ($name:expr; $($feature:tt)*) => {
        match $name {
            $($feature => std::arch::is_x86_feature_detected!($feature),)*
            // A feature that this build cannot ask for is one that it cannot promise.
            _ => false,
        }
    };
}

/// Whether this machine has a feature of [`RECORDED`]; no other is ever promised.
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn has(name: &str) -> bool {
    detected!(name;
        "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "cmpxchg16b" "lzcnt" "bmi1" "bmi2"
        "avx" "avx2" "avxvnni" "fma"
        "avx512f" "avx512dq" "avx512vl" "avx512bitalg" "avx512vbmi" "avx512vnni"
    )
}

/// No other architecture has features of [`RECORDED`].
#[cfg(not(target_arch = "x86_64"))]
#[must_use]
pub fn has(_: &str) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_is_recorded_and_can_be_asked_for() {
        for name in BASELINE {
            assert!(RECORDED.contains(name), "{name}");
            assert_eq!(has(name), cfg!(target_arch = "x86_64"), "{name}");
        }
        assert!(!has("unknown"));
    }
}
