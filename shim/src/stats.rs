//! Statistics on the wire: `io.containerd.cgroups.v1.Metrics` or `io.containerd.cgroups.v2.Metrics`,
//! whichever the host counts. Who reads them takes the type for the host's version.
//!
//! Absent stays absent where the message can say so, for a 0 would be drawn into a curve.

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, Message, MessageField};
use coracle_oci::cgroup::stats::{
    BlkIoEntry, Counter, HugePages, Pids, Pressure, RdmaEntry, Stall, Stats, V1Memory, V1Stats,
    V2Memory, V2Stats,
};

/// The names by which containerd's clients know the two messages.
const V1: &str = "io.containerd.cgroups.v1.Metrics";
const V2: &str = "io.containerd.cgroups.v2.Metrics";

/// The message for a group's statistics.
///
/// # Errors
/// When it cannot be encoded.
pub fn message(stats: &Stats) -> Result<Any, protobuf::Error> {
    let (name, value) = match stats {
        Stats::V1(stats) => (V1, metrics_v1(stats).write_to_bytes()?),
        Stats::V2(stats) => (V2, metrics_v2(stats).write_to_bytes()?),
    };
    Ok(Any { type_url: name.to_owned(), value, ..Any::default() })
}

fn metrics_v1(stats: &V1Stats) -> v1::Metrics {
    let memory_oom_control = stats.memory.as_ref().map(|memory| v1::MemoryOomControl {
        oom_kill_disable: memory.oom.get("oom_kill_disable"),
        under_oom: memory.oom.get("under_oom"),
        oom_kill: memory.oom.get("oom_kill"),
        ..Default::default()
    });
    // On v1 no limit is 0 here; on v2 it is the largest number.
    let pids = |pids: &Pids| v1::PidsStat {
        current: pids.current,
        limit: pids.limit.unwrap_or(0),
        ..Default::default()
    };
    v1::Metrics {
        hugetlb: stats.huge_pages.iter().map(huge_pages_v1).collect(),
        pids: stats.pids.as_ref().map(pids).into(),
        cpu: MessageField::some(cpu_v1(stats)),
        memory: stats.memory.as_ref().map(memory_v1).into(),
        blkio: MessageField::some(blkio(stats)),
        rdma: MessageField::some(v1::RdmaStat {
            current: stats.rdma.current.iter().map(rdma_v1).collect(),
            limit: stats.rdma.limit.iter().map(rdma_v1).collect(),
            ..Default::default()
        }),
        memory_oom_control: memory_oom_control.into(),
        ..Default::default()
    }
}

fn cpu_v1(stats: &V1Stats) -> v1::CPUStat {
    let cpu = &stats.cpu;
    v1::CPUStat {
        usage: MessageField::some(v1::CPUUsage {
            total: cpu.total,
            kernel: cpu.kernel,
            user: cpu.user,
            per_cpu: cpu.per_cpu.clone(),
            ..Default::default()
        }),
        throttling: MessageField::some(v1::Throttle {
            periods: cpu.throttling.get("nr_periods"),
            throttled_periods: cpu.throttling.get("nr_throttled"),
            throttled_time: cpu.throttling.get("throttled_time"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn memory_v1(memory: &V1Memory) -> v1::MemoryStat {
    let stat = |name| memory.stat.get(name);
    let entry = |counter: &Counter| v1::MemoryEntry {
        limit: counter.limit,
        usage: counter.usage,
        max: counter.max,
        failcnt: counter.failures,
        ..Default::default()
    };
    v1::MemoryStat {
        cache: stat("cache"),
        rss: stat("rss"),
        rss_huge: stat("rss_huge"),
        mapped_file: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        pg_pg_in: stat("pgpgin"),
        pg_pg_out: stat("pgpgout"),
        pg_fault: stat("pgfault"),
        pg_maj_fault: stat("pgmajfault"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchical_memory_limit: stat("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat("hierarchical_memsw_limit"),
        total_cache: stat("total_cache"),
        total_rss: stat("total_rss"),
        total_rss_huge: stat("total_rss_huge"),
        total_mapped_file: stat("total_mapped_file"),
        total_dirty: stat("total_dirty"),
        total_writeback: stat("total_writeback"),
        total_pg_pg_in: stat("total_pgpgin"),
        total_pg_pg_out: stat("total_pgpgout"),
        total_pg_fault: stat("total_pgfault"),
        total_pg_maj_fault: stat("total_pgmajfault"),
        total_inactive_anon: stat("total_inactive_anon"),
        total_active_anon: stat("total_active_anon"),
        total_inactive_file: stat("total_inactive_file"),
        total_active_file: stat("total_active_file"),
        total_unevictable: stat("total_unevictable"),
        usage: MessageField::some(entry(&memory.memory)),
        swap: memory.swap.as_ref().map(entry).into(),
        kernel: memory.kernel.as_ref().map(entry).into(),
        kernel_tcp: memory.kernel_tcp.as_ref().map(entry).into(),
        ..Default::default()
    }
}

fn blkio(stats: &V1Stats) -> v1::BlkIOStat {
    let entry = |entry: &BlkIoEntry| v1::BlkIOEntry {
        op: entry.op.clone(),
        device: entry.device.clone(),
        major: entry.major,
        minor: entry.minor,
        value: entry.value,
        ..Default::default()
    };
    let all = |entries: &[BlkIoEntry]| entries.iter().map(entry).collect::<Vec<_>>();
    let blkio = &stats.blkio;
    v1::BlkIOStat {
        io_service_bytes_recursive: all(&blkio.service_bytes),
        io_serviced_recursive: all(&blkio.serviced),
        io_queued_recursive: all(&blkio.queued),
        io_service_time_recursive: all(&blkio.service_time),
        io_wait_time_recursive: all(&blkio.wait_time),
        io_merged_recursive: all(&blkio.merged),
        io_time_recursive: all(&blkio.time),
        sectors_recursive: all(&blkio.sectors),
        ..Default::default()
    }
}

fn huge_pages_v1(pages: &HugePages) -> v1::HugetlbStat {
    v1::HugetlbStat {
        usage: pages.usage,
        max: pages.max,
        failcnt: pages.failures,
        pagesize: pages.page_size.clone(),
        ..Default::default()
    }
}

fn rdma_v1(entry: &RdmaEntry) -> v1::RdmaEntry {
    v1::RdmaEntry {
        device: entry.device.clone(),
        hca_handles: entry.handles,
        hca_objects: entry.objects,
        ..Default::default()
    }
}

fn metrics_v2(stats: &V2Stats) -> v2::Metrics {
    let pids = |pids: &Pids| v2::PidsStat {
        current: pids.current,
        limit: pids.limit.unwrap_or(u64::MAX),
        ..Default::default()
    };
    v2::Metrics {
        pids: stats.pids.as_ref().map(pids).into(),
        cpu: MessageField::some(cpu_v2(stats)),
        memory: stats.memory.as_ref().map(memory_v2).into(),
        rdma: MessageField::some(v2::RdmaStat {
            current: stats.rdma.current.iter().map(rdma_v2).collect(),
            limit: stats.rdma.limit.iter().map(rdma_v2).collect(),
            ..Default::default()
        }),
        io: MessageField::some(io_v2(stats)),
        hugetlb: stats.huge_pages.iter().map(huge_pages_v2).collect(),
        memory_events: stats.memory.as_ref().map(memory_events).into(),
        ..Default::default()
    }
}

fn cpu_v2(stats: &V2Stats) -> v2::CPUStat {
    let stat = |name| stats.cpu.stat.get(name);
    v2::CPUStat {
        usage_usec: stat("usage_usec"),
        user_usec: stat("user_usec"),
        system_usec: stat("system_usec"),
        nr_periods: stat("nr_periods"),
        nr_throttled: stat("nr_throttled"),
        throttled_usec: stat("throttled_usec"),
        nr_bursts: stat("nr_bursts"),
        burst_usec: stat("burst_usec"),
        psi: psi(stats.cpu.pressure),
        ..Default::default()
    }
}

fn memory_v2(memory: &V2Memory) -> v2::MemoryStat {
    let stat = |name| memory.stat.get(name);
    // Since Linux 5.9 there is one number for each kind of memory, and none for both.
    let both = |name: &str| {
        let of = |kind| memory.stat.get(&format!("{name}_{kind}"));
        memory.stat.find(name).unwrap_or_else(|| of("anon").saturating_add(of("file")))
    };
    v2::MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        workingset_refault: both("workingset_refault"),
        workingset_activate: both("workingset_activate"),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        usage: memory.usage,
        usage_limit: memory.limit,
        swap_usage: memory.swap_usage,
        swap_limit: memory.swap_limit,
        max_usage: memory.peak,
        swap_max_usage: memory.swap_peak,
        psi: psi(memory.pressure),
        ..Default::default()
    }
}

fn memory_events(memory: &V2Memory) -> v2::MemoryEvents {
    let count = |name| memory.events.get(name);
    v2::MemoryEvents {
        low: count("low"),
        high: count("high"),
        max: count("max"),
        oom: count("oom"),
        oom_kill: count("oom_kill"),
        oom_group_kill: count("oom_group_kill"),
        ..Default::default()
    }
}

fn io_v2(stats: &V2Stats) -> v2::IOStat {
    let entry = |entry: &coracle_oci::cgroup::stats::IoEntry| v2::IOEntry {
        major: entry.major,
        minor: entry.minor,
        rbytes: entry.read_bytes,
        wbytes: entry.written_bytes,
        rios: entry.reads,
        wios: entry.writes,
        ..Default::default()
    };
    v2::IOStat {
        usage: stats.io.iter().map(entry).collect(),
        psi: psi(stats.io_pressure),
        ..Default::default()
    }
}

fn psi(pressure: Option<Pressure>) -> MessageField<v2::PSIStats> {
    let stall = |stall: Stall| v2::PSIData {
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
        total: stall.total,
        ..Default::default()
    };
    let both = |pressure: Pressure| v2::PSIStats {
        some: pressure.some.map(stall).into(),
        full: pressure.full.map(stall).into(),
        ..Default::default()
    };
    pressure.map(both).into()
}

fn huge_pages_v2(pages: &HugePages) -> v2::HugeTlbStat {
    v2::HugeTlbStat {
        current: pages.usage,
        max: pages.max,
        pagesize: pages.page_size.clone(),
        failcnt: pages.failures,
        ..Default::default()
    }
}

fn rdma_v2(entry: &RdmaEntry) -> v2::RdmaEntry {
    v2::RdmaEntry {
        device: entry.device.clone(),
        hca_handles: entry.handles,
        hca_objects: entry.objects,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_oci::cgroup::stats::Flat;

    #[test]
    fn v1_has_the_working_set_and_says_what_is_not_counted() {
        let memory = V1Memory {
            stat: Flat::parse("total_inactive_file 24577\npgpgin 5\nhierarchical_memsw_limit 9\n"),
            memory: Counter { limit: 4, usage: 3, max: 2, failures: 1 },
            ..V1Memory::default()
        };
        let pids = Some(Pids { current: 1, limit: None });
        let stats = V1Stats { memory: Some(memory), pids, ..V1Stats::default() };
        let any = message(&Stats::V1(Box::new(stats))).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let read = v1::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((read.memory.total_inactive_file, read.memory.pg_pg_in), (24577, 5));
        assert_eq!(read.memory.hierarchical_swap_limit, 9);
        let usage = &read.memory.usage;
        assert_eq!((usage.limit, usage.usage, usage.max, usage.failcnt), (4, 3, 2, 1));
        assert!(read.memory.swap.is_none() && read.memory.kernel.is_none());
        assert_eq!((read.pids.current, read.pids.limit), (1, 0));
    }

    #[test]
    fn v2_has_pressure_and_one_number_for_both_kinds_of_memory() {
        let stall = Some(Stall { avg10: 1.5, total: 9, ..Stall::default() });
        let memory = V2Memory {
            stat: Flat::parse(
                "inactive_file 7\nworkingset_refault_anon 3\nworkingset_refault_file 4\n",
            ),
            limit: u64::MAX,
            events: Flat::parse("oom_kill 2\n"),
            ..V2Memory::default()
        };
        let mut stats = V2Stats { memory: Some(memory), ..V2Stats::default() };
        stats.cpu.pressure = Some(Pressure { some: stall, full: None });
        stats.pids = Some(Pids { current: 1, limit: None });
        let any = message(&Stats::V2(Box::new(stats))).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let read = v2::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((read.memory.inactive_file, read.memory.workingset_refault), (7, 7));
        assert_eq!((read.memory.usage_limit, read.pids.limit), (u64::MAX, u64::MAX));
        assert_eq!(read.memory_events.oom_kill, 2);
        assert_eq!((read.cpu.psi.some.avg10, read.cpu.psi.some.total), (1.5, 9));
        assert!(read.cpu.psi.full.is_none() && read.io.psi.is_none());
    }
}
