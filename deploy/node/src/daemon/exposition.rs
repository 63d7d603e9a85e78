//! What was read at a scrape, in Prometheus' words.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::scrape::{STATES, Scrape};
use super::usage::Usage;

/// The last scrape, for the text encoder.
#[derive(Debug)]
pub(crate) struct Collected(pub(crate) Arc<Mutex<Scrape>>);

/// A figure of which there is one.
struct One {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: fn(&Scrape) -> u64,
}

const ONES: [One; 7] = [
    One {
        name: "containerd_up",
        help: "1 while the daemon hears containerd's events",
        unit: None,
        value: |scrape| u64::from(scrape.connected),
    },
    One {
        name: "cache_entries",
        help: "Entries of the cache",
        unit: None,
        value: |scrape| scrape.cache.entries as u64,
    },
    One {
        name: "cache_entries_limit",
        help: "Entries that the cache may have",
        unit: None,
        value: |scrape| scrape.cache_bounds.entries as u64,
    },
    One {
        name: "cache_size",
        help: "What the cache takes of the disk",
        unit: Some(Unit::Bytes),
        value: |scrape| scrape.cache.bytes,
    },
    One {
        name: "cache_size_limit",
        help: "What the cache may take of the disk",
        unit: Some(Unit::Bytes),
        value: |scrape| scrape.cache_bounds.bytes,
    },
    One {
        name: "precompilations_waiting",
        help: "Images that are still to be looked at",
        unit: None,
        value: |scrape| scrape.waiting as u64,
    },
    One {
        name: "containers_unreported",
        help: "Containers of which nothing is told: beyond the limit, or their shims were too slow",
        unit: None,
        value: |scrape| scrape.unreported as u64,
    },
];

/// A figure of each container.
struct Each {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    value: fn(&Usage) -> Option<f64>,
}

const EACH: [Each; 6] = [
    Each {
        name: "container_cpu_usage",
        help: "Processor time that the container has used",
        unit: Some(Unit::Seconds),
        kind: MetricType::Counter,
        value: |usage| usage.cpu,
    },
    Each {
        name: "container_cpu_throttled",
        help: "Time in which its limit kept the container from its processors",
        unit: Some(Unit::Seconds),
        kind: MetricType::Counter,
        value: |usage| usage.throttled,
    },
    Each {
        name: "container_memory_working_set",
        help: "Memory of the container without the files that could be dropped",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        value: |usage| usage.working_set.map(|bytes| bytes as f64),
    },
    Each {
        name: "container_memory_limit",
        help: "The limit of its memory; absent without one",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        value: |usage| usage.memory_limit.map(|bytes| bytes as f64),
    },
    Each {
        name: "container_processes",
        help: "Processes and threads of the container",
        unit: None,
        kind: MetricType::Gauge,
        value: |usage| usage.pids.map(|pids| pids as f64),
    },
    Each {
        name: "container_oom_events",
        help: "Times that the kernel killed in the container for want of memory",
        unit: None,
        kind: MetricType::Counter,
        value: |usage| usage.oom_kills.map(|kills| kills as f64),
    },
];

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let scrape = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for One { name, help, unit, value } in &ONES {
            let gauge = MetricType::Gauge;
            let metric = encoder.encode_descriptor(name, help, unit.as_ref(), gauge)?;
            whole(value(&scrape)).encode(metric)?;
        }
        let help = "Tasks of containers by state; unknown are those whose shims do not answer";
        let mut tasks = encoder.encode_descriptor("tasks", help, None, MetricType::Gauge)?;
        for state in STATES {
            let count = scrape.tasks.get(state).copied().unwrap_or(0);
            whole(count as u64).encode(tasks.encode_family(&[("state", state)])?)?;
        }
        EACH.iter().try_for_each(|each| each.encode(&mut encoder, &scrape))
    }
}

impl Each {
    fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        scrape: &Scrape,
    ) -> Result<(), fmt::Error> {
        if scrape.containers.is_empty() {
            return Ok(());
        }
        let Self { name, help, unit, kind, value } = self;
        let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), *kind)?;
        for (whose, usage) in &scrape.containers {
            let Some(value) = value(usage) else { continue };
            let one = metric.encode_family(whose)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value).encode(one)?,
                _ => ConstGauge::new(value).encode(one)?,
            }
        }
        Ok(())
    }
}

fn whole(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
