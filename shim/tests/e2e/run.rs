//! What goes in and what comes out of a container that runs to its end.

use crate::bed::{Kind, Mount, Spec, on_each, on_some};

/// The forms in which the same program is packed.
const FORMS: [&str; 3] = ["rootfs", "layer", "wat"];

#[test]
fn hello_in_every_image_form() {
    on_each(|daemon| {
        for form in FORMS {
            let image = format!("hello{}:{form}", if form == "wat" { "-wat" } else { "" });
            if form == "layer" && !daemon.runs_layers {
                continue;
            }
            let done = daemon.run(&Spec { image: &image, ..Spec::default() })?;
            done.expect("a hello", done.code == 0 && done.stdout.contains("hello from"))?;
        }
        Ok(())
    });
}

#[test]
fn hello_from_every_language() {
    on_each(|daemon| {
        for program in ["hello", "hello-go", "hello-rust"] {
            let image = format!("{program}:rootfs");
            let done = daemon.run(&Spec { image: &image, ..Spec::default() })?;
            done.expect("a hello", done.code == 0 && done.stdout.contains("hello from"))?;
        }
        Ok(())
    });
}

#[test]
fn an_index_that_holds_a_wasm_image_runs() {
    on_some(
        |daemon| daemon.runs_layers,
        |daemon| {
            let done = daemon.run(&Spec { image: "hello:layer-index", ..Spec::default() })?;
            done.expect("a hello", done.code == 0 && done.stdout.contains("hello from"))
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
        for line in [
            "arg 1: one\n",
            "arg 2: two words\n",
            "arg 3: -x\n",
            "arg 4: \n",
            "env CORACLE_TEST=a=b c\n",
        ] {
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
        let run = |args, readonly| {
            let mounts = [mount(readonly)];
            daemon.run(&Spec { image: "files:rootfs", args, mounts: &mounts, ..Spec::default() })
        };

        let done = run(&["/data"], false)?;
        let expected = include_str!("../../../test-images/files/expected.txt");
        done.expect("the report on a writable mount", done.stdout == expected)?;

        let seed = scratch.path().join("seed.txt");
        std::fs::write(&seed, "seed\n").map_err(|error| error.to_string())?;
        let before = listing(scratch.path());
        let done = run(&["--read-only", "/data"], true)?;
        let expected = include_str!("../../../test-images/files/expected-read-only.txt");
        done.expect("the report on a read-only mount", done.stdout == expected)?;
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
            let image = daemon.image("hello:rootfs")?;
            let name = crate::bed::unique("e2e-gone");
            let runtime = ["--runtime", "io.containerd.wasm.v1", "--pull=never"];
            let done = daemon
                .call(&[&["run", "--rm", "--name", &name], &runtime[..], &[&image]].concat(), None);
            done.expect("success", done.code == 0)?;
            let filter = format!("name={name}");
            let left = daemon.call(&["ps", "--all", "--quiet", "--filter", &filter], None);
            left.expect("no container left", left.code == 0 && left.stdout.trim().is_empty())
        },
    );
}
