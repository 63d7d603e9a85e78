//! Much output: the shim's memory does not grow with it, whoever reads, dies or never reads.
//!
//! `CORACLE_FLOOD_MIB` says how much each program writes; 1024 MiB if it does not.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::Status;

use crate::harness::{Containerd, Shim, pause_spec, request, spec};
use crate::programs::module;

/// What the shim may take more at its peak than before the flood.
const MOST_KIB: u64 = 8 << 10;

fn amount() -> u64 {
    let said = std::env::var("CORACLE_FLOOD_MIB").ok();
    said.map_or(1024, |text| text.parse().expect("CORACLE_FLOOD_MIB is a number")) << 20
}

/// A program that writes so many bytes to its standard output, in pieces of 32 KiB.
fn program(bytes: u64) -> String {
    module(&format!(
        r#"(data (i32.const 0) "\00\04\00\00\00\80\00\00")
        (func (export "_start") (local $left i64)
            (local.set $left (i64.const {bytes}))
            (loop $again
                (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
                    (then (call $exit (i32.const 1))))
                (local.set $left (i64.sub (local.get $left) (i64.load32_u (i32.const 8))))
                (br_if $again (i64.gt_s (local.get $left) (i64.const 0)))))"#
    ))
}

struct Flood {
    containerd: Containerd,
    shim: Shim,
    bundle: PathBuf,
    before: u64,
}

impl Flood {
    async fn new() -> Self {
        let containerd = Containerd::new().await;
        let bundle = containerd.bundle("c", &spec(&["/app.wat"]));
        std::fs::write(bundle.join("rootfs/app.wat"), program(amount())).unwrap();
        let shim = containerd.start("c", &bundle).await;
        let before = peak(shim.pid);
        Self { containerd, shim, bundle, before }
    }

    /// Starts the program with its output going there.
    async fn start(&self, out: &str) {
        let mut create = request("c", &self.bundle);
        create.stdout = out.to_owned();
        self.shim.create_with(create).await.unwrap();
        self.shim.start("c").await.unwrap();
    }

    fn fifo(&self) -> PathBuf {
        let path = self.containerd.dir.path().join("out");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }

    /// Waits for its end, however long that much output takes.
    async fn ended(&self) -> u32 {
        let deadline = Instant::now() + Duration::from_secs(60 + (amount() >> 24));
        while self.shim.status("c").await != Status::STOPPED {
            assert!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.shim.wait("c").await.unwrap().exit_status
    }

    /// Another container of the shim lives and ends meanwhile.
    async fn harms_nobody(&self) {
        let bundle = self.containerd.bundle("n", &pause_spec("c"));
        self.shim.create("n", &bundle).await.unwrap();
        self.shim.start("n").await.unwrap();
        self.shim.kill("n", libc::SIGKILL).await.unwrap();
        assert_eq!(self.shim.wait("n").await.unwrap().exit_status, 137);
        self.shim.delete("n").await.unwrap();
    }

    async fn leave(self) {
        let grown = peak(self.shim.pid).saturating_sub(self.before);
        eprintln!("{} MiB of output: the shim took {grown} KiB more", amount() >> 20);
        assert!(grown < MOST_KIB, "the shim took {grown} KiB more");
        self.shim.delete("c").await.unwrap();
        self.shim.shut_down().await;
        self.containerd.assert_clean(&["c"]);
    }
}

/// The most memory that a process ever had, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// How much time of the processor a process has used, in clock ticks.
fn worked(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn a_reader_gets_all_of_it() {
    let flood = Flood::new().await;
    let out = flood.fifo();
    let path = out.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let (mut file, mut piece, mut total) = (File::open(path).unwrap(), vec![0; 1 << 20], 0);
        while let Ok(count @ 1..) = file.read(&mut piece) {
            total += count as u64;
        }
        total
    });
    flood.start(out.to_str().unwrap()).await;
    flood.harms_nobody().await;
    assert_eq!(flood.ended().await, 0);
    flood.leave().await;
    assert_eq!(reader.await.unwrap(), amount());
}

/// The program waits, and can be killed. So it does when the reader is gone: another may come.
#[tokio::test]
async fn a_reader_that_never_reads_or_goes_away_stops_the_program_alone() {
    for goes in [false, true] {
        let flood = Flood::new().await;
        let out = flood.fifo();
        let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&out).unwrap();
        flood.start(out.to_str().unwrap()).await;
        let kept = (!goes).then_some(reader);
        flood.harms_nobody().await;
        assert_eq!(flood.shim.status("c").await, Status::RUNNING);
        let before = worked(flood.shim.pid);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(worked(flood.shim.pid) - before < 10, "the shim works though nothing flows");
        flood.shim.kill("c", libc::SIGKILL).await.unwrap();
        assert_eq!(flood.ended().await, 137);
        drop(kept);
        flood.leave().await;
    }
}

/// What a dead logger does not read is thrown away: by the shim, all of it.
#[tokio::test]
async fn a_logger_that_dies_lets_it_flow() {
    let flood = Flood::new().await;
    let logger = flood.containerd.dir.path().join("logger.sh");
    std::fs::write(&logger, "#!/bin/sh\nexec 5>&-\nhead -c 100000 <&3 >/dev/null\nexit 1\n")
        .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&logger, mode).unwrap();
    flood.start(&format!("binary://{}", logger.display())).await;
    flood.harms_nobody().await;
    assert_eq!(flood.ended().await, 0);
    flood.leave().await;
}
