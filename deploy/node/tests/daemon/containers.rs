//! What containers use, how they begin and how they end.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::bed::{Spec, eventually, unique};
use crate::node::{Metrics, Node, import, is, run};
use crate::own_bed::{OwnBed, on_each_containerd, shims_of};
use crate::pack::{Form, Image};

const POD: [&str; 8] = [
    "--label",
    "io.kubernetes.pod.namespace=shop",
    "--label",
    "io.kubernetes.pod.name=cart-0",
    "--label",
    "io.kubernetes.pod.uid=1-2-3",
    "--label",
    "io.kubernetes.container.name=web",
];
const LABELS: &str = "{namespace=\"shop\",pod=\"cart-0\",container=\"web\",uid=\"1-2-3\"}";

/// What takes memory that `memory.grow` knows nothing of: 72 MB of a table.
const HOG: &str = r#"(memory (export "memory") 1) (table $all 0 funcref) (elem declare func $self)
    (func $self (export "_start") (drop (table.grow $all (ref.func $self) (i32.const 9000000))))"#;

/// A container that sleeps, its id.
fn sleeper(bed: &OwnBed, flags: &[&str]) -> Result<String, String> {
    bed.daemon.start(&Spec { image: "sleep:rootfs", args: &["1000"], flags, ..Spec::default() })
}

/// The pid of a task's first process.
fn pid(bed: &OwnBed, id: &str) -> Result<u32, String> {
    let list = bed.daemon.call(&["tasks", "list"], None).stdout;
    let line = list.lines().find(|line| line.starts_with(&format!("{id} ")));
    let pid = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    pid.ok_or_else(|| format!("no task {id} in {list}"))
}

/// A file of a process's control group, whatever the version.
fn group_file(pid: u32, name: &str) -> Option<PathBuf> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts: Vec<&str> = mounts
        .lines()
        .filter(|line| line.starts_with("cgroup"))
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths
        .flat_map(|path| {
            mounts.iter().map(move |mount| PathBuf::from(format!("{mount}{path}/{name}")))
        })
        .find(|file| file.exists())
}

fn number(pid: u32, name: &str) -> Option<f64> {
    std::fs::read_to_string(group_file(pid, name)?).ok()?.trim().parse().ok()
}

fn line(pid: u32, file: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(group_file(pid, file)?).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// Processor time of a group in seconds, and its memory without inactive files in bytes.
fn used(pid: u32) -> Option<(f64, f64)> {
    let cpu = match number(pid, "cpuacct.usage") {
        Some(nanos) => nanos / 1e9,
        None => line(pid, "cpu.stat", "usage_usec")? / 1e6,
    };
    let memory = match number(pid, "memory.usage_in_bytes") {
        Some(usage) => usage - line(pid, "memory.stat", "total_inactive_file")?,
        None => number(pid, "memory.current")? - line(pid, "memory.stat", "inactive_file")?,
    };
    Some((cpu, memory))
}

#[test]
fn what_a_container_uses_is_what_its_control_group_says() {
    on_each_containerd(|bed| {
        let node = Node::start(bed, &["--no-precompile"], &[])?;
        let limit = ["--memory-limit", "67108864"];
        let id = sleeper(bed, &[&POD[..], &limit].concat())?;
        let pid = pid(bed, &id)?;
        let of = |metrics: &Metrics, name: &str| {
            let series = format!("coracle_container_{name}{LABELS}");
            metrics.value(&series).ok_or_else(|| format!("no {series} in\n{}", metrics.0))
        };
        let before = used(pid).ok_or("no control group")?;
        let metrics = node.metrics()?;
        let after = used(pid).ok_or("no control group")?;
        let cpu = of(&metrics, "cpu_usage_seconds_total")?;
        if !(before.0..=after.0).contains(&cpu) || cpu == 0.0 {
            return Err(format!("{cpu} s are not between {before:?} and {after:?}"));
        }
        let memory = of(&metrics, "memory_working_set_bytes")?;
        if (memory - after.1).abs() > 1_048_576.0 || memory < 65_536.0 {
            return Err(format!("{memory} bytes are not {after:?}"));
        }
        for (name, value) in [
            ("memory_limit_bytes", 67_108_864.0),
            ("cpu_throttled_seconds_total", 0.0),
            ("oom_events_total", 0.0),
            ("processes", number(pid, "pids.current").ok_or("no pids")?),
        ] {
            let found = of(&metrics, name)?;
            if found != value {
                return Err(format!("{name} is {found}, not {value}"));
            }
        }
        is(&metrics, "coracle_tasks{state=\"running\"}", 1.0)?;
        bed.remove(&id)?;
        let metrics = node.metrics()?;
        is(&metrics, "coracle_tasks{state=\"running\"}", 0.0)?;
        if metrics.0.contains("cart-0") {
            Err("it is gone, and still told of".into())
        } else {
            Ok(())
        }
    });
}

#[test]
fn beginnings_and_ends_are_counted() {
    on_each_containerd(|bed| {
        let node = Node::start(bed, &["--no-precompile"], &[])?;
        let good = Image::pack(&unique("good"), Form::Rootfs);
        let trap =
            Image::of(&unique("trap"), Form::Rootfs, "(func (export \"_start\") unreachable)");
        let hog = Image::of(&unique("hog"), Form::Layer, HOG);
        let bad = Image::of(&unique("bad"), Form::Rootfs, "(func (result i32))");
        for image in [&good, &trap, &hog, &bad] {
            import(bed, image)?;
        }
        for (image, flags, code) in [
            (&good, &[][..], 0),
            (&good, &[], 0),
            (&trap, &[], 134),
            (&hog, &["--memory-limit", "33554432"], 137),
        ] {
            let done = run(bed, image, flags);
            done.expect(&format!("{code} of {}", image.name), done.code == code)?;
        }
        let done = run(bed, &bad, &[]);
        done.expect("a failure", done.code != 0)?;
        let code = Spec { image: "exit-code:rootfs", args: &["42"], ..Spec::default() };
        bed.daemon.run(&code)?.expect("42", true)?;
        let linux = Spec { image: "busybox:rootfs", args: &["true"], ..Spec::default() };
        let done = bed.daemon.run(&linux)?;
        done.expect("a Linux program", done.code == 0)?;

        node.becomes("coracle_container_exits_total{end=\"success\"}", 3.0)?;
        node.becomes("coracle_container_start_failures_total", 1.0)?;
        let metrics = node.metrics()?;
        for (series, value) in [
            ("coracle_container_exits_total{end=\"failure\"}", 1.0),
            ("coracle_container_exits_total{end=\"trap\"}", 1.0),
            ("coracle_container_exits_total{end=\"signal\"}", 1.0),
            ("coracle_traps_total{kind=\"unreachable\"}", 1.0),
            ("coracle_oom_events_total", 1.0),
            ("coracle_container_starts_total{program=\"wasm\"}", 5.0),
            ("coracle_container_starts_total{program=\"linux\"}", 1.0),
            ("coracle_cache_hits_total", 1.0),
            ("coracle_cache_misses_total", 4.0),
            ("coracle_compile_seconds_count{by=\"start\"}", 4.0),
            ("coracle_compile_failures_total", 1.0),
            ("coracle_container_create_seconds_count{code=\"hit\"}", 1.0),
            ("coracle_container_start_seconds_count{code=\"compiled\"}", 4.0),
            ("coracle_figures_unreadable_total", 0.0),
        ] {
            is(&metrics, series, value)?;
        }
        let start = metrics.count("coracle_container_start_seconds_sum{code=\"hit\"}");
        if start > 0.0 && start < 1.0 { Ok(()) } else { Err(format!("a start took {start} s")) }
    });
}

#[test]
fn a_shim_that_hangs_costs_its_own_figures() {
    on_each_containerd(|bed| {
        let node = Node::start(bed, &["--no-precompile"], &[])?;
        let (stuck, well) = (sleeper(bed, &[])?, sleeper(bed, &POD)?);
        node.becomes("coracle_tasks{state=\"running\"}", 2.0)?;
        let shims = shims_of(&stuck);
        let signal = |signal| {
            for pid in shims.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
                let _ = kill_process(pid, signal);
            }
        };
        if shims.is_empty() {
            return Err(format!("no shim of {stuck}"));
        }
        signal(Signal::STOP);
        let page = node.get("/metrics");
        signal(Signal::CONT);
        let page = page?;
        if page.time > Duration::from_secs(4) {
            return Err(format!("it took {:?}", page.time));
        }
        let metrics = Metrics(page.body);
        is(&metrics, "coracle_tasks{state=\"unknown\"}", 1.0)?;
        is(&metrics, "coracle_tasks{state=\"running\"}", 1.0)?;
        is(&metrics, "coracle_containers_unreported", 1.0)?;
        is(&metrics, &format!("coracle_container_processes{LABELS}"), 1.0)?;
        eventually("both to be told of", || {
            node.metrics()
                .is_ok_and(|metrics| metrics.count("coracle_tasks{state=\"running\"}") == 2.0)
        })?;
        bed.remove(&stuck)?;
        bed.remove(&well)
    });
}

/// Many containers are a bounded number of series.
#[test]
fn containers_beyond_the_limit_are_a_number() {
    on_each_containerd(|bed| {
        let node = Node::start(bed, &["--no-precompile", "--max-containers", "1"], &[])?;
        let both = [sleeper(bed, &[])?, sleeper(bed, &[])?];
        let metrics = node.metrics()?;
        is(&metrics, "coracle_containers_unreported", 1.0)?;
        let told =
            metrics.0.lines().filter(|line| line.starts_with("coracle_container_processes{"));
        let told = told.count();
        for id in &both {
            bed.remove(id)?;
        }
        if told == 1 { Ok(()) } else { Err(format!("{told} containers are told of")) }
    });
}

impl OwnBed {
    fn remove(&self, id: &str) -> Result<(), String> {
        self.daemon.remove(id)
    }
}
