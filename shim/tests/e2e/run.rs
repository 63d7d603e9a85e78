//! What goes in and what comes out of a container that runs to its end.

use crate::bed::{Kind, Mount, Spec, on_each, on_some};

/// The forms in which the same program is packed.
const FORMS: [&str; 3] = ["rootfs", "layer", "wat"];

#[test]
fn hello_in_every_image_form() {
    on_each(|daemon| {
        for form in FORMS {
            let image = format!("hello-{}:{form}", if form == "wat" { "wat" } else { "c" });
            if daemon.graph_store && form == "layer" {
                continue; // that store holds images of the host's platform only
            }
            let done = daemon.run(&Spec { image: &image, ..Spec::default() })?;
            done.expect("a hello", done.code == 0 && done.stdout.contains("Hello"))?;
        }
        Ok(())
    });
}

#[test]
fn hello_from_every_language() {
    on_each(|daemon| {
        for language in ["c", "go", "rust"] {
            let image = format!("hello-{language}:rootfs");
            let done = daemon.run(&Spec { image: &image, ..Spec::default() })?;
            done.expect("a hello", done.code == 0 && done.stdout.contains("Hello"))?;
        }
        Ok(())
    });
}

#[test]
fn an_index_that_holds_a_wasm_image_runs() {
    on_some(
        |daemon| !daemon.graph_store,
        |daemon| {
            let done = daemon.run(&Spec { image: "hello-c:index", ..Spec::default() })?;
            done.expect("a hello", done.code == 0 && done.stdout.contains("Hello"))
        },
    );
}

#[test]
fn exit_codes_arrive() {
    on_each(|daemon| {
        for code in ["0", "1", "42", "255"] {
            let done = daemon.run(&Spec {
                image: "exit-code:rootfs",
                args: &[code],
                ..Spec::default()
            })?;
            done.expect(&format!("exit code {code}"), done.code.to_string() == code)?;
        }
        Ok(())
    });
}

#[test]
fn a_trap_ends_with_134_and_says_where() {
    on_each(|daemon| {
        let done = daemon.run(&Spec { image: "trap:rootfs", ..Spec::default() })?;
        done.expect("exit code 134", done.code == 134)?;
        done.expect("the trap's kind", done.stderr.contains("unreachable"))?;
        done.expect("the functions' names", done.stderr.contains("inner"))
    });
}

#[test]
fn arguments_and_environment_arrive_unchanged() {
    on_each(|daemon| {
        let done = daemon.run(&Spec {
            image: "env-args:rootfs",
            args: &["one", "two words", "-x", ""],
            env: &[("CORACLE_TEST", "a=b c"), ("EMPTY", "")],
            ..Spec::default()
        })?;
        done.expect("success", done.code == 0)?;
        for line in ["two words", "-x", "CORACLE_TEST=a=b c", "EMPTY="] {
            done.expect(line, done.stdout.contains(line))?;
        }
        Ok(())
    });
}

#[test]
fn standard_input_arrives_whole_and_ends() {
    // Bigger than a pipe's buffer, so that it must really flow.
    let input: Vec<u8> = (0..300_000u32).map(|n| b'a' + (n % 26) as u8).collect();
    on_each(|daemon| {
        let done = daemon.run(&Spec {
            image: "stdin-echo:rootfs",
            stdin: Some(&input),
            ..Spec::default()
        })?;
        done.expect("success", done.code == 0)?;
        if done.stdout.as_bytes() == input.as_slice() {
            Ok(())
        } else {
            Err(format!("expected the input back, got {} bytes", done.stdout.len()))
        }
    });
}

#[test]
fn bind_mounts_can_be_written_and_read_only_ones_cannot() {
    on_each(|daemon| {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mount = |readonly| Mount { host: scratch.path(), guest: "/data", readonly };
        let spec =
            |mounts| Spec { image: "files:rootfs", args: &["/data"], mounts, ..Spec::default() };

        let writable = [mount(false)];
        let done = daemon.run(&spec(&writable))?;
        done.expect("success on a writable mount", done.code == 0)?;

        let readonly = [mount(true)];
        let before = listing(scratch.path());
        let done = daemon.run(&spec(&readonly))?;
        done.expect("failure on a read-only mount", done.code != 0 && done.code != 134)?;
        done.expect("nothing changed in it", listing(scratch.path()) == before)
    });
}

fn listing(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("the scratch folder can be listed")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn docker_removes_the_container_when_asked() {
    on_some(
        |daemon| daemon.kind == Kind::Docker,
        |daemon| {
            let done = daemon.run(&Spec { image: "hello-c:rootfs", ..Spec::default() })?;
            done.expect("success", done.code == 0)?;
            let left = daemon.call(&["ps", "--all", "--quiet", "--filter", "name=e2e-gone"], None);
            left.expect("no container left", left.code == 0 && left.stdout.trim().is_empty())
        },
    );
}
