//! `poll_oneoff`.

use std::os::fd::AsFd;

use smallvec::SmallVec;

use super::errno::Errno;
use super::rights::needs;
use super::types;
use crate::wasi::core::clock::Clock;
use crate::wasi::core::poll::{Interest, Waiter};
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
#[derive(Clone, Copy, Debug)]
enum Source {
    Time {
        clock: Clock,
        at: u64,
    },
    /// With its index in the waiter.
    Descriptor {
        fd: u32,
        interest: Interest,
        index: usize,
    },
    /// Cannot be waited for: happens at once, with this error.
    Error(Errno),
}

#[derive(Clone, Copy, Debug)]
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
    ctx: &mut WasiCtx,
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
    let mut waiter = Waiter::default();
    let mut list: SmallVec<[Subscription; 8]> = SmallVec::new();
    for n in 0..count {
        let subscription = read_subscription(memory, subscriptions + n * SUBSCRIPTION)?;
        list.push(subscribe(ctx, &mut waiter, subscription)?);
    }
    let mut written = 0;
    while written == 0 {
        waiter.wait()?;
        for event in list.iter().filter_map(|subscription| event(ctx, &waiter, subscription)) {
            write_event(memory, events + written * EVENT, &event)?;
            written += 1;
        }
    }
    Ok(memory.write_u32(happened, written)?)
}

fn read_subscription(memory: &GuestMemory<'_>, at: u32) -> Result<Subscription, Errno> {
    let userdata = u64::from_le_bytes(memory.read(at)?);
    let [kind] = memory.read(at + 8)?;
    let source = match kind {
        CLOCK => read_time(memory, at + 16)?,
        FD_READ | FD_WRITE => {
            let interest = if kind == FD_READ { Interest::Read } else { Interest::Write };
            Source::Descriptor { fd: memory.read_u32(at + 16)?, interest, index: 0 }
        }
        _ => return Err(Errno::Inval),
    };
    Ok(Subscription { userdata, kind, source })
}

fn read_time(memory: &GuestMemory<'_>, at: u32) -> Result<Source, Errno> {
    let clock = types::clock(memory.read_u32(at)?)?;
    let timeout = u64::from_le_bytes(memory.read(at + 8)?);
    match u16::from_le_bytes(memory.read(at + 24)?) {
        // A span of time passes alike on both clocks, and setting the wall clock cannot bend it.
        0 if clock == Clock::Realtime => {
            let at = Clock::Monotonic.now().saturating_add(timeout);
            Ok(Source::Time { clock: Clock::Monotonic, at })
        }
        0 => Ok(Source::Time { clock, at: clock.now().saturating_add(timeout) }),
        1 => Ok(Source::Time { clock, at: timeout }),
        _ => Err(Errno::Inval),
    }
}

/// Adds a subscription to the waiter. What cannot be waited for ends the wait at once.
fn subscribe<'c>(
    ctx: &'c WasiCtx,
    waiter: &mut Waiter<'c>,
    subscription: Subscription,
) -> Result<Subscription, Errno> {
    let source = match subscription.source {
        Source::Time { clock, at } => match waiter.until(clock, at) {
            Ok(()) => Ok(subscription.source),
            Err(error) => Err(Errno::from(error)),
        },
        Source::Descriptor { fd, interest, .. } => ctx.descriptor(fd).and_then(|descriptor| {
            descriptor.require(match interest {
                Interest::Read => needs::poll_read,
                Interest::Write => needs::poll_write,
            })?;
            let index = waiter.add(descriptor.object.as_fd(), interest);
            Ok(Source::Descriptor { fd, interest, index })
        }),
        Source::Error(error) => Err(error),
    };
    if source.is_err() {
        waiter.until(Clock::Monotonic, 0)?;
    }
    Ok(Subscription { source: source.unwrap_or_else(Source::Error), ..subscription })
}

/// The event of a subscription, if it has happened.
fn event(ctx: &WasiCtx, waiter: &Waiter<'_>, subscription: &Subscription) -> Option<Event> {
    let Subscription { userdata, kind, source } = *subscription;
    let plain = Event { userdata, error: 0, kind, bytes: 0, hangup: false };
    match source {
        Source::Time { clock, at } => (clock.now() >= at).then_some(plain),
        Source::Error(error) => Some(Event { error: error as u16, ..plain }),
        Source::Descriptor { fd, interest, index } => {
            let readiness = waiter.readiness(index);
            let bytes = match interest {
                Interest::Read => {
                    ctx.descriptor(fd).map_or(0, |descriptor| descriptor.object.available())
                }
                // The kernel tells that there is room, not how much.
                Interest::Write => 1,
            };
            readiness.ready.then_some(Event { bytes, hangup: readiness.hangup, ..plain })
        }
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
