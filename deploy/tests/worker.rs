//! The cage of the compile worker: the real one, looked at from outside while it waits for its module, and
//! with modules of all kinds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_engine::compile::compile;
use coracle_engine::config::Settings;
use coracle_engine::image::{CodeImage, Section};

struct Worker(Child);

impl Worker {
    fn start() -> Worker {
        Worker::with(&[], Stdio::piped())
    }

    fn with(args: &[&str], input: Stdio) -> Worker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.arg("compile-worker").args(args).env_clear();
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        Worker(command.spawn().unwrap())
    }

    /// One that initialises a program.
    fn initializing(wat: &str) -> Worker {
        let mut image = tempfile::tempfile().unwrap();
        image.write_all(&compile(wat.as_bytes(), &Settings::program()).unwrap()).unwrap();
        image.rewind().unwrap();
        Worker::with(&["--initialize=init"], image.into())
    }

    /// One that is in its cage and reads.
    fn caged() -> Worker {
        Worker::start().when_caged()
    }

    fn when_caged(self) -> Worker {
        let worker = self;
        let begun = Instant::now();
        while worker.status("Seccomp") != "2" {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", worker.status("State"));
            std::thread::sleep(Duration::from_millis(5));
        }
        worker
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.0.id()).into()
    }

    fn status(&self, name: &str) -> String {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What it gives for a module: the image, or its error.
    fn compile(mut self, module: &[u8]) -> Result<Vec<u8>, String> {
        let mut stdin = self.0.stdin.take().unwrap();
        let module = module.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&module));
        let result = self.result();
        // One that refuses does not read to the end.
        let _ = writer.join().unwrap();
        result
    }

    fn result(mut self) -> Result<Vec<u8>, String> {
        let (mut image, mut error) = (Vec::new(), String::new());
        self.0.stdout.take().unwrap().read_to_end(&mut image).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        let status = self.0.wait().unwrap();
        if status.success() { Ok(image) } else { Err(format!("{status}: {}", error.trim())) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_owns_nothing() {
    owns_nothing(&Worker::caged());
}

#[test]
fn nor_does_one_that_runs_a_program() {
    let endless = "(module (memory 1) (func (export \"init\") (loop (br 0))))";
    owns_nothing(&Worker::initializing(endless).when_caged());
}

fn owns_nothing(worker: &Worker) {
    let nobody = "65534 65534 65534 65534";
    assert_eq!((worker.status("Uid").as_str(), worker.status("Gid").as_str()), (nobody, nobody));
    assert_eq!(worker.status("Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(worker.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(worker.status("NoNewPrivs"), "1");
    assert_eq!(worker.status("Threads"), "1");
    for namespace in ["mnt", "net", "ipc", "uts", "cgroup"] {
        let link = |of: PathBuf| fs::read_link(of.join("ns").join(namespace)).unwrap();
        assert_ne!(link(worker.proc("")), link("/proc/self".into()), "{namespace}");
    }
    let mounts = fs::read_to_string(worker.proc("mounts")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.starts_with("none / tmpfs ro,nosuid,nodev,noexec"), "{mounts}");
    let root: Vec<_> = fs::read_dir(worker.proc("root")).unwrap().collect();
    assert!(root.is_empty(), "{root:?}");
    let open = fs::read_dir(worker.proc("fd")).unwrap().map(|fd| fd.unwrap().path());
    let mut open: Vec<_> = open.map(|fd| fs::read_link(fd).unwrap()).collect();
    open.sort();
    // The image is kept with its mapping.
    open.dedup();
    assert_eq!(open.len(), 3, "{open:?}");
    let devices = fs::read_to_string(worker.proc("net/dev")).unwrap();
    assert_eq!(devices.lines().skip(2).count(), 1, "{devices}");
}

#[test]
fn it_compiles_in_there() {
    let wat = b"(module (func (export \"f\") (result i32) (i32.const 1)))";
    let image = Worker::caged().compile(wat).unwrap();
    assert!(CodeImage::new(&image).is_ok());
    // Large enough for all its threads.
    let functions: String =
        (0..3000).map(|n| format!("(func (result i32) (i32.const {n}))")).collect();
    let image = Worker::start().compile(format!("(module {functions})").as_bytes()).unwrap();
    assert!(CodeImage::new(&image).is_ok());
}

#[test]
fn it_initialises_in_there() {
    let wat = "(module (import \"env\" \"f\" (func $f)) (memory 3) (table 1 funcref)
        (func (export \"init\") (drop (memory.grow (i32.const 1)))
            (i32.store (i32.const 262140) (i32.const 0x55555555))))";
    let image = Worker::initializing(wat).result().unwrap();
    let image = CodeImage::new(&image).unwrap();
    assert!(image.section(Section::Memory).ends_with(b"UUUU"));
    assert!(image.meta().unwrap().module.initialized);
}

#[test]
fn what_cannot_be_initialised_is_told_in_one_line() {
    let deep = "(func $deep (call $deep)) (func (export \"init\") (call $deep))";
    for (body, word) in [
        ("(func (export \"init\") (drop (i32.load (i32.const -4))))", "out of bounds"),
        (deep, "stack"),
        ("(func (export \"init\") (call 0))", "called the import `env` `f`"),
        ("", "exports no function `init`"),
    ] {
        let wat = format!("(module (import \"env\" \"f\" (func)) (memory 1) {body})");
        let error = Worker::initializing(&wat).result().unwrap_err();
        assert!(error.starts_with("exit status: 1: ") && error.contains(word), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let file = fs::File::open("/proc/self/exe").unwrap();
    let error = Worker::with(&["--initialize=init"], file.into()).result().unwrap_err();
    assert!(error.contains("not a code image"), "{error}");
}

/// D1: nothing but WebAssembly is compiled, whatever it claims to be.
#[test]
fn what_is_no_module_is_refused_in_one_line() {
    let ours = Worker::start().compile(b"(module)").unwrap();
    let elf = fs::read("/proc/self/exe").unwrap();
    let gzip = [&[0x1f, 0x8b, 8, 0][..], &[0; 100]].concat();
    let cases: [&[u8]; 8] =
        [b"", b"\0", b"\0asm", b"no module", &gzip, &elf, &ours, b"\0asm\x0d\0\x01\0"];
    for bytes in cases {
        let head = &bytes[..bytes.len().min(8)];
        let error = Worker::start().compile(bytes).unwrap_err();
        assert!(error.starts_with("exit status: 1: "), "{head:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{head:?}: {error}");
    }
}
