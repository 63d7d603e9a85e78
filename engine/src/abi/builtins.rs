//! Names and signatures of the runtime calls that compiled code makes, once.
//!
//! A runtime call is a System V function reached through the pointer table in the context
//! ([`layout::CTX_BUILTINS`](super::layout::CTX_BUILTINS)), so an image needs no relocation. The
//! first parameter of each is the context. `status` results are 0 for success; anything else means
//! that the store holds a pending error and the caller must trap with
//! [`TrapKind::Host`](super::trap::TrapKind::Host) at once.

/// Expands `$callback!` with the list of runtime calls: `name(params…) -> result;` in table order.
///
/// Types are `i32` and `i64`; both are passed zero-extended. Memory offsets and lengths are i64 so
/// that 32- and 64-bit memories share one call.
#[macro_export]
#[doc(hidden)]
macro_rules! for_each_builtin {
    ($callback:ident) => {
        $callback! {
            /// `memory.grow`: previous size in pages, or -1.
            memory_grow(memory: i32, delta: i64) -> i64;
            /// `memory.copy`: status.
            memory_copy(dst_memory: i32, dst: i64, src_memory: i32, src: i64, len: i64) -> i32;
            /// `memory.fill`: status.
            memory_fill(memory: i32, dst: i64, value: i32, len: i64) -> i32;
            /// `memory.init`: status.
            memory_init(memory: i32, data: i32, dst: i64, src: i32, len: i32) -> i32;
            /// `data.drop`: status, always 0.
            data_drop(data: i32) -> i32;
            /// `table.grow`; `init` is the raw element: previous size in elements, or -1.
            table_grow(table: i32, init: i64, delta: i64) -> i64;
            /// `table.fill`; `value` is the raw element: status.
            table_fill(table: i32, dst: i64, value: i64, len: i64) -> i32;
            /// `table.copy`: status.
            table_copy(dst_table: i32, dst: i64, src_table: i32, src: i64, len: i64) -> i32;
            /// `table.init`: status.
            table_init(table: i32, elem: i32, dst: i64, src: i32, len: i32) -> i32;
            /// `elem.drop`: status, always 0.
            elem_drop(elem: i32) -> i32;
            /// Whether the type with the first canonical number is the second or declares itself,
            /// directly or not, a subtype of it: 1 or 0.
            is_subtype(ty: i32, of: i32) -> i32;
            /// A new object of `bytes`, header included; `kind` is the header's first word: the
            /// reference, or 0 with a pending error.
            gc_allocate(kind: i32, type_id: i32, bytes: i64) -> i32;
            /// `array.new` of the module's type `ty`, with each element the bits `high:low`: the
            /// reference, or 0 with a pending error.
            gc_array_new(ty: i32, length: i32, low: i64, high: i64) -> i32;
            /// `array.new_data`: the reference, or 0 with a pending error.
            gc_array_new_data(ty: i32, data: i32, src: i32, length: i32) -> i32;
            /// `array.new_elem`: the reference, or 0 with a pending error.
            gc_array_new_elem(ty: i32, elem: i32, src: i32, length: i32) -> i32;
            /// `array.fill`: status.
            gc_array_fill(ty: i32, array: i32, dst: i32, low: i64, high: i64, len: i32) -> i32;
            /// `array.copy`; `ty` is the destination's type: status.
            gc_array_copy(ty: i32, to: i32, dst: i32, from: i32, src: i32, len: i32) -> i32;
            /// `array.init_data`: status.
            gc_array_init_data(ty: i32, array: i32, dst: i32, data: i32, src: i32, len: i32) -> i32;
            /// `array.init_elem`: status.
            gc_array_init_elem(ty: i32, array: i32, dst: i32, elem: i32, src: i32, len: i32) -> i32;

            /// `memory.atomic.notify` at `index + offset`: threads woken, or -1 with a pending error.
            memory_notify(memory: i32, index: i64, offset: i64, count: i32) -> i64;
            /// `memory.atomic.wait32` at `index + offset`: the operator's result, or -1 with a pending
            /// error.
            memory_wait32(memory: i32, index: i64, offset: i64, expected: i32, timeout: i64) -> i64;
            /// `memory.atomic.wait64`, likewise.
            memory_wait64(memory: i32, index: i64, offset: i64, expected: i64, timeout: i64) -> i64;

            /// Makes an exception with a tag of the instance; its values are not written yet: the
            /// reference, or 0 with a pending error.
            exception_new(tag: i32) -> i32;
            /// Throws an exception, which must not be null. Does not return.
            throw(exception: i32) -> i32;

            /// Moves bytes within or between memories that are not shared; `dst` and `src` are
            /// addresses, checked by the caller: always 0.
            memory_move(dst: i64, src: i64, len: i64) -> i32;
            /// Fills bytes of a memory that is not shared with the low byte of `value`; `dst` is an
            /// address, checked by the caller: always 0.
            memory_set(dst: i64, value: i32, len: i64) -> i32;
        }
    };
}

/// Width of a parameter or result of a runtime call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum BuiltinType {
    I32,
    I64,
}

macro_rules! type_of {
    (i32) => {
        BuiltinType::I32
    };
    (i64) => {
        BuiltinType::I64
    };
}

macro_rules! declare {
    ($($(#[$doc:meta])* $name:ident($($param:ident: $ty:ident),*) -> $result:ident;)*) => {
        /// A runtime call; the discriminant is its place in the pointer table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(non_camel_case_types, reason = "one list gives both the enum and the functions")]
        #[repr(u8)]
        pub enum Builtin { $($(#[$doc])* $name,)* }

        impl Builtin {
            /// All calls in table order.
            pub const ALL: &'static [Builtin] = &[$(Builtin::$name),*];

            /// Parameters after the context.
            #[must_use]
            pub fn params(self) -> &'static [BuiltinType] {
                match self { $(Builtin::$name => &[$(type_of!($ty)),*],)* }
            }

            /// The result.
            #[must_use]
            pub fn result(self) -> BuiltinType {
                match self { $(Builtin::$name => type_of!($result),)* }
            }

            /// Byte offset in the pointer table.
            #[must_use]
            pub fn offset(self) -> u32 { self as u32 * 8 }
        }
    };
}

for_each_builtin!(declare);
