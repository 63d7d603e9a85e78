//! What people do with a pod that runs: exec, logs, top.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Namespace, Running, ended, eventually};

/// Starts a pod whose program sleeps, and waits until it does.
fn sleeping(namespace: &Namespace) -> Result<()> {
    namespace
        .apply(&namespace.pod("sleeper", &[namespace.container("main", "sleep:layer", &[])]))?;
    namespace.ready("sleeper").map(drop)
}

pub(crate) fn exec_runs_the_toolbox(namespace: &Namespace) -> Result<()> {
    sleeping(namespace)?;
    let words = namespace.kubectl(&["exec", "sleeper", "--", "cat", "/etc/hostname"])?;
    ensure!(words == "sleeper\n", "{words:?}");
    let words = namespace.kubectl(&["exec", "sleeper", "--", "ls", "/"])?;
    ensure!(words.lines().any(|line| line == "etc"), "{words:?}");
    let output = namespace.command(&["exec", "sleeper", "--", "cat", "/no/such/file"]).output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    Ok(())
}

/// Files and folders, into a pod whose image has no program but the guest, and out of it.
pub(crate) fn cp_takes_files_both_ways(namespace: &Namespace) -> Result<()> {
    sleeping(namespace)?;
    let place = tempfile::tempdir()?;
    let at = |name: &str| place.path().join(name).to_string_lossy().into_owned();
    std::fs::create_dir_all(at("folder/below"))?;
    std::fs::write(at("folder/below/file"), "words\n".repeat(100_000))?;
    namespace.kubectl(&["cp", &at("folder"), "sleeper:/copied"])?;
    let words = namespace.kubectl(&["exec", "sleeper", "--", "cat", "/copied/below/file"])?;
    ensure!(words == "words\n".repeat(100_000), "{} bytes arrived", words.len());
    namespace.kubectl(&["cp", "sleeper:/copied/below/file", &at("back")])?;
    ensure!(std::fs::read_to_string(at("back"))? == words, "what comes back is something else");
    Ok(())
}

/// Standard input and output of the program itself; what is attached sees its end.
pub(crate) fn attach_talks_to_the_program(namespace: &Namespace) -> Result<()> {
    let mut echo = namespace.container("main", "stdin-echo:rootfs", &[]);
    (echo["stdin"], echo["stdinOnce"]) = (true.into(), true.into());
    namespace.apply(&namespace.pod("echo", &[echo]))?;
    namespace.ready("echo")?;
    let mut command = namespace.command(&["attach", "--stdin", "echo"]);
    let mut attached = Running(
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?,
    );
    let mut input = attached.0.stdin.take().context("kubectl has no standard input")?;
    input.write_all(b"one line\n")?;
    drop(input);
    let mut words = String::new();
    attached
        .0
        .stdout
        .take()
        .context("kubectl has no standard output")?
        .read_to_string(&mut words)?;
    ensure!(words.contains("one line\n"), "{words:?}");
    let pod = namespace.phase("echo", &["Succeeded", "Failed"])?;
    ensure!(ended(&pod, 0)?.0 == 0, "{}", pod["status"]);
    Ok(())
}

pub(crate) fn logs_follow(namespace: &Namespace) -> Result<()> {
    sleeping(namespace)?;
    let mut command = namespace.command(&["logs", "--follow", "sleeper"]);
    let mut follow = Running(command.stdout(Stdio::piped()).spawn()?);
    let out = follow.0.stdout.take().context("kubectl has no standard output")?;
    let mut lines = BufReader::new(out).lines();
    ensure!(lines.next().transpose()?.as_deref() == Some("sleeping"), "the first line is another");
    namespace.kubectl(&["delete", "pod", "sleeper", "--wait=false"])?;
    // The program is killed, and with it end its logs.
    ensure!(lines.next().transpose()?.is_none(), "there is a second line");
    ensure!(follow.0.wait()?.success(), "kubectl logs --follow failed");
    Ok(())
}

pub(crate) fn top_knows_the_pod(namespace: &Namespace) -> Result<()> {
    sleeping(namespace)?;
    let line = eventually("metrics of the pod", || {
        let words =
            namespace.kubectl(&["top", "pod", "sleeper", "--containers", "--no-headers"])?;
        Ok(words.lines().find(|line| line.contains("main")).map(str::to_owned))
    })?;
    // "sleeper   main   0m   1Mi"
    let memory = line.split_whitespace().nth(3).and_then(|word| word.strip_suffix("Mi"));
    let memory: u64 = memory.with_context(|| format!("no memory in {line:?}"))?.parse()?;
    ensure!(memory < 64, "a sleeping program uses {memory} MiB");
    Ok(())
}
