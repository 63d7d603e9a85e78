//! Arguments, environment, clocks, randomness, the end.

use super::*;
use crate::wasi::ctx::GrantError;
use crate::wasi::preview1::{args, clock, environ, proc, random};

fn string(guest: &Guest, at: u32) -> String {
    let bytes = &guest.memory[at as usize..];
    let end = bytes.iter().position(|&b| b == 0).unwrap();
    String::from_utf8(bytes[..end].to_vec()).unwrap()
}

#[test]
fn arguments_and_variables_arrive_with_their_order() {
    let mut guest = Guest::with(|grants| {
        grants.arg("prog").arg("").arg("zwei drei").env("A", "1").env("EMPTY", "").env("B", "x=y");
    });
    let (count, size) = (guest.room(4), guest.room(4));
    guest.call(|c, m| args::args_sizes_get(c, m, count, size)).unwrap();
    assert_eq!((guest.u32_at(count), guest.u32_at(size)), (3, 16));
    let (pointers, buffer) = (guest.room(12), guest.room(16));
    guest.call(|c, m| args::args_get(c, m, pointers, buffer)).unwrap();
    let read = |guest: &Guest, n: u32| string(guest, guest.u32_at(pointers + 4 * n));
    assert_eq!([0, 1, 2].map(|n| read(&guest, n)), ["prog", "", "zwei drei"]);

    guest.call(|c, m| environ::environ_sizes_get(c, m, count, size)).unwrap();
    assert_eq!((guest.u32_at(count), guest.u32_at(size)), (3, 4 + 7 + 6));
    let buffer = guest.room(32);
    guest.call(|c, m| environ::environ_get(c, m, pointers, buffer)).unwrap();
    let read = |guest: &Guest, n: u32| string(guest, guest.u32_at(pointers + 4 * n));
    assert_eq!([0, 1, 2].map(|n| read(&guest, n)), ["A=1", "EMPTY=", "B=x=y"]);
}

#[test]
fn addresses_outside_are_refused() {
    let mut guest = Guest::with(|grants| {
        grants.arg("prog").env("A", "1");
    });
    let end = guest.memory.len() as u32;
    assert_eq!(guest.call(|c, m| args::args_get(c, m, end, 0)), Err(Errno::Fault));
    assert_eq!(guest.call(|c, m| args::args_get(c, m, 0, end - 4)), Err(Errno::Fault));
    assert_eq!(guest.call(|c, m| args::args_get(c, m, 1, 8)), Err(Errno::Inval));
    assert_eq!(guest.call(|c, m| args::args_sizes_get(c, m, 0, end)), Err(Errno::Fault));
    assert_eq!(guest.call(|c, m| environ::environ_get(c, m, end, 0)), Err(Errno::Fault));
    assert_eq!(guest.call(|c, m| environ::environ_sizes_get(c, m, end, 0)), Err(Errno::Fault));
    assert_eq!(guest.call(|c, m| random::random_get(c, m, end - 1, 2)), Err(Errno::Fault));
    assert_eq!(guest.call(|c, m| clock::clock_time_get(c, m, 0, 0, end - 4)), Err(Errno::Inval));
}

#[test]
fn grants_that_guests_could_not_read_are_refused() {
    let mut builder = WasiCtxBuilder::new();
    builder.arg("a\0b");
    assert!(matches!(builder.build(), Err(GrantError::Nul { what: "argument", index: 0 })));
    let mut builder = WasiCtxBuilder::new();
    builder.env("A", "1").env("B", "\0");
    let error = builder.build().unwrap_err();
    assert_eq!(error.to_string(), "environment variable 1 contains a NUL byte");
    let mut builder = WasiCtxBuilder::new();
    builder.preopen(fs::File::open("/dev/null").unwrap().into(), "/x", false);
    let error = builder.build().unwrap_err();
    assert_eq!(error.to_string(), "cannot grant the directory /x: not a directory");
}

#[test]
fn clocks_tell_time_and_resolution() {
    let mut guest = Guest::new();
    let out = guest.room(8);
    for id in 0..4 {
        guest.call(|c, m| clock::clock_res_get(c, m, id, out)).unwrap();
        assert!(guest.u64_at(out) > 0);
        guest.call(|c, m| clock::clock_time_get(c, m, id, 1, out)).unwrap();
        let first = guest.u64_at(out);
        guest.call(|c, m| clock::clock_time_get(c, m, id, u64::MAX, out)).unwrap();
        assert!(first > 0 && guest.u64_at(out) >= first, "clock {id}");
    }
    let res = guest.call(|c, m| clock::clock_res_get(c, m, 4, out));
    let time = guest.call(|c, m| clock::clock_time_get(c, m, 4, 0, out));
    assert_eq!((res, time), (Err(Errno::Inval), Err(Errno::Inval)));
}

#[test]
fn random_bytes_fill_exactly_the_buffer() {
    let mut guest = Guest::new();
    guest.call(|c, m| random::random_get(c, m, 1000, 200)).unwrap();
    assert!(guest.memory[1000..1200].iter().filter(|&&b| b == 0).count() < 20);
    assert_eq!((guest.memory[999], guest.memory[1200]), (0, 0));
    let whole = guest.memory.len() as u32;
    guest.call(|c, m| random::random_get(c, m, 0, whole)).unwrap();
    guest.call(|c, m| random::random_get(c, m, whole, 0)).unwrap();
}

#[test]
fn ends_carry_their_number() {
    assert_eq!(proc::proc_exit(42), proc::ProcExit(42));
    let mut guest = Guest::new();
    guest.call(proc::sched_yield).unwrap();
    // KILL, ABRT, TERM; XCPU, SYS counted as Linux does.
    for (signal, code) in [(9, 137), (6, 134), (15, 143), (23, 152), (30, 159)] {
        assert_eq!(proc::proc_raise(signal), Err(proc::ProcExit(code)));
    }
    assert_eq!(proc::proc_raise(0), Ok(Ok(())));
    assert_eq!(proc::proc_raise(16), Ok(Ok(())));
    assert_eq!(proc::proc_raise(18), Ok(Err(Errno::Notsup)));
    assert_eq!(proc::proc_raise(31), Ok(Err(Errno::Inval)));
}
