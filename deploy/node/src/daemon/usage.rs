//! What a container uses, from the message that its shim sends for the host's version of control groups.

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use prost_types::Any;
use protobuf::Message as _;

/// A limit of this many bytes or more is none: the kernel rounds the largest number that it has down to pages.
const NO_LIMIT: u64 = 1 << 62;

/// What a container uses; what the host does not count is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// Processor time, in seconds.
    pub(crate) cpu: Option<f64>,
    /// Time in which it was throttled, in seconds.
    pub(crate) throttled: Option<f64>,
    /// Memory without inactive files, in bytes.
    pub(crate) working_set: Option<u64>,
    /// The limit of memory in bytes.
    pub(crate) memory_limit: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: Option<u64>,
    /// Kills for want of memory.
    pub(crate) oom_kills: Option<u64>,
}

impl Usage {
    /// Reads the message; `None` of a type that CRI would refuse too.
    pub(crate) fn of(any: &Any) -> Option<Self> {
        match any.type_url.rsplit('/').next()? {
            "io.containerd.cgroups.v1.Metrics" => {
                v1::Metrics::parse_from_bytes(&any.value).ok().map(|metrics| of_v1(&metrics))
            }
            "io.containerd.cgroups.v2.Metrics" => {
                v2::Metrics::parse_from_bytes(&any.value).ok().map(|metrics| of_v2(&metrics))
            }
            _ => None,
        }
    }
}

/// Times are in nanoseconds.
fn of_v1(metrics: &v1::Metrics) -> Usage {
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let cpu = metrics.cpu.as_ref();
    let memory = metrics.memory.as_ref();
    let usage = memory.and_then(|memory| memory.usage.as_ref());
    Usage {
        cpu: cpu.and_then(|cpu| cpu.usage.as_ref()).map(|usage| seconds(usage.total)),
        throttled: cpu
            .and_then(|cpu| cpu.throttling.as_ref())
            .map(|throttle| seconds(throttle.throttled_time)),
        working_set: memory
            .zip(usage)
            .map(|(memory, usage)| usage.usage.saturating_sub(memory.total_inactive_file)),
        memory_limit: usage.map(|usage| usage.limit).filter(|limit| *limit < NO_LIMIT),
        pids: metrics.pids.as_ref().map(|pids| pids.current),
        oom_kills: metrics.memory_oom_control.as_ref().map(|oom| oom.oom_kill),
    }
}

/// Times are in microseconds.
fn of_v2(metrics: &v2::Metrics) -> Usage {
    let seconds = |micros: u64| micros as f64 / 1e6;
    let (cpu, memory) = (metrics.cpu.as_ref(), metrics.memory.as_ref());
    Usage {
        cpu: cpu.map(|cpu| seconds(cpu.usage_usec)),
        throttled: cpu.map(|cpu| seconds(cpu.throttled_usec)),
        working_set: memory.map(|memory| memory.usage.saturating_sub(memory.inactive_file)),
        memory_limit: memory.map(|memory| memory.usage_limit).filter(|limit| *limit < NO_LIMIT),
        pids: metrics.pids.as_ref().map(|pids| pids.current),
        oom_kills: metrics.memory_events.as_ref().map(|events| events.oom_kill),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::MessageField;

    fn any(version: u8, value: Vec<u8>) -> Any {
        Any { type_url: format!("io.containerd.cgroups.v{version}.Metrics"), value }
    }

    #[test]
    fn version_1_counts_nanoseconds() {
        let cpu = v1::CPUStat {
            usage: MessageField::some(v1::CPUUsage { total: 1_500_000_000, ..Default::default() }),
            throttling: MessageField::some(v1::Throttle {
                throttled_time: 250_000_000,
                ..Default::default()
            }),
            ..Default::default()
        };
        let usage =
            v1::MemoryEntry { usage: 1000, limit: 0x7fff_ffff_ffff_f000, ..Default::default() };
        let memory = v1::MemoryStat {
            usage: MessageField::some(usage),
            total_inactive_file: 400,
            inactive_file: 1,
            ..Default::default()
        };
        let metrics = v1::Metrics {
            cpu: MessageField::some(cpu),
            memory: MessageField::some(memory),
            ..Default::default()
        };
        let told = Usage::of(&any(1, metrics.write_to_bytes().unwrap())).unwrap();
        let wanted = Usage {
            cpu: Some(1.5),
            throttled: Some(0.25),
            working_set: Some(600),
            ..Usage::default()
        };
        assert_eq!(told, wanted);
    }

    #[test]
    fn version_2_counts_microseconds() {
        let metrics = v2::Metrics {
            cpu: MessageField::some(v2::CPUStat {
                usage_usec: 2_500_000,
                throttled_usec: 1,
                ..Default::default()
            }),
            memory: MessageField::some(v2::MemoryStat {
                usage: 100,
                inactive_file: 200,
                usage_limit: 64 << 20,
                ..Default::default()
            }),
            pids: MessageField::some(v2::PidsStat { current: 3, ..Default::default() }),
            memory_events: MessageField::some(v2::MemoryEvents {
                oom_kill: 2,
                ..Default::default()
            }),
            ..Default::default()
        };
        let told = Usage::of(&any(2, metrics.write_to_bytes().unwrap())).unwrap();
        let wanted = Usage {
            cpu: Some(2.5),
            throttled: Some(1e-6),
            working_set: Some(0),
            memory_limit: Some(64 << 20),
            pids: Some(3),
            oom_kills: Some(2),
        };
        assert_eq!(told, wanted);
    }

    #[test]
    fn what_is_no_such_message_is_nothing() {
        assert_eq!(Usage::of(&any(3, vec![])), None);
        assert_eq!(Usage::of(&any(2, vec![0xff; 7])), None);
        assert_eq!(Usage::of(&Any::default()), None);
        assert_eq!(Usage::of(&any(1, vec![])), Some(Usage::default()));
    }
}
