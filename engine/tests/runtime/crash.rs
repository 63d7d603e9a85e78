//! Faults that are not the guest's keep their usual consequence. Each test runs itself again in a
//! process of its own, which must die or exit as said.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use coracle_engine::runtime::Caller;

use crate::World;

/// Set in the process that is to crash.
const CHILD: &str = "CORACLE_TEST_CRASH";

pub(crate) fn is_child() -> bool {
    let child = std::env::var_os(CHILD).is_some();
    if child {
        // SAFETY: alarm only asks for a signal, whose default action ends a child that hangs.
        unsafe { libc::alarm(30) };
    }
    child
}

/// Runs the test `name` of this file in a process of its own.
fn run(name: &str) -> ExitStatus {
    run_test(&format!("crash::{name}"))
}

/// Runs a test in a process of its own.
pub(crate) fn run_test(path: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args([path, "--exact", "--test-threads=1"])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

fn read_null() -> i32 {
    // SAFETY: none: the fault is what the test is about.
    unsafe { std::hint::black_box(std::ptr::null::<i32>()).read_volatile() }
}

#[test]
fn a_null_dereference_of_a_host_function_kills_the_process() {
    if !is_child() {
        let status = run("a_null_dereference_of_a_host_function_kills_the_process");
        assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
        return;
    }
    let mut world = World::new();
    world.linker.func_wrap("h", "crash", |_: Caller<'_>| read_null());
    let instance = world.instance(
        r#"(module (import "h" "crash" (func $crash (result i32)))
            (func (export "f") (result i32) (call $crash)))"#,
    );
    let _ = world.call(instance, "f", &[]);
}

#[test]
fn an_access_of_the_host_to_a_guard_kills_the_process() {
    if !is_child() {
        let status = run("an_access_of_the_host_to_a_guard_kills_the_process");
        assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
        return;
    }
    let mut world = World::new();
    world.linker.func_wrap("h", "crash", |mut caller: Caller<'_>| {
        let memory = caller.memory().unwrap();
        // SAFETY: none: the fault is what the test is about.
        unsafe { i32::from(memory.as_ptr().add(memory.len()).read_volatile()) }
    });
    let instance = world.instance(
        r#"(module (import "h" "crash" (func $crash (result i32))) (memory 1)
            (func (export "f") (result i32) (call $crash)))"#,
    );
    let _ = world.call(instance, "f", &[]);
}

/// The instruction that compiled code traps by, elsewhere.
fn illegal_instruction() {
    // SAFETY: none: the fault is what the test is about.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("ud2")
    };
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("udf #0xc11f")
    };
}

#[test]
fn an_illegal_instruction_of_a_host_function_kills_the_process() {
    if !is_child() {
        let status = run("an_illegal_instruction_of_a_host_function_kills_the_process");
        assert_eq!(status.signal(), Some(libc::SIGILL), "{status}");
        return;
    }
    let mut world = World::new();
    world.linker.func_wrap("h", "crash", |_: Caller<'_>| illegal_instruction());
    let instance = world.instance(
        r#"(module (import "h" "crash" (func $crash)) (func (export "f") (call $crash)))"#,
    );
    let _ = world.call(instance, "f", &[]);
}

#[test]
fn a_fault_of_another_thread_is_not_the_guests() {
    if !is_child() {
        let status = run("a_fault_of_another_thread_is_not_the_guests");
        assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
        return;
    }
    let mut world = World::new();
    let instance = world.instance(r#"(module (func (export "f") (loop $l (br $l))))"#);
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(20));
        read_null()
    });
    let _ = world.call(instance, "f", &[]);
}

#[test]
fn a_signal_sent_to_a_running_guest_is_no_trap() {
    if !is_child() {
        let status = run("a_signal_sent_to_a_running_guest_is_no_trap");
        assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
        return;
    }
    let mut world = World::new();
    // Every instruction of the loop that can trap does not.
    let instance = world.instance(
        r#"(module (memory 1) (func (export "f") (loop $l
            (i32.store (i32.const 0) (i32.const 1)) (br $l))))"#,
    );
    // SAFETY: pthread_self has no preconditions.
    let guest = unsafe { libc::pthread_self() };
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        // The standard library's handler, which was there before, takes it to be a fault that comes
        // again and only puts the default action back; one must do all the same.
        // SAFETY: the guest's thread spins as long as the process lives.
        unsafe { libc::pthread_kill(guest, libc::SIGSEGV) };
    });
    let _ = world.call(instance, "f", &[]);
}

static SEEN: AtomicI32 = AtomicI32::new(0);

extern "C" fn earlier_handler(signal: libc::c_int) {
    SEEN.store(signal, Ordering::SeqCst);
    // SAFETY: _exit is async-signal-safe.
    unsafe { libc::_exit(42) };
}

#[test]
fn handlers_from_before_get_what_is_not_the_guests() {
    if !is_child() {
        let status = run("handlers_from_before_get_what_is_not_the_guests");
        assert_eq!(status.code(), Some(42), "{status}");
        return;
    }
    // SAFETY: the handler only stores and exits.
    unsafe { libc::signal(libc::SIGSEGV, earlier_handler as *const () as usize) };
    let mut world = World::new();
    let instance = world
        .instance(r#"(module (memory 1) (func (export "f") (drop (i32.load (i32.const -1)))))"#);
    world.trap(instance, "f", &[]);
    assert_eq!(SEEN.load(Ordering::SeqCst), 0);
    read_null();
}

#[test]
fn an_overflow_of_the_hosts_own_stack_kills_the_process() {
    if !is_child() {
        let status = run("an_overflow_of_the_hosts_own_stack_kills_the_process");
        assert_eq!(status.signal(), Some(libc::SIGABRT), "std's own report: {status}");
        return;
    }
    fn deep(n: u64) -> u64 {
        let local = std::hint::black_box([n; 64]);
        if n == u64::MAX { 0 } else { deep(n + 1) + local[3] }
    }
    let mut world = World::new();
    world.linker.func_wrap("h", "deep", |_: Caller<'_>| deep(0));
    let instance = world.instance(
        r#"(module (import "h" "deep" (func $deep (result i64)))
            (func (export "f") (result i64) (call $deep)))"#,
    );
    let _ = world.call(instance, "f", &[]);
}

#[test]
fn a_limit_on_address_space_is_an_error_and_no_abort() {
    if !is_child() {
        let status = run("a_limit_on_address_space_is_an_error_and_no_abort");
        assert_eq!(status.code(), Some(0), "{status}");
        return;
    }
    let mut world = World::new();
    let module = world.module("(module (memory 1))");
    let limit = libc::rlimit { rlim_cur: 4 << 30, rlim_max: 4 << 30 };
    // SAFETY: only lowers this process's own limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    let error = world.linker.instantiate(&mut world.store, &module).unwrap_err();
    assert!(error.to_string().contains("check the limit on address space"), "{error}");
    // What needs no memory still runs.
    let instance = world.instance(r#"(module (func (export "f") (result i32) (i32.const 5)))"#);
    assert_eq!(world.call_i32(instance, "f", &[]), 5);
}
