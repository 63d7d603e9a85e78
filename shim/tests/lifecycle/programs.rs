//! Programs through the whole pipeline: compiled by the real worker, run by the real guest.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{self, Empty, Status};
use containerd_shim_protos::events::task::TaskExit;
use containerd_shim_protos::ttrpc::Code;
use coracle_oci::digest::Digest;

use crate::cache::{Node, Start};
use crate::first::until;
use crate::harness::{Containerd, Shim, V2, alive, request, spec, within};

/// Imports and memory that all programs share.
const HEAD: &str = r#"
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
"#;

pub(crate) fn module(body: &str) -> String {
    format!("(module {HEAD} {body})")
}

pub(crate) fn hello() -> String {
    module(
        r#"(data (i32.const 16) "hello\n") (func (export "_start")
             (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 6))
             (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"#,
    )
}

/// Copies its input to its output, then leaves with 7.
pub(crate) fn echo() -> String {
    module(
        r#"(func (export "_start") (loop $more
             (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 4096))
             (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
             (if (i32.eqz (i32.load (i32.const 8))) (then (call $exit (i32.const 7))))
             (i32.store (i32.const 4) (i32.load (i32.const 8)))
             (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
             (br $more)))"#,
    )
}

/// Enough work for a compiler to be caught at it, at 2500 functions within its limit for text (16 MiB).
pub(crate) fn huge(functions: usize) -> String {
    let sum =
        "(i32.mul (i32.add (local.get 0) (i32.const 3)) (i32.xor (local.get 0) (i32.const 5)))";
    let line = format!("(local.set 0 {sum})").repeat(60);
    let functions =
        (0..functions).map(|_| format!("(func (param i32) (result i32) {line} (local.get 0))"));
    format!("(module {} (func (export \"_start\")))", functions.collect::<String>())
}

/// The same with a program that never ends.
pub(crate) fn loops(huge: &str) -> String {
    huge.replace("(export \"_start\")", "(export \"_start\") (loop (br 0))")
}

struct Program {
    containerd: Containerd,
    shim: Shim,
    bundle: PathBuf,
}

impl Program {
    /// A shim and a bundle whose entry point is this text.
    async fn new(text: &str) -> Self {
        let beside =
            Path::new(env!("CARGO_BIN_EXE_containerd-shim-wasm-v1")).with_file_name("coracle");
        assert!(beside.exists(), "build the compiler first: cargo build -p coracle-deploy");
        let containerd = Containerd::new().await;
        let bundle = containerd.bundle("c", &spec(&["/app.wat"]));
        std::fs::write(bundle.join("rootfs/app.wat"), text).unwrap();
        let shim = containerd.start("c", &bundle).await;
        Self { containerd, shim, bundle }
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.containerd.dir.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }

    /// A Create request with FIFOs for output, and who reads them.
    fn request(&self) -> (api::CreateTaskRequest, [Reader; 2]) {
        let (out, err) = (self.fifo("out"), self.fifo("err"));
        let mut create = request("c", &self.bundle);
        create.stdout = out.to_str().unwrap().into();
        create.stderr = err.to_str().unwrap().into();
        (create, [read(out), read(err)])
    }

    /// A file of the kubelet's for the reason of the program's end, mounted into the container.
    fn message(&self) -> PathBuf {
        let file = self.containerd.dir.path().join("message");
        std::fs::write(&file, "").unwrap();
        let config = self.bundle.join("config.json");
        let mut spec: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({
            "destination": "/dev/termination-log", "type": "bind", "source": file,
            "options": ["rbind"],
        }));
        std::fs::write(&config, spec.to_string()).unwrap();
        file
    }

    /// The pids of the shim's children, the dead and unreaped ones too.
    fn children(&self) -> String {
        let path = format!("/proc/{0}/task/{0}/children", self.shim.pid);
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    async fn leave(&self) {
        self.shim.delete("c").await.unwrap();
        self.shim.shut_down().await;
    }
}

pub(crate) type Reader = tokio::task::JoinHandle<String>;

/// Opens as a client does, before Create, and reads to the end.
pub(crate) fn read(path: PathBuf) -> Reader {
    tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        text
    })
}

#[tokio::test]
async fn hello_is_read_and_its_end_seen() {
    let program = Program::new(&hello()).await;
    let (create, [out, err]) = program.request();
    let pid = program.shim.create_with(create).await.unwrap();
    assert_eq!(program.shim.start("c").await.unwrap(), pid);
    assert_eq!(program.shim.wait("c").await.unwrap().exit_status, 0);
    assert_eq!(within("the output", out).await.unwrap(), "hello\n");
    assert_eq!(within("the output", err).await.unwrap(), "");
    program.leave().await;
}

/// The exit is held back for a moment while nobody reads: until it is told, there is a process.
#[tokio::test]
async fn what_runs_by_its_state_has_a_pid() {
    let program = Program::new(&hello()).await;
    let out = program.fifo("out");
    let mut create = request("c", &program.bundle);
    create.stdout = out.to_str().unwrap().into();
    let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&out).unwrap();
    let pid = program.shim.create_with(create).await.unwrap();
    program.shim.start("c").await.unwrap();
    within("the end", async {
        while program.shim.status("c").await == api::Status::RUNNING {
            let pids = program.shim.pids("c").await;
            if program.shim.status("c").await == api::Status::RUNNING {
                assert_eq!(pids, [pid]);
            }
        }
    })
    .await;
    assert!(program.shim.pids("c").await.is_empty());
    drop(reader);
    program.leave().await;
}

#[tokio::test]
async fn an_early_exit_is_reported_in_order() {
    let program =
        Program::new(&module(r#"(func (export "_start") (call $exit (i32.const 42)))"#)).await;
    program.shim.create("c", &program.bundle).await.unwrap();
    program.shim.start("c").await.unwrap();
    assert_eq!(program.shim.wait("c").await.unwrap().exit_status, 42);
    assert_eq!(program.shim.delete("c").await.unwrap().exit_status, 42);
    let topics = program.containerd.events(4).await;
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    program.shim.shut_down().await;
}

#[tokio::test]
async fn a_trap_is_134_with_its_name() {
    let program =
        Program::new(&module(r#"(func $deep unreachable) (func (export "_start") (call $deep))"#))
            .await;
    let (create, [_out, err]) = program.request();
    program.shim.create_with(create).await.unwrap();
    program.shim.start("c").await.unwrap();
    assert_eq!(program.shim.wait("c").await.unwrap().exit_status, 134);
    let report = within("the report", err).await.unwrap();
    assert!(report.contains("unreachable") && report.contains("deep"), "{report}");
    program.leave().await;
}

#[tokio::test]
async fn the_log_names_task_and_digest_of_what_fails() {
    let trap = module(r#"(func (export "_start") unreachable)"#);
    let link = r#"(module (import "env" "nothing" (func)) (func (export "_start")))"#;
    for (text, kind, reason) in [
        (trap.as_str(), "trap", "unreachable"),
        (link, "start", "nothing"),
        ("(module", "start", "app.wat"),
    ] {
        let node = Node::new();
        let start = Start::on(node.dir.path(), text).await;
        start.shim.create("c", &start.bundle).await.unwrap();
        // Two of them fail here already.
        let _ = start.shim.start("c").await;
        start.shim.wait("c").await.unwrap();
        until("the line", || start.logged("program failed") == 1).await;
        let log = start.log.lock().unwrap().clone();
        let line = log.lines().find(|line| line.contains("program failed")).unwrap();
        let digest = format!("digest={}", Digest::of(text.as_bytes()));
        for word in ["task=c ", &digest, kind, reason] {
            assert!(line.contains(word), "no {word} in {line}");
        }
        start.shim.delete("c").await.unwrap();
        start.shim.shut_down().await;
    }
}

#[tokio::test]
async fn input_arrives_and_ends_with_the_client() {
    let program = Program::new(&echo()).await;
    let stdin = program.fifo("in");
    let (mut create, [out, _err]) = program.request();
    create.stdin = stdin.to_str().unwrap().into();
    let client = tokio::task::spawn_blocking(move || {
        let mut writer = File::options().write(true).open(stdin).unwrap();
        for _ in 0..3 {
            writer.write_all(b"ahoy ").unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    program.shim.create_with(create).await.unwrap();
    program.shim.start("c").await.unwrap();
    within("the client", client).await.unwrap();
    let close = api::CloseIORequest { id: "c".into(), stdin: true, ..Default::default() };
    program.shim.call::<Empty>(V2, "CloseIO", close).await.unwrap();
    assert_eq!(program.shim.wait("c").await.unwrap().exit_status, 7);
    assert_eq!(within("the output", out).await.unwrap(), "ahoy ahoy ahoy ");
    program.leave().await;
}

#[tokio::test]
async fn an_endless_loop_is_killed() {
    let program = Program::new(&module(r#"(func (export "_start") (loop (br 0)))"#)).await;
    let pid = program.shim.create("c", &program.bundle).await.unwrap();
    program.shim.start("c").await.unwrap();
    assert_eq!(program.shim.status("c").await, Status::RUNNING);
    let start = Instant::now();
    program.shim.kill("c", libc::SIGKILL).await.unwrap();
    assert_eq!(program.shim.wait("c").await.unwrap().exit_status, 137);
    assert!(start.elapsed() < Duration::from_secs(1) && !alive(pid));
    program.leave().await;
}

#[tokio::test]
async fn what_cannot_run_fails_at_start_and_can_be_deleted() {
    for (text, word) in [
        ("(module (func", "app.wat"),
        (r#"(module (import "env" "nothing" (func)) (func (export "_start")))"#, "nothing"),
        (r#"(module (func (export "other")))"#, "_start"),
    ] {
        let program = Program::new(text).await;
        let message = program.message();
        let pid = program.shim.create("c", &program.bundle).await.unwrap();
        let (_, sentence) = program.shim.start("c").await.unwrap_err();
        // Kubernetes is told the same.
        let message = std::fs::read_to_string(message).unwrap();
        assert!(!message.is_empty() && sentence.contains(&message), "{message:?}, {sentence:?}");
        assert!(sentence.contains(word), "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        assert_eq!(program.shim.wait("c").await.unwrap().exit_status, 126);
        assert!(!alive(pid));
        program.shim.delete("c").await.unwrap();
        let topics = program.containerd.events(3).await;
        assert_eq!(topics, ["/tasks/create", "/tasks/exit", "/tasks/delete"]);
        assert_eq!(program.containerd.event::<TaskExit>("/tasks/exit").exit_status, 126);
        program.shim.shut_down().await;
    }
}

#[tokio::test]
async fn a_compilation_is_cut_short_and_nobody_waits_for_it() {
    let program = Program::new(&huge(2500)).await;
    program.shim.create("c", &program.bundle).await.unwrap();
    let start = program.shim.start("c");
    tokio::pin!(start);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut start).await;
    assert!(early.is_err(), "the compiler was done already: {early:?}");
    let now = Instant::now();
    assert_eq!(program.shim.status("c").await, Status::CREATED);
    assert_eq!(program.shim.pids("c").await.len(), 1);
    program.shim.kill("c", libc::SIGTERM).await.unwrap();
    let (code, sentence) = within("the refusal", start).await.unwrap_err();
    assert_eq!(code, Code::FAILED_PRECONDITION, "{sentence}");
    assert_eq!(program.shim.wait("c").await.unwrap().exit_status, 143);
    assert!(now.elapsed() < Duration::from_secs(1), "{:?}", now.elapsed());
    assert_eq!(program.children(), "", "a compiler was left behind");
    program.leave().await;
}

#[tokio::test]
async fn a_task_deleted_while_it_compiles_takes_the_compiler_along() {
    let program = Program::new(&huge(2500)).await;
    program.shim.create("c", &program.bundle).await.unwrap();
    assert_eq!(program.children().split_whitespace().count(), 2, "guest and compiler");
    program.shim.delete("c").await.unwrap();
    assert_eq!(program.children(), "", "a compiler was left behind");
    program.shim.shut_down().await;
}
