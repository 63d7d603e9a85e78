//! Trap codes and their messages, once.

use std::fmt;

macro_rules! traps {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $message:literal;)*) => {
        /// Why compiled code stopped. The number is what the image's trap table holds.
        ///
        /// Messages follow the wording of the core specification's test suite.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum TrapKind { $($(#[$doc])* $name = $code,)* }

        impl TrapKind {
            /// Every kind, in numeric order.
            pub const ALL: &'static [TrapKind] = &[$(TrapKind::$name),*];

            /// The kind with this number, if there is one.
            #[must_use]
            pub fn from_code(code: u8) -> Option<TrapKind> {
                match code { $($code => Some(TrapKind::$name),)* _ => None }
            }

            /// The number that stands in the trap table.
            #[must_use]
            pub fn code(self) -> u8 { self as u8 }

            /// The readable message.
            #[must_use]
            pub fn message(self) -> &'static str {
                match self { $(TrapKind::$name => $message,)* }
            }
        }
    };
}

traps! {
    /// The guest's stack is used up.
    StackOverflow = 1, "call stack exhausted";
    /// A load, store or bulk operation outside of a linear memory.
    MemoryOutOfBounds = 2, "out of bounds memory access";
    /// An atomic access at an address that is not a multiple of its width.
    UnalignedAtomic = 3, "unaligned atomic";
    /// An access outside of a table.
    TableOutOfBounds = 4, "out of bounds table access";
    /// An indirect call through a null table element.
    UninitializedElement = 5, "uninitialized element";
    /// An indirect call to a function of another type.
    IndirectCallTypeMismatch = 6, "indirect call type mismatch";
    /// A division whose result does not fit, or a conversion out of range.
    IntegerOverflow = 7, "integer overflow";
    /// A division or remainder by zero.
    IntegerDivideByZero = 8, "integer divide by zero";
    /// A conversion of a NaN to an integer.
    InvalidConversionToInteger = 9, "invalid conversion to integer";
    /// The `unreachable` instruction.
    Unreachable = 10, "unreachable";
    /// A null reference where one was required.
    NullReference = 11, "null reference";
    /// A runtime call or host function failed; the store holds the reason.
    Host = 12, "host error";
    /// A wait in a memory that no other thread can reach.
    ExpectedSharedMemory = 15, "expected shared memory";
    /// No room is left for an object of the garbage-collected heap.
    OutOfMemory = 20, "allocation size too large";
    /// An access outside of an array.
    ArrayOutOfBounds = 21, "out of bounds array access";
    /// A cast of a reference to a type that it does not have.
    CastFailure = 22, "cast failure";
    /// An access to a field of null.
    NullStruct = 23, "null structure reference";
    /// An access to an element or the length of null.
    NullArray = 24, "null array reference";
    /// The number in a null reference.
    NullI31 = 25, "null i31 reference";
}

impl fmt::Display for TrapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_zero_is_none() {
        assert_eq!(TrapKind::from_code(0), None);
        for &kind in TrapKind::ALL {
            assert_eq!(TrapKind::from_code(kind.code()), Some(kind));
        }
    }
}
