//! The memory limit as a program meets it: growing fails, and nobody is killed.

use std::io::Read;
use std::path::PathBuf;

use coracle_shim::guest::{Exit, Stdio};
use serde_json::json;

use crate::support::*;

/// Grows by a MiB and writes to it; the result is whether that worked.
const GROW: &str = r#"
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "fd_write"
        (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func $grow (result i32) (local $old i32)
        (local.set $old (memory.grow (i32.const 16)))
        (if (i32.eq (local.get $old) (i32.const -1)) (then (return (i32.const 0))))
        (memory.fill
            (i32.shl (local.get $old) (i32.const 16)) (i32.const 1) (i32.const 1048576))
        (i32.const 1))
    (func $fill (result i32) (local $count i32)
        (loop $more
            (if (call $grow)
                (then
                    (local.set $count (i32.add (local.get $count) (i32.const 1)))
                    (br $more))))
        (local.get $count))
"#;

/// The file that holds the container's limit.
fn limit_file(bundle: &Bundle) -> PathBuf {
    let files = bundle
        .cgroups()
        .into_iter()
        .flat_map(|dir| [dir.join("memory.max"), dir.join("memory.limit_in_bytes")]);
    files.into_iter().find(|file| file.exists()).unwrap()
}

#[test]
fn a_program_that_takes_all_it_gets_is_not_killed() {
    let text = format!(r#"(module {GROW} (func (export "_start") (call $exit (call $fill))))"#);
    block_on(async {
        for limit in [16, 64, 128] {
            let mut bundle = Bundle::new();
            bundle.spec["linux"]["resources"]["memory"] = json!({"limit": limit << 20});
            let mut guest = bundle.run(&text, Stdio::default()).await.unwrap();
            let Exit::Code(got) = guest.wait().await.exit else { panic!("it was killed") };
            // All but what the process itself needs.
            assert!((limit - 8..limit).contains(&u64::from(got)), "{got} of {limit} MiB");
            guest.cleanup().await.unwrap();
            bundle.assert_clean();
        }
    });
}

#[test]
fn a_limit_that_is_raised_is_followed() {
    // Fills what there is, says so, and goes on trying until it has 20 MiB more.
    let text = format!(
        r#"(module {GROW}
            (data (i32.const 64) "full\n")
            (func (export "_start") (local $left i32)
                (drop (call $fill))
                (i32.store (i32.const 0) (i32.const 64))
                (i32.store (i32.const 4) (i32.const 5))
                (drop (call $fd_write
                    (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (local.set $left (i32.const 20))
                (loop $more
                    (local.set $left (i32.sub (local.get $left) (call $grow)))
                    (br_if $more (local.get $left)))
                (call $exit (i32.const 42))))"#
    );
    block_on(async {
        let bundle = Bundle::new();
        let (mut reader, writer) = pipe();
        let stdio = Stdio { stdout: Some(writer), ..Stdio::default() };
        let mut guest = bundle.run(&text, stdio).await.unwrap();
        let mut said = [0; 5];
        reader.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"full\n");
        std::fs::write(limit_file(&bundle), (100_u64 << 20).to_string()).unwrap();
        assert_eq!(guest.wait().await.exit, Exit::Code(42));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn a_module_that_cannot_fit_says_so() {
    let text = r#"(module (memory (export "memory") 4096) (func (export "_start")))"#;
    block_on(async {
        let bundle = Bundle::new();
        let (mut reader, writer) = pipe();
        let stdio = Stdio { stderr: Some(writer), ..Stdio::default() };
        let mut guest = bundle.run(text, stdio).await.unwrap();
        assert_eq!(guest.wait().await.exit, Exit::Code(125));
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert!(said.contains("limit of memory") && said.contains("268435456"), "{said}");
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}
