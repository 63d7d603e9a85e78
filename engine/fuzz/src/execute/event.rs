//! What happens when a module runs, in terms that all engines share.

use std::fmt;

use coracle_engine::runtime::TrapKind;

/// A value. Floats are bit patterns; generated code makes all NaNs canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum Value {
    I32(u32),
    I64(u64),
    F32(u32),
    F64(u64),
    V128(u128),
    /// A reference to something of the host.
    Extern(u32),
    /// Another reference that is not null.
    Reference,
    Null,
}

/// Why a guest stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A trap.
    Trap(TrapKind),
    /// A function of the host failed.
    Host,
    /// An exception was not caught.
    Exception,
    /// Stack or another resource of the engine was used up: what follows cannot be compared.
    Exhausted(String),
    /// Something that should not be.
    Other(String),
}

/// Something that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The module was instantiated, or not.
    Instantiated(Result<(), Stop>),
    /// The host was called.
    Host(&'static str, Vec<Value>),
    /// An export was called.
    Called(String, Result<Vec<Value>, Stop>),
    /// The value of a global in the end.
    Global(String, Value),
    /// The pages of a memory in the end, and a hash of its contents.
    Memory(String, u64, u64),
    /// The size of a table in the end, and a hash of which elements are null.
    Table(String, u64, u64),
}

impl Event {
    /// Counts the event for the run's statistics.
    pub(super) fn count(&self) {
        let what = match self {
            Event::Called(_, Ok(_)) => "calls that return",
            Event::Called(_, Err(_)) => "calls that stop",
            Event::Instantiated(Err(_)) => "instantiations that stop",
            Event::Host(..) => "calls of the host",
            _ => return,
        };
        crate::stats::add(what, 1);
        if matches!(self, Event::Called(..)) {
            crate::stats::add("calls compared", 1);
        }
    }

    fn exhausted(&self) -> bool {
        let (Event::Instantiated(Err(stop)) | Event::Called(_, Err(stop))) = self else {
            return false;
        };
        matches!(stop, Stop::Exhausted(_))
    }
}

/// All that happened, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The events.
    pub events: Vec<Event>,
}

impl Trace {
    /// Notes an event. Returns whether to go on: what follows a used-up resource is random.
    pub(super) fn push(&mut self, event: Event) -> bool {
        let go_on = !event.exhausted();
        self.events.push(event);
        go_on
    }

    /// The first difference to another trace, if there is one. Traces are compared up to where one
    /// of them ran out of a resource; calls of the host within that call are left out as well.
    pub(super) fn difference(&self, other: &Trace) -> Option<Difference> {
        let end = |trace: &Trace| -> usize {
            let exhausted = trace.events.iter().position(Event::exhausted);
            exhausted.map_or(usize::MAX, |n| {
                let before = &trace.events[..n];
                before
                    .iter()
                    .rposition(|e| !matches!(e, Event::Host(..)))
                    .map_or(0, |last| last + 1)
            })
        };
        let end = end(self).min(end(other));
        if end != usize::MAX {
            crate::stats::add("exhausted", 1);
        }
        let (mut left, mut right) = (self.events.iter().take(end), other.events.iter().take(end));
        let mut before = Vec::new();
        loop {
            match (left.next(), right.next()) {
                (None, None) => return None,
                (left, right) if left == right => before.extend(left.cloned()),
                (left, right) => {
                    let (left, right) = (left.cloned(), right.cloned());
                    return Some(Difference { before, left, right });
                }
            }
        }
    }
}

/// Where two traces part.
#[derive(Debug)]
pub(super) struct Difference {
    before: Vec<Event>,
    left: Option<Event>,
    right: Option<Event>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.before.len().saturating_sub(4);
        writeln!(f, "after {} equal events, the last of which are", self.before.len())?;
        self.before[shown..].iter().try_for_each(|event| writeln!(f, "     {event:x?}"))?;
        writeln!(f, "  1: {:x?}\n  2: {:x?}", self.left, self.right)
    }
}

/// A hash of bytes: equal bytes, equal numbers, on every machine.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        hash = mix(hash, u64::from_le_bytes(bytes));
    }
    words.remainder().iter().fold(hash, |hash, &byte| mix(hash, u64::from(byte)))
}

pub(super) fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, result: Result<Vec<Value>, Stop>) -> Event {
        Event::Called(name.into(), result)
    }

    fn trace(events: &[Event]) -> Trace {
        Trace { events: events.to_vec() }
    }

    #[test]
    fn differences_are_found_and_shown() {
        let same = call("a", Ok(vec![]));
        let left = trace(&[same.clone(), call("b", Ok(vec![Value::I32(1)]))]);
        let right = trace(&[same.clone(), call("b", Ok(vec![Value::I32(2)]))]);
        assert!(left.difference(&left).is_none());
        let text = left.difference(&right).unwrap().to_string();
        assert!(text.contains("I32(1)") && text.contains("I32(2)"), "{text}");
        assert!(left.difference(&trace(&[same])).is_some(), "a missing event is a difference");
    }

    #[test]
    fn nothing_is_compared_after_a_used_up_stack() {
        let same = call("a", Ok(vec![]));
        let host = Event::Host("note", vec![]);
        let full = call("b", Err(Stop::Exhausted("stack".into())));
        let left = trace(&[same.clone(), host.clone(), host, full]);
        let right = trace(&[same, call("b", Ok(vec![]))]);
        assert!(left.difference(&right).is_none());
    }
}
