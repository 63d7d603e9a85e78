//! Terminals: a client types on a FIFO and reads another one, programs sit at a real pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{self, Status};
use containerd_shim_protos::ttrpc::Code;
use serde_json::json;

use crate::harness::{Containerd, PATIENCE, Shim, alive, calm, request, sleeps, spec, within};
use crate::home::{Home, call, process};
use crate::programs::{echo, module};

/// Who sits at a terminal.
struct Client {
    keyboard: File,
    seen: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Client {
    /// Opens both FIFOs as clients do, before the call that names them.
    fn sit_down(stdin: &Path, stdout: &Path) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sink, stdout) = (Arc::clone(&seen), stdout.to_owned());
        let reader = std::thread::spawn(move || {
            let mut screen = File::open(stdout).unwrap();
            let mut piece = [0; 4096];
            loop {
                match screen.read(&mut piece).unwrap() {
                    0 => return,
                    count => sink.lock().unwrap().extend_from_slice(&piece[..count]),
                }
            }
        });
        // For reading as well, so that this does not wait for the shim.
        let keyboard = File::options().read(true).write(true).open(stdin).unwrap();
        Self { keyboard, seen, reader }
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    async fn sees(&self, text: &str) {
        let start = Instant::now();
        while !self.screen().contains(text) {
            assert!(start.elapsed() < PATIENCE, "no {text:?} on {:?}", self.screen());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until nobody writes any more; gives everything.
    fn leaves(self) -> String {
        self.reader.join().unwrap();
        let seen = self.seen.lock().unwrap();
        String::from_utf8_lossy(&seen).into_owned()
    }
}

impl Home {
    /// Adds a process with a terminal, and who sits at it.
    async fn sit(&self, exec: &str, args: &[&str]) -> (Client, u32) {
        let (stdin, stdout) = (self.fifo(&format!("in-{exec}")), self.fifo(&format!("out-{exec}")));
        let client = Client::sit_down(&stdin, &stdout);
        let mut described = process(args);
        described["consoleSize"] = json!({ "width": 100, "height": 30 });
        let mut call = call(exec, &described);
        call.terminal = true;
        call.stdin = stdin.to_str().unwrap().into();
        call.stdout = stdout.to_str().unwrap().into();
        self.shim.exec(call).await.unwrap();
        let pid = self.shim.start_exec(exec).await.unwrap();
        (client, pid)
    }

    /// With the host's busybox as `/bin/sh` and under its tools' names.
    async fn with_busybox() -> Self {
        let home = Self::new().await;
        let bin = home.bundle.join("rootfs/bin");
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for tool in ["sh", "sleep", "seq", "tty", "stty", "cat", "echo", "kill"] {
            std::os::unix::fs::symlink("busybox", bin.join(tool)).unwrap();
        }
        home
    }
}

fn size(pid: u32) -> (u16, u16) {
    let terminal = File::open(format!("/proc/{pid}/fd/0")).unwrap();
    let size = rustix::termios::tcgetwinsize(&terminal).unwrap();
    (size.ws_col, size.ws_row)
}

#[tokio::test]
async fn a_program_sits_at_a_terminal_of_its_container() {
    let home = Home::new().await;
    let (mut client, pid) = home.sit("e", &["echo.wat"]).await;
    assert!(home.shim.exec_state("e").await.unwrap().terminal);
    for stream in 0..3 {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{stream}")).unwrap();
        assert_eq!(target, Path::new("/dev/pts/0"));
    }
    let slave = std::fs::metadata(format!("/proc/{pid}/root/dev/pts/0")).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let number = rustix::fs::makedev(136, 0);
    assert_eq!(slave.rdev(), number);
    assert_eq!(fields[4], (136 << 8).to_string(), "its controlling terminal: {stat}");
    assert_eq!(fields[5], fields[2], "it is in the foreground: {stat}");
    assert_eq!(size(pid), (100, 30));
    home.shim.resize("e", (132, 43)).await.unwrap();
    assert_eq!(size(pid), (132, 43));
    client.types("ahoy\n");
    // Once by the terminal's echo and once by the program.
    client.sees("ahoy\r\nahoy\r\n").await;
    client.types("\u{4}");
    assert_eq!(home.shim.wait_exec("e").await, Ok(7));
    assert_eq!(home.shim.resize("e", (1, 1)).await.unwrap_err().0, Code::FAILED_PRECONDITION);
    home.shim.delete_exec("e").await.unwrap();
    assert_eq!(client.leaves(), "ahoy\r\nahoy\r\n");
    home.leave().await;
}

#[tokio::test]
async fn control_c_interrupts_and_close_io_ends_the_input() {
    let home = Home::new().await;
    let (mut client, _) = home.sit("spin", &["spin.wat"]).await;
    client.types("\u{3}");
    assert_eq!(home.shim.wait_exec("spin").await, Ok(130));
    let (mut client, pid) = home.sit("echo", &["echo.wat"]).await;
    client.types("half a line");
    client.sees("half a line").await;
    home.shim.close_input("echo").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(alive(pid), "the client is still there");
    client.keyboard = File::open("/dev/null").unwrap();
    assert_eq!(home.shim.wait_exec("echo").await, Ok(7));
    client.sees("half a linehalf a line").await;
    home.leave().await;
}

/// Waits until the terminal of a shell belongs to a job of it.
async fn job_in_front(shell: u32) {
    within("the job", async {
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{shell}/stat")).unwrap();
            let (_, fields) = stat.rsplit_once(") ").unwrap();
            // Behind the state and the parent: process group, session, terminal, its process group.
            let fields: Vec<_> = fields.split(' ').collect();
            if fields[2] != fields[5] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_shell_has_job_control() {
    let home = Home::with_busybox().await;
    let (mut client, shell) = home.sit("e", &["/bin/sh", "-i"]).await;
    client.types("tty; stty size\n");
    client.sees("/dev/pts/0\r\n30 100\r\n").await;
    assert!(!client.screen().contains("job control"), "{}", client.screen());
    // A foreground job is stopped and interrupted without its shell.
    client.types("sleep 1000\n");
    job_in_front(shell).await;
    client.types("\u{1a}");
    client.sees("Stopped").await;
    client.types("fg\n");
    job_in_front(shell).await;
    client.types("\u{3}");
    client.types("echo st''ill\n");
    client.sees("still\r\n").await;
    home.shim.resize("e", (90, 20)).await.unwrap();
    client.types("stty size\n");
    client.sees("20 90\r\n").await;
    client.types("exit 5\n");
    assert_eq!(home.shim.wait_exec("e").await, Ok(5));
    // Its programs are told of the new size.
    let script = "trap 'stty size; exit 6' WINCH; echo ready; while :; do sleep 0.05; done";
    let (client, _) = home.sit("winch", &["/bin/sh", "-c", script]).await;
    client.sees("ready").await;
    home.shim.resize("winch", (70, 10)).await.unwrap();
    assert_eq!(home.shim.wait_exec("winch").await, Ok(6));
    client.sees("10 70\r\n").await;
    home.leave().await;
}

#[tokio::test]
async fn the_last_words_are_not_lost() {
    let home = Home::with_busybox().await;
    for round in 0..5 {
        let exec = format!("e{round}");
        let (client, _) = home.sit(&exec, &["seq", "1", "100000"]).await;
        assert_eq!(home.shim.wait_exec(&exec).await, Ok(0));
        home.shim.delete_exec(&exec).await.unwrap();
        let text = client.leaves();
        let lines: Vec<_> = text.split_terminator("\r\n").collect();
        assert_eq!((lines.len(), lines.last()), (100_000, Some(&"100000")), "in round {round}");
    }
    home.leave().await;
}

#[tokio::test]
async fn a_client_that_never_reads_harms_nobody() {
    let home = Home::with_busybox().await;
    let (stdin, stdout) = (home.fifo("in"), home.fifo("out"));
    let _lazy = File::options().read(true).write(true).open(&stdout).unwrap();
    let mut endless = call("e", &process(&["/bin/sh", "-c", "while :; do echo words; done"]));
    endless.terminal = true;
    endless.stdin = stdin.to_str().unwrap().into();
    endless.stdout = stdout.to_str().unwrap().into();
    home.shim.exec(endless).await.unwrap();
    home.shim.start_exec("e").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = home.shim.exec_state("e").await.unwrap().status.enum_value();
    assert_eq!(status, Ok(Status::RUNNING));
    home.launch("other", &process(&["exit.wat"])).await.unwrap();
    assert_eq!(home.shim.wait_exec("other").await, Ok(42));
    home.shim.kill_exec("e", libc::SIGKILL).await.unwrap();
    let start = Instant::now();
    assert_eq!(home.shim.wait_exec("e").await, Ok(137));
    home.shim.delete_exec("e").await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    home.leave().await;
}

#[tokio::test]
async fn nobody_wakes_while_nobody_writes() {
    let home = Home::new().await;
    let (_client, _) = home.sit("e", &["echo.wat"]).await;
    home.containerd.events(4).await;
    calm(home.shim.pid).await;
    let before = sleeps(home.shim.pid);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(sleeps(home.shim.pid), before, "the shim woke up with nothing to do");
    home.leave().await;
}

/// A container whose own program has a terminal.
struct Seat {
    containerd: Containerd,
    shim: Shim,
    client: Client,
    pid: u32,
    bundle: PathBuf,
}

impl Seat {
    async fn new(program: &str, dev_pts: bool) -> Self {
        let containerd = Containerd::new().await;
        let mut spec = spec(&["/app.wat"]);
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({ "width": 100, "height": 30 });
        spec["process"]["user"] = json!({ "uid": 7, "gid": 8 });
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }));
        if dev_pts {
            mounts.push(json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                                "options": ["newinstance", "ptmxmode=0666", "mode=0620"] }));
        }
        let bundle = containerd.bundle("c", &spec);
        std::fs::write(bundle.join("rootfs/app.wat"), program).unwrap();
        let fifo = |name: &str| {
            let path = containerd.dir.path().join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            path
        };
        let (stdin, stdout) = (fifo("in"), fifo("out"));
        let client = Client::sit_down(&stdin, &stdout);
        let shim = containerd.start("c", &bundle).await;
        let create = api::CreateTaskRequest {
            terminal: true,
            stdin: stdin.to_str().unwrap().into(),
            stdout: stdout.to_str().unwrap().into(),
            ..request("c", &bundle)
        };
        let pid = shim.create_with(create).await.unwrap();
        Self { containerd, shim, client, pid, bundle }
    }
}

#[tokio::test]
async fn a_container_has_a_terminal_and_a_console() {
    for dev_pts in [true, false] {
        let mut seat = Seat::new(&echo(), dev_pts).await;
        assert!(seat.shim.state("c").await.unwrap().terminal);
        let inside = |path: &str| PathBuf::from(format!("/proc/{}/root{path}", seat.pid));
        let console = std::fs::metadata(inside("/dev/console")).unwrap();
        let terminal = std::fs::metadata(format!("/proc/{}/fd/0", seat.pid)).unwrap();
        assert_eq!(console.rdev(), terminal.rdev());
        assert_eq!(console.uid(), 7, "its program's user may open it");
        if dev_pts {
            assert_eq!(std::fs::metadata(inside("/dev/pts/0")).unwrap().ino(), console.ino());
        }
        assert_eq!(size(seat.pid), (100, 30));
        // Docker resizes as soon as it is created.
        seat.shim.resize("", (80, 25)).await.unwrap();
        seat.shim.start("c").await.unwrap();
        assert_eq!(size(seat.pid), (80, 25));
        seat.client.types("ahoy\n\u{4}");
        assert_eq!(seat.shim.wait("c").await.unwrap().exit_status, 7);
        assert_eq!(seat.shim.resize("", (80, 25)).await.unwrap_err().0, Code::FAILED_PRECONDITION);
        seat.shim.delete("c").await.unwrap();
        assert_eq!(seat.client.leaves(), "ahoy\r\nahoy\r\n");
        let topics = seat.containerd.events(4).await;
        assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
        // The spec and the call must agree.
        let (code, sentence) = seat.shim.create("c", &seat.bundle).await.unwrap_err();
        assert_eq!(code, Code::INVALID_ARGUMENT);
        assert!(sentence.contains("terminal"), "{sentence}");
        seat.shim.shut_down().await;
    }
}

/// What WASI calls a terminal: a character device that cannot be sought, as `isatty` of wasi-libc wants it.
#[tokio::test]
async fn a_guest_knows_a_terminal() {
    let program = module(
        r#"(import "wasi_snapshot_preview1" "fd_fdstat_get" (func $stat (param i32 i32) (result i32)))
           (func (export "_start")
             (drop (call $stat (i32.const 1) (i32.const 64)))
             (call $exit (i32.add
               (i32.load8_u (i32.const 64))
               (i32.and (i32.wrap_i64 (i64.load (i32.const 72))) (i32.const 36)))))"#,
    );
    // All imports come first.
    let (import, rest) = program.split_once("(memory").unwrap();
    let (own, body) = rest.split_once("(import").unwrap();
    let (declared, body) = body.split_once("(func (export").unwrap();
    let text = format!("{import}(import{declared} (memory{own} (func (export{body}");
    let seat = Seat::new(&text, true).await;
    seat.shim.start("c").await.unwrap();
    assert_eq!(
        seat.shim.wait("c").await.unwrap().exit_status,
        2,
        "a character device, no seek, no tell"
    );
    seat.shim.delete("c").await.unwrap();
    seat.shim.shut_down().await;
}
