//! What the shim gives a compile worker and what it takes from it, seen from inside.
//!
//! This executable is both sides: run as `compile-worker`, it plays a compiler that reports what it
//! finds around itself, or misbehaves in the way its "module" names. What the real one takes from itself
//! is tested where it is written, in `deploy`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::io::{Read, Seek, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coracle_engine::compile::compile;
use coracle_engine::config::Settings;
use coracle_engine::image::CodeImage;
use coracle_engine::snapshot;
use coracle_shim::compile::{Afterwork, Compilation, CompileError, Job};
use coracle_shim::config::CompileLimits;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|arg| arg == "compile-worker") {
        return worker();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        it_gets_what_it_needs_and_no_more().await;
        one_that_was_killed_is_tried_again().await;
        its_words_are_the_reason().await;
        limits_hold().await;
        it_is_stopped().await;
        garbage_is_no_image().await;
        other_code_is_no_snapshot().await;
    });
    println!("compile worker: ok");
    ExitCode::SUCCESS
}

const GROUP: &str = "/coracle-compile-tests-worker";

const LIMITS: CompileLimits =
    CompileLimits { wall: Duration::from_secs(20), memory: 512 << 20, output: 1 << 20 };

fn begin(module: &str, limits: CompileLimits) -> Compilation {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(module.as_bytes()).unwrap();
    file.rewind().unwrap();
    let compiler = std::env::current_exe().unwrap();
    let (origin, group) = ("/app.wasm".into(), GROUP.into());
    let (lazy, initialize, afterwork) = (false, None, Afterwork::default());
    let (module, slot) = (file, None);
    let job = Job { module, origin, limits, compiler, slot, group, initialize, lazy, afterwork };
    Compilation::begin(job)
}

async fn fails(module: &str, limits: CompileLimits) -> CompileError {
    begin(module, limits).ready().await.expect_err("no image can come of this")
}

async fn it_gets_what_it_needs_and_no_more() {
    let CompileError::Rejected { reason, .. } = fails("inspect", LIMITS).await else {
        panic!("the worker did not report")
    };
    let processors = std::thread::available_parallelism().unwrap().get();
    let space = (512 << 20) + processors * (128 << 20);
    let limits = format!("as {space} fsize 1048576 nofile 16 core 0");
    let facts = [
        "NoNewPrivs 1",
        "fds 0 1 2",
        "env 0",
        "cwd /",
        "module-writable false",
        &limits,
        "death-signal 9",
        "own cgroup true",
    ];
    assert_eq!(reason.split("; ").collect::<Vec<_>>(), facts);
}

/// A5.
async fn one_that_was_killed_is_tried_again() {
    let begun = Instant::now();
    let killed = fails("suicide", LIMITS).await;
    assert!(matches!(killed, CompileError::Killed { .. }), "{killed}");
    assert!(begun.elapsed() >= Duration::from_millis(200), "it was not tried again");
}

async fn its_words_are_the_reason() {
    let silent = fails("silent", LIMITS).await.to_string();
    assert_eq!(silent, "cannot compile /app.wasm: the compiler ended with exit code 3");
    let loud = fails("loud", LIMITS).await.to_string();
    assert!(loud.len() < 5000 && loud.starts_with("cannot compile /app.wasm: xxx"), "{loud}");
}

async fn limits_hold() {
    let big = fails("big", LIMITS).await.to_string();
    assert!(big.contains("more than 1 MiB of code"), "{big}");
    let hog = fails("hog", LIMITS).await.to_string();
    assert!(hog.contains("more than 512 MiB of memory, the runtime option"), "{hog}");
    let start = Instant::now();
    let slow = fails("sleep", CompileLimits { wall: Duration::from_secs(1), ..LIMITS }).await;
    assert!(matches!(slow, CompileError::TooSlow { seconds: 1, .. }), "{slow}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

async fn it_is_stopped() {
    for delay in [0, 200] {
        let start = Instant::now();
        let compilation = begin("sleep", LIMITS);
        let stop = compilation.stopper();
        tokio::time::sleep(Duration::from_millis(delay)).await;
        stop.stop();
        let error = compilation.ready().await.expect_err("it was stopped");
        assert!(matches!(error, CompileError::Cancelled { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(2));
    }
    let children = std::fs::read_to_string(format!(
        "/proc/self/task/{}/children",
        rustix::thread::gettid().as_raw_nonzero()
    ));
    assert_eq!(children.unwrap().trim(), "", "a worker was left behind");
}

async fn garbage_is_no_image() {
    for module in ["garbage", "empty"] {
        let error = fails(module, LIMITS).await;
        assert!(matches!(error, CompileError::BadImage { .. }), "{module}: {error}");
    }
}

/// Who breaks out of a program while it is initialised can change its memory, and nothing else.
async fn other_code_is_no_snapshot() {
    for (module, taken) in [("initialises", true), ("forges", false)] {
        let ready = begin(module, LIMITS).ready().await.unwrap();
        let mut image = Vec::new();
        let mut file = std::fs::File::from(ready.code.image);
        file.rewind().unwrap();
        file.read_to_end(&mut image).unwrap();
        let meta = CodeImage::new(&image).unwrap().meta().unwrap();
        assert_eq!(meta.module.initialized, taken, "{module}");
    }
}

/// A program that asks to be initialised.
const PROGRAM: &str = "(module (memory 1) (func (export \"wizer.initialize\")
    (i32.store (i32.const 0) (i32.const 1))))";

/// What comes of it, or of one with other code.
fn initialise(forge: bool) -> Vec<u8> {
    let other = PROGRAM.replace("(i32.const 1)", "(i32.const 2)");
    let wat = if forge { &other } else { PROGRAM };
    let image = compile(wat.as_bytes(), &Settings::program());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&image.unwrap()).unwrap();
    snapshot::take(&file, "wizer.initialize").unwrap()
}

/// The other side.
fn worker() -> ExitCode {
    if std::env::args().nth(2).as_deref() == Some("--initialize=wizer.initialize") {
        let mut image = Vec::new();
        std::io::stdin().read_to_end(&mut image).unwrap();
        let names = CodeImage::new(&image).unwrap().meta().unwrap().module.name;
        std::io::stdout().write_all(&initialise(names.as_deref() == Some("forges"))).unwrap();
        return ExitCode::SUCCESS;
    }
    let mut module = String::new();
    std::io::stdin().read_to_string(&mut module).unwrap();
    match module.as_str() {
        "inspect" => eprintln!("{}", inspect()),
        "loud" => eprint!("{}", "x".repeat(1 << 20)),
        "big" => std::io::stdout().write_all(&vec![0; 2 << 20]).unwrap(),
        "hog" => {
            let hog = vec![1_u8; 600 << 20];
            println!("{}", hog[hog.len() / 2]);
        }
        "suicide" => {
            std::thread::sleep(Duration::from_millis(100));
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
        "sleep" => std::thread::sleep(Duration::from_secs(60)),
        "garbage" => {
            print!("{}", "no code image ".repeat(1000));
            return ExitCode::SUCCESS;
        }
        "empty" => return ExitCode::SUCCESS,
        name @ ("initialises" | "forges") => {
            let wat = PROGRAM.replace("(module", &format!("(module ${name}"));
            let image = compile(wat.as_bytes(), &Settings::program()).unwrap();
            std::io::stdout().write_all(&image).unwrap();
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    ExitCode::from(3)
}

fn inspect() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    let mut out = String::new();
    write!(out, "NoNewPrivs {}; ", field("NoNewPrivs:")).unwrap();
    let open = (0..64).filter(|fd| {
        // SAFETY: F_GETFD reads a flag of a descriptor number and touches no memory.
        unsafe { libc::fcntl(*fd, libc::F_GETFD) != -1 }
    });
    let open: Vec<_> = open.map(|fd: i32| fd.to_string()).collect();
    write!(out, "fds {}; env {}; ", open.join(" "), std::env::vars_os().count()).unwrap();
    let writable = rustix::io::write(std::io::stdin(), b"x").is_ok();
    let cwd = std::env::current_dir().unwrap();
    write!(out, "cwd {}; module-writable {writable}; ", cwd.display()).unwrap();
    let limit = |resource| rustix::process::getrlimit(resource).current.unwrap_or(u64::MAX);
    use rustix::process::Resource;
    let (memory, file) = (limit(Resource::As), limit(Resource::Fsize));
    let (files, core) = (limit(Resource::Nofile), limit(Resource::Core));
    write!(out, "as {memory} fsize {file} nofile {files} core {core}; ").unwrap();
    let mut signal = 0_i32;
    // SAFETY: PR_GET_PDEATHSIG writes one int through the pointer, which is valid for it.
    let result = unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    assert_eq!(result, 0);
    write!(out, "death-signal {signal}; ").unwrap();
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let memory = groups.lines().find(|line| line.contains("memory") || line.starts_with("0::"));
    write!(out, "own cgroup {}", memory.is_some_and(|line| line.ends_with(GROUP))).unwrap();
    out
}
