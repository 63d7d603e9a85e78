//! Logging programs: what they get, when they end, and that one which dies harms nobody.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use containerd_shim_protos::api;

use crate::harness::{Containerd, Shim, request, spec, within};
use crate::home::{Home, call, process};
use crate::programs::hello;

/// A logger in shell: says that it is ready as `ready` does, then copies what it reads to files.
fn logger(containerd: &Containerd, ready: &str, rest: &str) -> PathBuf {
    let dir = containerd.dir.path();
    let path = dir.join("logger.sh");
    let script = format!(
        "#!/bin/sh\ncd {dir}\n{{ env; echo \"args: $*\"; ls -l /proc/self/fd; }} > facts\n\
         {ready}\n{rest}\n",
        dir = dir.display()
    );
    std::fs::write(&path, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&path, mode).unwrap();
    path
}

const CLOSES: &str = "exec 5>&-";
const SAYS: &str = "printf x >&5; exec 5>&-";
const COPIES: &str = "cat <&3 > out & cat <&4 > err; wait; echo end > end";

struct Bed {
    containerd: Containerd,
    shim: Shim,
    bundle: PathBuf,
}

impl Bed {
    async fn new() -> Self {
        let containerd = Containerd::new().await;
        let bundle = containerd.bundle("c", &spec(&["/app.wat"]));
        std::fs::write(bundle.join("rootfs/app.wat"), hello()).unwrap();
        let shim = containerd.start("c", &bundle).await;
        Self { containerd, shim, bundle }
    }

    fn request(&self, url: String) -> api::CreateTaskRequest {
        let (stdout, stderr) = (url.clone(), url);
        api::CreateTaskRequest { stdout, stderr, ..request("c", &self.bundle) }
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.containerd.dir.path().join(name)).unwrap_or_default()
    }

    fn children(&self) -> usize {
        let path = format!("/proc/{0}/task/{0}/children", self.shim.pid);
        std::fs::read_to_string(path).unwrap().split_whitespace().count()
    }
}

#[tokio::test]
async fn a_logger_reads_all_and_ends_with_its_task() {
    for (scheme, ready) in [("binary", CLOSES), ("binary", SAYS), ("binary-v2", SAYS)] {
        let bed = Bed::new().await;
        let program = logger(&bed.containerd, ready, COPIES);
        let url = format!("{scheme}://{}?--key=a+b&env.COLOUR=blue", program.display());
        bed.shim.create_with(bed.request(url.clone())).await.unwrap();
        assert_eq!(bed.shim.state("c").await.unwrap().stdout, url);
        bed.shim.start("c").await.unwrap();
        assert_eq!(bed.shim.wait("c").await.unwrap().exit_status, 0);
        bed.shim.delete("c").await.unwrap();
        // Delete waits for its last words.
        assert_eq!(
            (bed.file("out"), bed.file("err"), bed.file("end")),
            ("hello\n".into(), String::new(), "end\n".into())
        );
        assert_eq!(bed.children(), 0, "the logger is reaped");
        let facts = bed.file("facts");
        for line in ["CONTAINER_ID=c\n", "CONTAINER_NAMESPACE=tests\n", "COLOUR=blue\n"] {
            assert!(facts.contains(line), "{facts}");
        }
        assert!(facts.contains("args: --key a b\n"), "{facts}");
        assert!(!facts.contains("CORACLE_") && !facts.contains("TTRPC_ADDRESS"), "{facts}");
        let open = facts.lines().filter(|line| line.contains(" -> ")).count();
        // The three streams, the three of a logger, and the folder that `ls` reads.
        assert_eq!(open, 7, "{facts}");
        bed.shim.shut_down().await;
    }
}

#[tokio::test]
async fn a_logger_that_does_not_run_is_a_refusal() {
    let bed = Bed::new().await;
    let dead = logger(&bed.containerd, "exit 1", "");
    for (url, word) in [
        ("binary:///nonexistent/logger".to_owned(), "/nonexistent/logger"),
        (format!("binary://{}", bed.bundle.join("config.json").display()), "Permission denied"),
        (format!("binary-v2://{}", dead.display()), "before it was ready"),
    ] {
        let (_, sentence) = bed.shim.create_with(bed.request(url)).await.unwrap_err();
        assert!(sentence.contains(word), "{sentence}");
    }
    let mut two = bed.request(format!("binary://{}", dead.display()));
    two.stderr = "/some/fifo".into();
    assert!(bed.shim.create_with(two).await.is_err());
    assert!(bed.containerd.topics().is_empty());
    bed.shim.shut_down().await;
}

#[tokio::test]
async fn a_logger_that_dies_neither_blocks_nor_breaks_the_program() {
    let home = Home::new().await;
    let program = logger(&home.containerd, CLOSES, "exit 1");
    let mut endless = call("e", &process(&["/bin/busybox", "seq", "1", "1000000"]));
    std::fs::copy("/bin/busybox", home.bundle.join("rootfs/bin/busybox")).unwrap();
    endless.stdout = format!("binary://{}", program.display());
    endless.stderr = endless.stdout.clone();
    home.shim.exec(endless).await.unwrap();
    home.shim.start_exec("e").await.unwrap();
    assert_eq!(within("the end", home.shim.wait_exec("e")).await, Ok(0));
    home.shim.delete_exec("e").await.unwrap();
    home.leave().await;
}

#[tokio::test]
async fn a_logger_that_does_not_end_is_told_to() {
    let bed = Bed::new().await;
    let rest = "trap 'echo told > end; exit 0' TERM; while :; do sleep 0.1; done";
    let program = logger(&bed.containerd, CLOSES, rest);
    let url = format!("binary://{}", program.display());
    bed.shim.create_with(bed.request(url)).await.unwrap();
    bed.shim.start("c").await.unwrap();
    bed.shim.wait("c").await.unwrap();
    let start = Instant::now();
    bed.shim.delete("c").await.unwrap();
    assert_eq!(bed.file("end"), "told\n");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    bed.shim.shut_down().await;
}

#[tokio::test]
async fn a_terminal_is_logged_too() {
    let home = Home::new().await;
    let program = logger(&home.containerd, CLOSES, COPIES);
    let mut call = call("e", &process(&["hello.wat"]));
    call.terminal = true;
    call.stdout = format!("binary://{}", program.display());
    home.shim.exec(call).await.unwrap();
    home.shim.start_exec("e").await.unwrap();
    assert_eq!(home.shim.wait_exec("e").await, Ok(0));
    home.shim.delete_exec("e").await.unwrap();
    let read = |name: &str| {
        std::fs::read_to_string(home.containerd.dir.path().join(name)).unwrap_or_default()
    };
    assert_eq!((read("out").as_str(), read("end").as_str()), ("hello\r\n", "end\n"));
    assert!(read("facts").contains("CONTAINER_ID=e\n"));
    home.leave().await;
}
