//! `poll_oneoff`.

use super::*;
use crate::wasi::preview1::poll::poll_oneoff;
use std::io::Write;
use std::time::{Duration, Instant};

const SUBSCRIPTIONS: u32 = 8192;
const EVENTS: u32 = 16_384;
const MS: u64 = 1_000_000;

#[derive(Clone, Copy)]
enum Sub {
    Clock { id: u32, timeout: u64, flags: u16 },
    Read(u32),
    Write(u32),
    Unknown,
}

#[derive(Debug, PartialEq, Eq)]
struct Event {
    userdata: u64,
    error: u16,
    kind: u8,
    bytes: u64,
    flags: u16,
}

fn poll(guest: &mut Guest, subs: &[Sub]) -> Result<Vec<Event>, Errno> {
    for (n, sub) in subs.iter().enumerate() {
        let mut bytes = [0; 48];
        bytes[..8].copy_from_slice(&(100 + n as u64).to_le_bytes());
        match *sub {
            Sub::Clock { id, timeout, flags } => {
                bytes[16..20].copy_from_slice(&id.to_le_bytes());
                bytes[24..32].copy_from_slice(&timeout.to_le_bytes());
                bytes[40..42].copy_from_slice(&flags.to_le_bytes());
            }
            Sub::Read(fd) | Sub::Write(fd) => {
                bytes[8] = if matches!(sub, Sub::Read(_)) { 1 } else { 2 };
                bytes[16..20].copy_from_slice(&fd.to_le_bytes());
            }
            Sub::Unknown => bytes[8] = 3,
        }
        guest.memory[SUBSCRIPTIONS as usize + 48 * n..][..48].copy_from_slice(&bytes);
    }
    let out = guest.room(4);
    let count = subs.len() as u32;
    guest.call(|c, m| poll_oneoff(c, m, SUBSCRIPTIONS, EVENTS, count, out))?;
    let event = |n: u32| {
        let at = EVENTS as usize + 32 * n as usize;
        let half = |at: usize| u16::from_le_bytes(guest.memory[at..at + 2].try_into().unwrap());
        Event {
            userdata: guest.u64_at(at as u32),
            error: half(at + 8),
            kind: guest.memory[at + 10],
            bytes: guest.u64_at(at as u32 + 16),
            flags: half(at + 24),
        }
    };
    Ok((0..guest.u32_at(out)).map(event).collect())
}

fn now(guest: &mut Guest, id: u32) -> u64 {
    let out = guest.room(8);
    guest.call(|c, m| crate::wasi::preview1::clock::clock_time_get(c, m, id, 0, out)).unwrap();
    guest.u64_at(out)
}

const fn time(userdata: u64) -> Event {
    Event { userdata, error: 0, kind: 0, bytes: 0, flags: 0 }
}

#[test]
fn clocks_wake_at_spans_and_points_of_time() {
    let mut guest = Guest::new();
    for id in [0, 1] {
        for absolute in [false, true] {
            let begin = Instant::now();
            let timeout = 30 * MS + if absolute { now(&mut guest, id) } else { 0 };
            let flags = u16::from(absolute);
            let far = Sub::Clock { id, timeout: timeout + 60_000 * MS, flags };
            let events = poll(&mut guest, &[far, Sub::Clock { id, timeout, flags }]).unwrap();
            assert_eq!(events, [time(101)], "clock {id}, absolute {absolute}");
            assert!(begin.elapsed() >= Duration::from_millis(29), "{:?}", begin.elapsed());
            assert!(begin.elapsed() < Duration::from_secs(20));
        }
    }
    let past = Sub::Clock { id: 1, timeout: 1, flags: 1 };
    let zero = Sub::Clock { id: 1, timeout: 0, flags: 0 };
    let endless = Sub::Clock { id: 0, timeout: u64::MAX, flags: 0 };
    assert_eq!(poll(&mut guest, &[past, endless, zero]).unwrap(), [time(100), time(102)]);
}

#[test]
fn calls_that_mean_nothing_are_refused() {
    let mut guest = Guest::new();
    let clock = |id, flags| Sub::Clock { id, timeout: 0, flags };
    assert_eq!(poll(&mut guest, &[]), Err(Errno::Inval));
    assert_eq!(poll(&mut guest, &[Sub::Unknown]), Err(Errno::Inval));
    assert_eq!(poll(&mut guest, &[clock(4, 0)]), Err(Errno::Inval));
    assert_eq!(poll(&mut guest, &[clock(1, 2)]), Err(Errno::Inval));
    // Nothing can wait for CPU time, and the event says so.
    let events = poll(&mut guest, &[clock(2, 0)]).unwrap();
    assert_eq!((events.len(), events[0].error), (1, Errno::Notsup as u16));
    let call = |guest: &mut Guest, subs, events, count| {
        guest.call(|c, m| poll_oneoff(c, m, subs, events, count, 0))
    };
    assert_eq!(call(&mut guest, 0, 8192, 4097), Err(Errno::Inval));
    assert_eq!(call(&mut guest, 0, 8192, 4096), Err(Errno::Fault));
    assert_eq!(call(&mut guest, 4, 8192, 1), Err(Errno::Inval));
    assert_eq!(call(&mut guest, 8, 65_528, 1), Err(Errno::Fault));
}

#[test]
fn pipes_wake_when_data_comes_and_when_the_other_side_goes() {
    let (reader, mut far_writer) = std::io::pipe().unwrap();
    let (far_reader, writer) = std::io::pipe().unwrap();
    let mut guest = Guest::with(|grants| {
        grants.stdin(reader.into()).stdout(writer.into());
    });
    let soon = Sub::Clock { id: 1, timeout: 10 * MS, flags: 0 };
    let late = Sub::Clock { id: 1, timeout: 20_000 * MS, flags: 0 };
    assert_eq!(poll(&mut guest, &[Sub::Read(0), soon]).unwrap(), [time(101)]);
    let room = Event { userdata: 101, error: 0, kind: 2, bytes: 1, flags: 0 };
    assert_eq!(poll(&mut guest, &[Sub::Read(0), Sub::Write(1), late]).unwrap(), [room]);

    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        far_writer.write_all(b"hello").unwrap();
        far_writer
    });
    let data = Event { userdata: 100, error: 0, kind: 1, bytes: 5, flags: 0 };
    assert_eq!(poll(&mut guest, &[Sub::Read(0), late]).unwrap(), [data]);
    drop(sender.join().unwrap());
    guest.read(0, 5).unwrap();
    let end = Event { userdata: 100, error: 0, kind: 1, bytes: 0, flags: 1 };
    assert_eq!(poll(&mut guest, &[Sub::Read(0), late]).unwrap(), [end]);
    drop(far_reader);
    let gone = Event { userdata: 100, error: 0, kind: 2, bytes: 1, flags: 1 };
    assert_eq!(poll(&mut guest, &[Sub::Write(1), late]).unwrap(), [gone]);
}

#[test]
fn files_are_always_ready_and_errors_are_events() {
    let mut guest = Guest::new();
    let fd = guest.open("f", CREATE).unwrap();
    guest.write(fd, b"0123456789").unwrap();
    guest.seek(fd, 4, 0).unwrap();
    let late = Sub::Clock { id: 0, timeout: 20_000 * MS, flags: 0 };
    let events = poll(&mut guest, &[late, Sub::Read(fd), Sub::Write(fd), Sub::Read(fd)]).unwrap();
    let seen: Vec<_> = events.iter().map(|e| (e.userdata, e.kind, e.bytes)).collect();
    assert_eq!(seen, [(101, 1, 6), (102, 2, 1), (103, 1, 6)]);

    guest.drop_rights(fd, Rights::POLL_FD_READWRITE);
    let events = poll(&mut guest, &[late, Sub::Read(99), Sub::Write(fd), Sub::Read(ROOT)]).unwrap();
    let seen: Vec<_> = events.iter().map(|e| (e.userdata, e.error)).collect();
    let refused = Errno::Notcapable as u16;
    assert_eq!(seen, [(101, Errno::Badf as u16), (102, refused), (103, refused)]);
}

#[test]
fn thousands_of_subscriptions_work() {
    let mut guest = Guest::new();
    guest.memory = vec![0; 1 << 20];
    let out = 64;
    let (subs, events) = (8192, 8192 + 48 * 4096);
    guest.call(|c, m| poll_oneoff(c, m, subs, events, 4096, out)).unwrap();
    assert_eq!(guest.u32_at(out), 4096, "all are realtime spans of 0");
}
