//! The toolbox's commands on real files and processes.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;

use coracle_shim::guest::{Exit, Guest, Stdio};
use serde_json::json;

use crate::support::*;

/// How a run of the toolbox ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// What it printed, if all was well.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// What it complained of, with exit code 1.
    #[track_caller]
    pub(crate) fn bad(self) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        self.err
    }
}

/// Runs the toolbox as the bundle's program.
pub(crate) async fn run(bundle: &mut Bundle, words: &[&str]) -> Ran {
    let ((mut out, stdout), (mut err, stderr)) = (pipe(), pipe());
    let stdio = Stdio { stdout: Some(stdout), stderr: Some(stderr), ..Stdio::default() };
    let mut guest = bundle.run_toolbox(words, stdio).await.unwrap();
    // More than a pipe holds may come.
    let out = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text).unwrap()
    });
    let exit = guest.wait().await.exit;
    guest.cleanup().await.unwrap();
    let mut text = String::new();
    err.read_to_string(&mut text).unwrap();
    let code = match exit {
        Exit::Code(code) => code,
        Exit::Signal(libc::SIGKILL) => 137,
        other => panic!("{other:?}"),
    };
    Ran { code, out: out.await.unwrap(), err: text }
}

/// Runs it in a fresh bundle that `prepare` has filled.
fn in_bundle(prepare: impl FnOnce(&mut Bundle), words: &[&str]) -> Ran {
    let mut bundle = Bundle::new();
    prepare(&mut bundle);
    let ran = block_on(run(&mut bundle, words));
    bundle.assert_clean();
    ran
}

fn files(bundle: &mut Bundle) {
    let root = |name: &str| bundle.rootfs(name);
    std::fs::create_dir(root("data")).unwrap();
    std::fs::write(root("data/b.txt"), "one\n\ttwo\n\nthree\x01").unwrap();
    std::fs::write(root("data/.hidden"), "x".repeat(3000)).unwrap();
    std::fs::create_dir(root("data/sub")).unwrap();
    std::fs::write(root("data/sub/deep"), "").unwrap();
    symlink("b.txt", root("data/link")).unwrap();
    symlink("nowhere", root("data/dangling")).unwrap();
    // Before its mode, since this takes the bit of its user away.
    std::os::unix::fs::chown(root("data/b.txt"), Some(1000), Some(1000)).unwrap();
    let set = |name: &str, mode| {
        std::fs::set_permissions(root(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set("data/b.txt", 0o4755);
    set("data/sub", 0o1777);
    std::fs::create_dir(root("etc")).unwrap();
    std::fs::write(root("etc/passwd"), "root:x:0:0::/:\nsailor:x:1000:1000::/:\n").unwrap();
    std::fs::write(root("etc/group"), "root:x:0:\ncrew:x:1000:\n").unwrap();
}

#[test]
fn ls_lists_names_details_and_folders_below() {
    assert_eq!(in_bundle(files, &["ls", "/data"]).good(), "b.txt\ndangling\nlink\nsub\n");
    assert_eq!(
        in_bundle(files, &["/bin/ls", "-1aF", "/data"]).good(),
        "./\n../\n.hidden\nb.txt*\ndangling@\nlink@\nsub/\n"
    );
    let long = in_bundle(files, &["coracle-box", "ls", "-lA", "/data"]).good();
    let lines: Vec<&str> = long.lines().collect();
    assert!(lines[0].starts_with("total "), "{long}");
    let words = |n: usize| lines[n].split_whitespace().collect::<Vec<_>>();
    assert_eq!(words(2)[..5], ["-rwsr-xr-x", "1", "sailor", "crew", "16"]);
    assert!(lines[2].ends_with(" b.txt"), "{long}");
    assert_eq!(words(1)[4], "3000");
    assert!(lines[3].starts_with("lrwxrwxrwx ") && lines[3].ends_with(" dangling -> nowhere"));
    assert!(lines[5].starts_with("drwxrwxrwt ") && lines[5].ends_with(" sub"), "{long}");
    let time = words(5)[5..8].join(" ");
    let now = std::process::Command::new("date").args(["-u", "+%b %-d %H:"]).output().unwrap();
    assert!(time.starts_with(String::from_utf8(now.stdout).unwrap().trim()), "{time}");
    assert_eq!(
        in_bundle(files, &["ls", "-ln", "/data/b.txt"]).good().split_whitespace().nth(2),
        Some("1000")
    );
    assert_eq!(in_bundle(files, &["ls", "-S", "-A", "/data"]).good().lines().next(), Some("sub"));
    assert_eq!(
        in_bundle(files, &["ls", "-R", "/data"]).good(),
        "/data:\nb.txt\ndangling\nlink\nsub\n\n/data/sub:\ndeep\n"
    );
    assert_eq!(
        in_bundle(files, &["ls", "-d", "/data", "/data/link"]).good(),
        "/data\n/data/link\n"
    );
}

#[test]
fn a_device_a_folder_of_thousands_and_a_missing_one_are_listed_or_named() {
    let null = in_bundle(|_| {}, &["ls", "-l", "/dev/null"]).good();
    assert!(null.starts_with("crw-rw-rw-") && null.contains("   1,   3 "), "{null}");
    let many = |bundle: &mut Bundle| {
        std::fs::create_dir(bundle.rootfs("many")).unwrap();
        for n in 0..5000 {
            std::fs::write(bundle.rootfs(&format!("many/file-{n:05}")), "").unwrap();
        }
    };
    let out = in_bundle(many, &["ls", "-l", "/many"]).good();
    assert_eq!(out.lines().count(), 5001);
    assert!(out.ends_with(" file-04999\n"));
    let ran = in_bundle(files, &["ls", "/data/sub", "/missing"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "/data/sub:\ndeep\n"));
    assert_eq!(ran.err, "ls: /missing: No such file or directory\n");
}

#[test]
fn cat_prints_files_as_they_are_or_with_numbers_and_marks() {
    assert_eq!(in_bundle(files, &["cat", "/data/b.txt"]).good(), "one\n\ttwo\n\nthree\x01");
    let numbered = in_bundle(files, &["cat", "-n", "/data/link"]).good();
    assert_eq!(numbered, "     1\tone\n     2\t\ttwo\n     3\t\n     4\tthree\x01");
    let all = in_bundle(files, &["cat", "-bA", "/data/b.txt"]).good();
    assert_eq!(all, "     1\tone$\n     2\t^Itwo$\n$\n     3\tthree^A");
    let ran = in_bundle(files, &["cat", "/data", "/nothing", "/data/.hidden"]);
    assert_eq!((ran.code, ran.out.len()), (1, 3000));
    assert!(ran.err.contains("cat: /data: Is a directory\n"), "{}", ran.err);
    assert!(ran.err.contains("cat: /nothing: No such file or directory\n"), "{}", ran.err);
    assert!(in_bundle(|_| {}, &["cat", "-z"]).bad().contains("unknown option -z"));
}

#[test]
fn env_prints_the_environment_as_it_is_changed() {
    let set =
        |bundle: &mut Bundle| bundle.spec["process"]["env"] = json!(["A=1", "B=two words", "C="]);
    assert_eq!(in_bundle(set, &["env"]).good(), "A=1\nB=two words\nC=\n");
    assert_eq!(in_bundle(set, &["env", "-u", "A", "D=4", "C=3"]).good(), "B=two words\nC=3\nD=4\n");
    assert_eq!(in_bundle(set, &["env", "-i", "X=y"]).good(), "X=y\n");
    assert!(in_bundle(set, &["env", "sh"]).bad().contains("env: sh: cannot be run"));
}

#[test]
fn help_lists_all_and_what_is_unknown_is_named() {
    let help = in_bundle(|_| {}, &["coracle-box", "--help"]).good();
    for name in coracle_shim::toolbox::COMMANDS {
        assert!(help.contains(&format!("\n  {name} ")), "{name} is missing in {help}");
        let usage = in_bundle(|_| {}, &[name, "--help"]).good();
        assert!(usage.starts_with(&format!("usage: {name}")), "{usage}");
    }
    let ran = in_bundle(|_| {}, &["coracle-box", "vi\x1b[2J"]);
    assert_eq!(ran.code, 127);
    assert!(ran.err.contains("vi\\033[2J: no such command"), "{}", ran.err);
}

#[test]
fn names_of_files_are_no_commands_for_a_terminal() {
    let evil = |bundle: &mut Bundle| {
        std::fs::create_dir(bundle.rootfs("e")).unwrap();
        std::fs::write(bundle.rootfs("e/a\x1b]0;owned\x07\nb"), "").unwrap();
    };
    // A pipe gets the bytes, as far as they are text.
    assert!(in_bundle(evil, &["ls", "/e"]).good().contains("a\x1b]0;owned\x07\nb"));
    let mut bundle = Bundle::new();
    evil(&mut bundle);
    let shown = on_a_terminal(&mut bundle, &["ls", "-la", "/e"]);
    assert!(shown.contains("a\\033]0;owned\\007\\012b"), "{shown:?}");
    assert!(!shown.contains('\x1b'), "{shown:?}");
    // Errors are shown to people, whatever standard error is.
    let error = in_bundle(|_| {}, &["cat", "/\x1b[31mred"]).bad();
    assert_eq!(error, "cat: /\\033[31mred: No such file or directory\n");
}

/// Runs the toolbox with a terminal as its output; gives what the terminal shows.
fn on_a_terminal(bundle: &mut Bundle, words: &[&str]) -> String {
    let pty = nix::pty::openpty(None, None).unwrap();
    let stdio = Stdio { stdout: Some(pty.slave), ..Stdio::default() };
    block_on(async {
        let mut guest = bundle.run_toolbox(words, stdio).await.unwrap();
        assert_eq!(guest.wait().await.exit, Exit::Code(0));
        guest.cleanup().await.unwrap();
        let (mut master, mut shown) = (std::fs::File::from(pty.master), Vec::new());
        // A terminal that nobody has open ends with an error.
        let _ = master.read_to_end(&mut shown);
        String::from_utf8(shown).unwrap()
    })
}

#[test]
fn df_shows_the_space_of_mounts_and_of_what_is_named() {
    let volume = tempfile::tempdir().unwrap();
    let with = |bundle: &mut Bundle| {
        bundle.mount(bind(volume.path(), "/vol ume", &["rbind", "rw"]));
    };
    let out = in_bundle(with, &["df", "/dev"]).good();
    let row: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
    // The tmpfs of the default spec has 64 MiB.
    assert_eq!((row[0], row[1], row[5]), ("tmpfs", "65536", "/dev"), "{out}");
    assert!(
        out.starts_with("Filesystem            1K-blocks      Used Available Use% Mounted on\n")
    );
    let out = in_bundle(with, &["df", "-h", "/dev/null"]).good();
    assert!(out.contains(" 64.0M "), "{out}");
    let all = in_bundle(with, &["df"]).good();
    assert!(
        all.lines().any(|line| line.ends_with(" /vol ume")) && !all.contains("/proc\n"),
        "{all}"
    );
    assert!(in_bundle(with, &["df", "/nothing"]).bad().contains("df: /nothing: No such file"));
    let without = |bundle: &mut Bundle| {
        bundle.unmount("/proc");
    };
    let error = in_bundle(without, &["df"]).bad();
    assert!(
        error.contains("/proc/mounts: No such file or directory; does the container mount /proc?")
    );
}

#[test]
fn sleep_waits_as_long_as_it_is_told() {
    let begun = std::time::Instant::now();
    in_bundle(|_| {}, &["sleep", "0.2", "0.3s"]).good();
    assert!(begun.elapsed() >= std::time::Duration::from_millis(500));
    for word in ["", "x", "1e3", "1w"] {
        assert!(in_bundle(|_| {}, &["sleep", word]).bad().contains("is no time"), "{word}");
    }
    assert!(in_bundle(|_| {}, &["sleep"]).bad().contains("the time is missing"));
}

/// A guest, and a bundle whose program will see the guest's processes.
pub(crate) async fn neighbours(wat: &str, args: &[&str]) -> (Bundle, Guest, Bundle) {
    let mut bundle = Bundle::new();
    bundle.spec["process"]["args"] = json!(args);
    let guest = bundle.run(wat, Stdio::default()).await.unwrap();
    let mut beside = Bundle::new();
    for namespace in beside.spec["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "pid" {
            namespace["path"] = json!(format!("/proc/{}/ns/pid", guest.pid()));
        }
    }
    (bundle, guest, beside)
}

const SLEEPER: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
    (memory (export "memory") 7) (table 9 funcref)
    (func $doze (drop (call $yield))
        (i64.store (i32.const 24) (i64.const 3600000000000))
        (i32.store (i32.const 16) (i32.const 1))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))))
    (func $evening (export "_start") (call $doze)))"#;
const SPINNER: &str = r#"(module (memory 2)
    (func $round (loop (br 0)))
    (func $start (export "_start") (call $round)))"#;

#[test]
fn ps_lists_the_processes_and_kill_signals_them() {
    block_on(async {
        let (bundle, mut guest, mut beside) = neighbours(SLEEPER, &["/bin/dozer.wasm"]).await;
        let out = run(&mut beside, &["ps"]).await.good();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], "PID   USER     TIME  COMMAND");
        assert_eq!(lines[1], "    1 0         0:00 dozer.wasm");
        assert!(lines[2].ends_with(" ps") && lines.len() == 3, "{out}");
        let error = run(&mut beside, &["kill", "-0", "4000", "x"]).await.bad();
        assert!(error.contains("kill: 4000: No such process\nkill: x: is no pid"), "{error}");
        assert!(run(&mut beside, &["kill", "-FOO", "1"]).await.bad().contains("FOO: is no signal"));
        assert_eq!(run(&mut beside, &["kill", "-l", "9", "137"]).await.good(), "KILL\nKILL\n");
        run(&mut beside, &["kill", "-0", "1"]).await.good();
        // The end of the first process ends all of its namespace, at times before who has caused it.
        let killer = run(&mut beside, &["kill", "-SIGUSR2", "1"]).await;
        assert!(matches!(killer.code, 0 | 137), "{killer:?}");
        assert_eq!(guest.wait().await.exit, Exit::Code(128 + 12));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
        beside.assert_clean();
    });
}

#[test]
fn a_program_that_waits_and_one_that_spins_tell_where_they_are() {
    block_on(async {
        let (bundle, mut guest, mut beside) = neighbours(SLEEPER, &["/bin/dozer.wasm"]).await;
        let out = run(&mut beside, &["backtrace"]).await.good();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], "dozer.wasm (pid 1): in a host call");
        assert!(lines[1].starts_with("  0: 0x") && lines[1].ends_with("  doze"), "{out}");
        assert!(lines[2].ends_with("  evening"), "{out}");
        assert_eq!(lines[3], "  last host call that ended: sched_yield (success)");
        let out = run(&mut beside, &["mem", "1"]).await.good();
        assert!(
            out.starts_with("linear memory  7 pages, 458752 bytes\ntables         9 elements\n"),
            "{out}"
        );
        assert!(out.contains("\nresident  ") && out.contains(" kB, at most "), "{out}");
        // It goes on as if nothing had been.
        assert!(guest.signal(0, false).is_ok());
        guest.cleanup().await.unwrap();
        bundle.assert_clean();

        let (bundle, mut guest, mut beside) = neighbours(SPINNER, &["/spin.wasm"]).await;
        for _ in 0..3 {
            let out = run(&mut beside, &["coracle-box", "backtrace"]).await.good();
            assert!(out.starts_with("spin.wasm (pid 1): in WebAssembly\n  0: 0x"), "{out}");
            assert!(out.contains("  round\n") && out.trim_end().ends_with("  start"), "{out}");
        }
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
        beside.assert_clean();
    });
}

#[test]
fn each_thread_of_a_program_is_asked() {
    let threads = r#"(module
        (import "env" "memory" (memory 1 1 shared))
        (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
        (func $wait_for_ever (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))
        (func $worker (export "wasi_thread_start") (param i32 i32) (call $wait_for_ever))
        (func $boss (export "_start") (drop (call $spawn (i32.const 0))) (loop (br 0))))"#;
    block_on(async {
        let (bundle, mut guest, mut beside) = neighbours(threads, &["/team.wasm"]).await;
        // The thread may not be there yet.
        let mut out = String::new();
        for _ in 0..50 {
            out = run(&mut beside, &["backtrace"]).await.good();
            if out.contains("  wait_for_ever\n") {
                break;
            }
        }
        assert!(out.contains("thread 1): runs no WebAssembly on this thread\n"), "{out}");
        assert!(out.contains("in WebAssembly\n  0: 0x") && out.contains("  boss\n"), "{out}");
        assert!(out.contains("in a host call\n  0: 0x") && out.contains("  worker\n"), "{out}");
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
        beside.assert_clean();
    });
}

#[test]
fn only_programs_of_this_runtime_are_asked_and_no_other_is_harmed() {
    block_on(async {
        // Its own process is one; this test's executable is not; the pid namespace is the host's.
        let mut bundle = Bundle::new();
        let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        let mut linux = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = linux.id().to_string();
        let error = run(&mut bundle, &["backtrace", &pid]).await.bad();
        assert!(error.contains("is no WebAssembly program of this runtime"), "{error}");
        assert_eq!(linux.try_wait().unwrap(), None, "it lives");
        linux.kill().unwrap();
        linux.wait().unwrap();
        let error = run(&mut bundle, &["mem", &pid]).await.bad();
        assert!(error.contains("no such process"), "{error}");
        for (word, why) in [("x", "is no pid"), ("0", "is no pid"), ("-5", "is no pid")] {
            assert!(run(&mut bundle, &["mem", word]).await.bad().contains(why), "{word}");
        }
        bundle.assert_clean();
        // A paused one does not answer, and is not waited for long.
        let (bundle, mut guest, mut beside) = neighbours(SPINNER, &["/spin.wasm"]).await;
        guest.signal(libc::SIGSTOP, false).unwrap();
        let error = run(&mut beside, &["backtrace"]).await.bad();
        assert!(error.contains("did not answer within two seconds; is it paused?"), "{error}");
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
        beside.assert_clean();
    });
}

#[test]
fn another_program_cannot_import_what_the_toolbox_can() {
    let text = r#"(module (import "coracle_box" "kill" (func (param i32 i32) (result i32)))
        (func (export "_start")))"#;
    block_on(async {
        let mut bundle = Bundle::new();
        // Neither by its name nor by anything else that an image can choose.
        bundle.spec["process"]["args"] = json!(["coracle-box", "ls"]);
        let error = bundle.run(text, Stdio::default()).await.map(|guest| guest.pid()).unwrap_err();
        assert!(error.to_string().contains("`coracle_box`"), "{error}");
        coracle_shim::guest::cleanup_bundle(bundle.path(), &bundle.id).unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn the_signal_of_questions_ends_a_program_that_is_not_asked() {
    block_on(async {
        let bundle = Bundle::new();
        let mut guest = bundle.run(SPINNER, Stdio::default()).await.unwrap();
        guest.signal(libc::SIGRTMAX(), false).unwrap();
        assert_eq!(guest.wait().await.exit, Exit::Code(128 + 64));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}
