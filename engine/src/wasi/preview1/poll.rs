//! `poll_oneoff`.

use std::os::fd::AsFd;
use std::sync::Arc;

use smallvec::SmallVec;

use super::descriptor::Descriptor;
use super::errno::Errno;
use super::rights::needs;
use super::types;
use crate::wasi::core::clock::Clock;
use crate::wasi::core::object::Object;
use crate::wasi::core::poll::{Interest, Readiness, Waiter};
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;

/// Most subscriptions of one call.
const MAX_SUBSCRIPTIONS: u32 = 4096;
/// Bytes of a `subscription`.
const SUBSCRIPTION: u32 = 48;
/// Bytes of an `event`.
const EVENT: u32 = 32;

/// Numbers of `eventtype`.
const CLOCK: u8 = 0;
const FD_READ: u8 = 1;
const FD_WRITE: u8 = 2;

/// What is waited for.
#[derive(Debug)]
enum Source {
    Time {
        clock: Clock,
        at: u64,
    },
    Descriptor {
        descriptor: Arc<Descriptor>,
        interest: Interest,
    },
    /// Cannot be waited for: happens at once, with this error.
    Error(Errno),
}

#[derive(Debug)]
struct Subscription {
    userdata: u64,
    kind: u8,
    source: Source,
}

/// An `event`.
struct Event {
    userdata: u64,
    error: u16,
    kind: u8,
    bytes: u64,
    hangup: bool,
}

/// `poll_oneoff`: waits until at least one of the subscriptions happens and tells all that have.
/// What is wrong with one subscription is that one's event.
///
/// # Errors
/// `inval` for no subscription, more than 4096, an unknown type or clock; an address that cannot be
/// used.
pub fn poll_oneoff(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    happened: u32,
) -> Result<(), Errno> {
    if count == 0 || count > MAX_SUBSCRIPTIONS {
        return Err(Errno::Inval);
    }
    memory.check_array(subscriptions, count, SUBSCRIPTION, 8)?;
    memory.check_array(events, count, EVENT, 8)?;
    memory.check::<4>(happened)?;
    let list: SmallVec<[Subscription; 8]> = (0..count)
        .map(|n| read_subscription(ctx, memory, subscriptions + n * SUBSCRIPTION))
        .collect::<Result<_, _>>()?;
    let mut waiter = Waiter::default();
    let indices: SmallVec<[Option<usize>; 8]> =
        list.iter().map(|one| wait_for(&mut waiter, &one.source)).collect::<Result<_, _>>()?;
    let mut written = 0;
    while written == 0 {
        waiter.wait()?;
        let happened = list.iter().zip(&indices).filter_map(|(one, &index)| {
            event(one, index.map(|index| waiter.readiness(index)).unwrap_or_default())
        });
        for event in happened {
            write_event(memory, events + written * EVENT, &event)?;
            written += 1;
        }
    }
    Ok(memory.write_u32(happened, written)?)
}

fn read_subscription(
    ctx: &WasiCtx,
    memory: &GuestMemory<'_>,
    at: u32,
) -> Result<Subscription, Errno> {
    let userdata = u64::from_le_bytes(memory.read(at)?);
    let [kind] = memory.read(at + 8)?;
    let source = match kind {
        CLOCK => read_time(memory, at + 16)?,
        FD_READ => descriptor(ctx, memory.read_u32(at + 16)?, Interest::Read),
        FD_WRITE => descriptor(ctx, memory.read_u32(at + 16)?, Interest::Write),
        _ => return Err(Errno::Inval),
    };
    Ok(Subscription { userdata, kind, source })
}

fn descriptor(ctx: &WasiCtx, fd: u32, interest: Interest) -> Source {
    let right = match interest {
        Interest::Read => needs::poll_read,
        Interest::Write => needs::poll_write,
    };
    let found = ctx.descriptor(fd).and_then(|found| found.require(right).map(|()| found));
    found.map_or_else(Source::Error, |descriptor| Source::Descriptor { descriptor, interest })
}

fn read_time(memory: &GuestMemory<'_>, at: u32) -> Result<Source, Errno> {
    let clock = types::clock(memory.read_u32(at)?)?;
    let timeout = u64::from_le_bytes(memory.read(at + 8)?);
    let flags = u16::from_le_bytes(memory.read(at + 24)?);
    Ok(match (flags, clock) {
        (2.., _) => return Err(Errno::Inval),
        (_, Clock::ProcessCpu | Clock::ThreadCpu) => Source::Error(Errno::Notsup),
        // A span of time passes alike on both clocks, and setting the wall clock cannot bend it.
        (0, _) => {
            let at = Clock::Monotonic.now().saturating_add(timeout);
            Source::Time { clock: Clock::Monotonic, at }
        }
        (1, clock) => Source::Time { clock, at: timeout },
    })
}

/// Adds what is waited for to the waiter. What cannot be waited for ends the wait at once.
fn wait_for<'l>(waiter: &mut Waiter<'l>, source: &'l Source) -> Result<Option<usize>, Errno> {
    match source {
        Source::Time { clock, at } => waiter.until(*clock, *at)?,
        Source::Error(_) => waiter.until(Clock::Monotonic, 0)?,
        Source::Descriptor { descriptor, interest } => {
            return Ok(Some(match &descriptor.object {
                Object::Socket(socket) if *interest == Interest::Read => {
                    waiter.add(socket.sources(), *interest)
                }
                object => waiter.add([object.as_fd()], *interest),
            }));
        }
    }
    Ok(None)
}

/// The event of a subscription, if it has happened.
fn event(subscription: &Subscription, readiness: Readiness) -> Option<Event> {
    let Subscription { userdata, kind, source } = subscription;
    let plain = Event { userdata: *userdata, error: 0, kind: *kind, bytes: 0, hangup: false };
    match source {
        Source::Time { clock, at } => (clock.now() >= *at).then_some(plain),
        Source::Error(error) => Some(Event { error: *error as u16, ..plain }),
        Source::Descriptor { descriptor, interest } if readiness.ready => {
            let bytes = match interest {
                Interest::Read => descriptor.object.available(),
                // The kernel tells that there is room, not how much.
                Interest::Write => 1,
            };
            Some(Event { bytes, hangup: readiness.hangup, ..plain })
        }
        Source::Descriptor { .. } => None,
    }
}

fn write_event(memory: &mut GuestMemory<'_>, at: u32, event: &Event) -> Result<(), Errno> {
    let mut bytes = [0; EVENT as usize];
    bytes[..8].copy_from_slice(&event.userdata.to_le_bytes());
    bytes[8..10].copy_from_slice(&event.error.to_le_bytes());
    bytes[10] = event.kind;
    bytes[16..24].copy_from_slice(&event.bytes.to_le_bytes());
    bytes[24] = u8::from(event.hangup);
    Ok(memory.write_struct(at, 8, &bytes)?)
}
