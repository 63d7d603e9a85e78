//! What a signal's handler tells of a program that runs: in a loop, in a host call, in a runtime call.

#![allow(clippy::unwrap_used, reason = "in tests, helpers too fail by panic")]

use std::cell::UnsafeCell;
use std::io::Write;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use coracle_engine::command::{Command, MAX_REPORT, Outcome, Report, describe};
use coracle_engine::compile::compile;
use coracle_engine::config::{Addressing, Settings};
use coracle_engine::runtime::{Interrupted, Place, Sight};

/// The handler's answer, and how long it is; 0 as long as there is none. It does not lie on the handler's
/// stack: that of a thread which has not run a guest yet is small.
static ANSWER: Answer = Answer(UnsafeCell::new([0; MAX_REPORT]));
static LENGTH: AtomicUsize = AtomicUsize::new(0);

struct Answer(UnsafeCell<[u8; MAX_REPORT]>);

// SAFETY: `ask` lets one thread at a time write it, and reads it when that thread has set LENGTH.
unsafe impl Sync for Answer {}

extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: who asked waits, and nobody else asks; a handler's third argument, used before it returns.
    let (bytes, at) = unsafe { (&mut *ANSWER.0.get(), Interrupted::new(context)) };
    let length = describe(&at, bytes);
    LENGTH.store(length, Ordering::Release);
}

/// One test at a time uses the handler's one answer.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: an action of zeros is valid; the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGRTMAX(), &action, std::ptr::null_mut()), 0);
    }
    guard
}

/// Asks the thread what it does.
fn ask(thread: libc::pthread_t) -> Vec<u8> {
    LENGTH.store(0, Ordering::Relaxed);
    // SAFETY: a thread that has not been joined.
    assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGRTMAX()) }, 0);
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let length = LENGTH.load(Ordering::Acquire);
        if length != 0 {
            // SAFETY: the handler has finished with it.
            return unsafe { &*ANSWER.0.get() }[..length].to_vec();
        }
        assert!(Instant::now() < until, "no answer");
        std::thread::yield_now();
    }
}

/// A program on a thread of its own.
struct Running(JoinHandle<Outcome>);

impl Running {
    fn start(text: &str) -> Running {
        let module = wat::parse_str(text).unwrap();
        let settings = Settings { addressing: Addressing::Generic, ..Settings::default() };
        let image = compile(&module, &settings).unwrap();
        Running(std::thread::spawn(move || {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&image).unwrap();
            Command::default().load(&file).unwrap().run().unwrap()
        }))
    }

    fn report(&self) -> Report {
        let bytes = ask(self.0.as_pthread_t());
        Report::read(&bytes).unwrap()
    }

    /// Waits for a report that `is_it`.
    fn until(&self, is_it: impl Fn(&Report) -> bool) -> Report {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let report = self.report();
            if is_it(&report) {
                return report;
            }
            assert!(Instant::now() < until, "{report}");
        }
    }
}

fn names(report: &Report) -> Vec<&str> {
    report.sight.frames().iter().map(|frame| frame.name.as_deref().unwrap_or("?")).collect()
}

const IMPORTS: &str = r#"
    (import "wasi_snapshot_preview1" "poll_oneoff"
        (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
    (memory (export "memory") 3) (table 5 funcref)"#;

#[test]
fn every_instruction_of_a_loop_of_calls_gives_whole_backtraces() {
    let _alone = alone();
    // Calls through a table, which no body takes the place of; short functions, so that many of the
    // interruptions hit their first and last instructions.
    let program = Running::start(&format!(
        r#"(module {IMPORTS}
        (type $step (func (param i32) (result i32)))
        (elem (i32.const 1) $leaf $middle)
        (func $leaf (type $step) (i32.add (local.get 0) (i32.const 3)))
        (func $middle (type $step)
            (i32.add
                (call_indirect (type $step) (local.get 0) (i32.const 1))
                (call_indirect (type $step) (i32.const 5) (i32.const 1))))
        (func $main (export "_start")
            (loop $again
                (drop (call_indirect (type $step) (i32.const 1) (i32.const 2)))
                (br $again))))"#
    ));
    program.until(|report| report.sight.place == Place::Guest);
    let (mut leaves, mut seen) = (0, 0);
    let until = Instant::now() + Duration::from_secs(10);
    while seen < 3000 && (Instant::now() < until || leaves < 5) {
        let report = program.report();
        assert_eq!(report.sight.place, Place::Guest);
        seen += 1;
        match &names(&report)[..] {
            ["leaf", "middle", "main"] => leaves += 1,
            ["middle", "main"] | ["main"] => {}
            others => panic!("{others:?}"),
        }
        assert_eq!(report.sight.memory_bytes % 65536, 0);
        assert!(report.sight.memory_bytes >= 3 << 16 && report.sight.table_elements >= 5);
    }
    assert!(leaves >= 5, "{leaves} of {seen}");
    // The loop ends with the process.
}

#[test]
fn a_program_that_waits_in_a_host_call_answers_and_goes_on_waiting() {
    let _alone = alone();
    let program = Running::start(&format!(
        r#"(module {IMPORTS}
        (func $pause
            (drop (call $yield))
            (i64.store (i32.const 24) (i64.const 1500000000))
            (i32.store (i32.const 16) (i32.const 1))
            (if (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))
                (then unreachable)))
        (func $main (export "_start") (call $pause)))"#
    ));
    let began = Instant::now();
    let report =
        program.until(|report| report.sight.place == Place::Host && !names(report).is_empty());
    for _ in 0..50 {
        let names = program.report();
        assert!(matches!(names.sight.place, Place::Host | Place::Guest));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(names(&report), ["pause", "main"], "{report}");
    let text = program.until(|report| report.last_call.is_some()).to_string();
    assert!(text.starts_with("in a host call\n  0: 0x"), "{text}");
    assert!(text.ends_with("last host call that ended: sched_yield (success)"), "{text}");
    let outcome = program.0.join().unwrap();
    assert!(matches!(outcome, Outcome::Exited(0)), "{outcome:?}");
    assert!(began.elapsed() >= Duration::from_millis(1400), "woken early");
}

#[test]
fn a_program_in_a_runtime_call_is_found_from_its_stack() {
    let _alone = alone();
    let program = Running::start(&format!(
        r#"(module {IMPORTS}
        (memory $other 600)
        (func $fill
            (drop (call $yield))
            (memory.fill $other (i32.const 0) (i32.const 7) (i32.const 39321600)))
        (func $main (export "_start") (local i32)
            (loop $again
                (call $fill)
                (br_if $again (i32.lt_u
                    (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 2000))))))"#
    ));
    let at_work = |report: &Report| report.sight.place == Place::Host && names(report).len() == 2;
    for _ in 0..20 {
        let report = program.until(at_work);
        assert_eq!(names(&report), ["fill", "main"], "{report}");
    }
}

#[test]
fn a_thread_without_a_guest_says_so() {
    let _alone = alone();
    let sleeper = Running(std::thread::spawn(|| {
        std::thread::park_timeout(Duration::from_millis(200));
        Outcome::Exited(0)
    }));
    let report = sleeper.report();
    assert_eq!((report.sight.place, report.sight.frames().len()), (Place::Outside, 0));
    assert!(report.to_string().starts_with("runs no WebAssembly"));
}

#[test]
fn hostile_descriptions_are_refused_or_printed_plainly() {
    let head = |place: u8| [&[0; 8][..], &[place], &[0; 16]].concat();
    assert!(Report::read(&head(2)).is_some());
    assert_eq!(Report::read(&head(3)), None);
    assert_eq!(Report::read(&head(0)[..24]), None);
    let frame = |length: u16, name: &[u8]| {
        [&head(1), &[1, 7, 0, 0, 0, 9, 0, 0, 0][..], &length.to_le_bytes(), name].concat()
    };
    let evil = Report::read(&frame(7, b"a\x1b[2J\xff\n")).unwrap();
    let text = evil.to_string();
    assert!(text.contains("0x9  a\\u{1b}[2J\u{fffd}\\u{a}"), "{text}");
    assert_eq!(Report::read(&frame(8, b"too long")).unwrap().sight.frames().len(), 1);
    assert_eq!(Report::read(&frame(9, b"too long")), None);
    assert_eq!(Report::read(&frame(600, &[b'x'; 600])), None);
    let many = [head(1), frame(0, b"")[25..].repeat(65)].concat();
    assert_eq!(Report::read(&many), None);
    let many = [head(1), frame(0, b"")[25..].repeat(64), vec![2]].concat();
    assert!(Sight::read(&many[8..]).unwrap().to_string().ends_with("… more frames"));
    // Every prefix and every changed byte of a real one is read or refused.
    let whole = frame(4, b"name");
    for n in 0..whole.len() {
        let _ = Report::read(&whole[..n]);
        for byte in [0, 1, 2, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[n] = byte;
            let _ = Report::read(&changed).map(|report| report.to_string());
        }
    }
}
