//! Further processes, terminals and loggers as users of the daemons see them.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::bed::{Daemon, Finished, Kind, Mount, Spec, eventually, on_each, on_some, unique};

/// Longest that an answer on a terminal may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A container that sleeps, with WebAssembly and Linux programs on a volume.
struct Sleeper<'d> {
    daemon: &'d Daemon,
    id: String,
}

impl<'d> Sleeper<'d> {
    fn start(daemon: &'d Daemon, flags: &[&str]) -> Result<Self, String> {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test-images/build");
        let mount = |host, guest| Mount { host, guest, readonly: true };
        let mounts = [mount(&programs, "/tools"), mount(Path::new("/bin/busybox"), "/busybox")];
        let spec = Spec {
            image: "sleep:rootfs",
            args: &["1000"],
            mounts: &mounts,
            flags,
            ..Spec::default()
        };
        Ok(Self { daemon, id: daemon.start(&spec)? })
    }

    /// The client's words for an exec with these flags.
    fn words<'a>(&'a self, flags: &[&'a str], args: &[&'a str], exec: &'a str) -> Vec<&'a str> {
        let mut words = match self.daemon.kind {
            Kind::Docker => vec!["exec"],
            Kind::Ctr => vec!["tasks", "exec", "--exec-id", exec],
        };
        words.extend(flags);
        words.push(&self.id);
        words.extend(args);
        words
    }

    fn exec(&self, flags: &[&str], args: &[&str], stdin: Option<&[u8]>) -> Finished {
        let exec = unique("exec");
        self.daemon.call(&self.words(flags, args, &exec), stdin)
    }

    fn remove(mut self) -> Result<(), String> {
        self.daemon.remove(&std::mem::take(&mut self.id))
    }
}

/// Also a check that failed leaves no container.
impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        if !self.id.is_empty() {
            let _ = self.daemon.remove(&self.id);
        }
    }
}

#[test]
fn exec_runs_webassembly_and_linux_programs() {
    on_each(|daemon| {
        let sleeper = Sleeper::start(daemon, &[])?;
        for code in ["0", "42"] {
            let done = sleeper.exec(&[], &["/tools/exit-code.wasm", code], None);
            done.expect(&format!("exit code {code}"), done.code.to_string() == code)?;
            let script = format!("exit {code}");
            let done = sleeper.exec(&[], &["/busybox", "sh", "-c", &script], None);
            done.expect(&format!("exit code {code}"), done.code.to_string() == code)?;
        }
        let done = sleeper.exec(&[], &["/tools/hello.wasm"], None);
        done.expect("a hello", done.code == 0 && done.stdout.contains("hello from"))?;
        let done = sleeper.exec(&[], &["/tools/trap.wasm"], None);
        done.expect("a trap", done.code == 134 && done.stderr.contains("unreachable"))?;
        let done = sleeper.exec(&[], &["/busybox", "ps"], None);
        done.expect(
            "the container's processes",
            done.code == 0 && done.stdout.contains("busybox"),
        )?;
        sleeper.remove()
    });
}

#[test]
fn the_toolbox_is_there_where_the_image_has_nothing() {
    on_each(|daemon| {
        let sleeper = Sleeper::start(daemon, &[])?;
        for (words, said) in [
            (&["ls", "-1", "/"][..], "proc\n"),
            (&["/bin/cat", "/proc/1/comm"], "\n"),
            (&["ps"], "  COMMAND\n    1 "),
            (&["df", "-h"], "Mounted on\n"),
            (&["backtrace"], " (pid 1): in "),
            (&["mem"], "linear memory  "),
        ] {
            let done = sleeper.exec(&[], words, None);
            done.expect(&format!("{words:?}"), done.code == 0 && done.stdout.contains(said))?;
        }
        let done = sleeper.exec(&[], &["cat", "/none"], None);
        done.expect("a probe that fails", done.code == 1 && done.stderr.contains("No such file"))?;
        sleeper.remove()
    });
}

#[test]
fn docker_exec_takes_its_flags_and_codes() {
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            let sleeper = Sleeper::start(daemon, &[])?;
            let input: Vec<u8> = (0..300_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
            let done = sleeper.exec(&["-i"], &["/tools/stdin-echo.wasm"], Some(&input));
            done.expect("the input back", done.code == 0 && done.stdout.as_bytes() == input)?;
            let flags = ["-e", "COLOUR=blue", "-w", "/tools", "-u", "1234:5678"];
            let done = sleeper.exec(&flags, &["env-args.wasm", "one"], None);
            let line = "env COLOUR=blue\n";
            done.expect("arguments and variables", {
                done.code == 0 && done.stdout.contains("arg 1: one\n") && done.stdout.contains(line)
            })?;
            let script = "/busybox id -u; /busybox pwd";
            let done = sleeper.exec(&flags, &["/busybox", "sh", "-c", script], None);
            done.expect("user and folder", done.stdout == "1234\n/tools\n")?;
            for (args, code, words) in [
                (["nothing"], 127, "executable file not found in $PATH"),
                (["/nothing"], 127, "no such file or directory"),
                (["/tools"], 126, "is a directory"),
            ] {
                // Docker 26 calls them all 126.
                let code = if daemon.name.contains("(26.") { 126 } else { code };
                let done = sleeper.exec(&[], &args, None);
                let said = format!("{}{}", done.stdout, done.stderr);
                done.expect(words, done.code == code && said.contains(words))?;
            }
            let done = sleeper.exec(&["-w", "/nowhere"], &["/tools/hello.wasm"], None);
            done.expect("no working directory", [126, 127].contains(&done.code))?;
            let exec = daemon.call(&["exec", "-d", &sleeper.id, "/busybox", "sleep", "777"], None);
            exec.expect("a process in the background", exec.code == 0)?;
            eventually("the process to be there", || {
                daemon.call(&["top", &sleeper.id], None).stdout.contains("sleep 777")
            })?;
            sleeper.remove()
        },
    );
}

#[test]
fn docker_health_checks_run_as_exec_probes() {
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            for (command, wanted) in [("exit 0", "healthy"), ("exit 1", "unhealthy")] {
                // Docker has `/bin/sh -c` run what comes as text.
                let mount = "type=bind,source=/bin/busybox,target=/bin/sh,readonly";
                let flags = [
                    "--mount",
                    mount,
                    "--health-cmd",
                    command,
                    "--health-interval",
                    "1s",
                    "--health-retries",
                    "1",
                ];
                let sleeper = Sleeper::start(daemon, &flags)?;
                let format = "{{.State.Health.Status}}";
                eventually(wanted, || {
                    let state = daemon.call(&["inspect", "--format", format, &sleeper.id], None);
                    state.stdout.trim() == wanted
                })?;
                sleeper.remove()?;
            }
            Ok(())
        },
    );
}

/// Calls the client on a terminal of 77 columns and 33 rows, by script(1): waits for each text on the
/// screen, then types what belongs to it.
pub(crate) fn talk(
    daemon: &Daemon,
    words: &[&str],
    dialogue: &[(&str, &str)],
) -> Result<Finished, String> {
    let quoted: Vec<String> =
        words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let client = daemon.client().display();
    let line = format!("stty cols 77 rows 33; exec {client} {}", quoted.join(" "));
    let mut child = Command::new("timeout")
        .args(["-s", "KILL", "120", "script", "-q", "-e", "-c", &line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("script: {error}"))?;
    let (mut keyboard, mut output) =
        child.stdin.take().zip(child.stdout.take()).ok_or("no pipes")?;
    let screen = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&screen);
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut piece) {
            seen.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    });
    let mut from = 0;
    for (wanted, typed) in dialogue {
        let start = Instant::now();
        let found = loop {
            let text = screen.lock().unwrap().clone();
            if let Some(at) = text.get(from..).and_then(|rest| rest.find(wanted)) {
                break Some(from + at + wanted.len());
            }
            if start.elapsed() > PATIENCE {
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let Some(end) = found else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("no {wanted:?} on the screen: {:?}", screen.lock().unwrap()));
        };
        from = end;
        keyboard.write_all(typed.as_bytes()).map_err(|error| format!("type: {error}"))?;
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    drop(keyboard);
    reader.join().map_err(|_| "the reader panicked")?;
    let stdout = screen.lock().unwrap().clone();
    Ok(Finished { code: status.code().unwrap_or(-1), stdout, stderr: String::new() })
}

#[test]
fn a_shell_on_a_terminal() {
    on_each(|daemon| {
        let sleeper = Sleeper::start(daemon, &[])?;
        let flags: &[&str] = if daemon.kind == Kind::Docker { &["-it"] } else { &["--tty"] };
        let words = sleeper.words(flags, &["/busybox", "sh"], "shell");
        let done = talk(
            daemon,
            &words,
            &[
                ("# ", "/busybox tty; /busybox stty size\n"),
                ("/dev/pts/", ""),
                ("33 77", "/busybox sh -c \"echo wai''ting; /busybox sleep 1000\"\n"),
                ("waiting", "\u{3}"),
                ("# ", "echo st''ill here\n"),
                ("still here", "exit 7\n"),
            ],
        )?;
        done.expect("exit code 7", done.code == 7)?;
        sleeper.remove()
    });
}

#[test]
fn a_container_on_a_terminal() {
    on_each(|daemon| {
        let image = daemon.image("stdin-echo:rootfs")?;
        let id = unique("e2e-tty");
        let runtime = crate::bed::RUNTIME;
        let words = match daemon.kind {
            Kind::Docker => {
                vec![
                    "run",
                    "--rm",
                    "-it",
                    "--pull=never",
                    "--runtime",
                    runtime,
                    "--name",
                    &id,
                    &image,
                ]
            }
            Kind::Ctr => vec!["run", "--rm", "--tty", "--runtime", runtime, &image, &id],
        };
        let done = talk(daemon, &words, &[("", "ahoy\n"), ("ahoy", ""), ("ahoy", "\u{4}")])?;
        done.expect("an end", done.code == 0)
    });
}

#[test]
fn docker_attaches_again_to_a_terminal() {
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            let flags = ["--interactive", "--tty"];
            let id = daemon.start(&Spec {
                image: "stdin-echo:rootfs",
                flags: &flags,
                ..Spec::default()
            })?;
            // The keys that leave it running.
            let leave = "\u{10}\u{11}";
            let dialogue = [("", "one\n"), ("one", ""), ("one", leave)];
            talk(daemon, &["attach", &id], &dialogue)?;
            let dialogue = [("", "two\n"), ("two", ""), ("two", "\u{4}")];
            let done = talk(daemon, &["attach", &id], &dialogue)?;
            done.expect("an end", done.code == 0)?;
            let logs = daemon.call(&["logs", &id], None);
            daemon.remove(&id)?;
            logs.expect("both", logs.stdout.contains("one") && logs.stdout.contains("two"))
        },
    );
}

#[test]
fn docker_log_drivers() {
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            for driver in ["json-file", "local"] {
                let flags = ["--log-driver", driver];
                let id = daemon.start(&Spec {
                    image: "hello:rootfs",
                    flags: &flags,
                    ..Spec::default()
                })?;
                daemon.call(&["wait", &id], None);
                let logs = daemon.call(&["logs", &id], None);
                daemon.remove(&id)?;
                logs.expect(driver, logs.stdout.contains("hello from"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn ctr_logs_by_a_program() {
    on_some(
        |daemon| daemon.kind == Kind::Ctr,
        |daemon| {
            let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
            let (log, script) = (scratch.path().join("log"), scratch.path().join("logger"));
            write_logger(&script, &log).map_err(|error| error.to_string())?;
            let url = format!("binary://{}", script.display());
            let flags = ["--log-uri", &url];
            let id =
                daemon.start(&Spec { image: "hello:rootfs", flags: &flags, ..Spec::default() })?;
            eventually("the words in the log", || {
                std::fs::read_to_string(&log).is_ok_and(|text| {
                    text.contains("hello from") && text.contains(&format!("for {id}"))
                })
            })?;
            daemon.remove(&id)
        },
    );
}

fn write_logger(script: &PathBuf, log: &Path) -> std::io::Result<()> {
    let text = format!(
        "#!/bin/sh\nexec >> {}\necho \"for $CONTAINER_ID in $CONTAINER_NAMESPACE\"\nexec 5>&-\n\
         cat <&3 & cat <&4; wait\n",
        log.display()
    );
    std::fs::write(script, text)?;
    std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}
