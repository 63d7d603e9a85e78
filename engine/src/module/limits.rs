//! What is refused although the specification allows it, each with its reason, in one place.
//!
//! The validator has limits of its own, agreed among engines (a million functions, 50,000 locals,
//! bodies of 7,654,321 bytes, 1,000 parameters); the ones here are tighter or additional. They
//! bound memory and time of a compilation by what its input costs to send.

/// Bytes of a binary module. The largest known programs (language runtimes with their libraries)
/// are below 120 MiB; the module, its code and the tables stay below the worker's memory limit.
pub const MODULE_BYTES: u64 = 256 << 20;

/// Bytes of a text module. Text takes some fifty times its size to parse, and is written by hand
/// or for tests.
pub const TEXT_BYTES: u64 = 16 << 20;

/// Entries of the type section, in all recursion groups. Each distinct signature costs two
/// trampolines.
pub const TYPES: u32 = 100_000;

/// Parameters, results and fields of all types together. They are kept decoded, some ten times as
/// large as in the module; programs have some thousand, compilers of object-oriented languages
/// some hundred thousand.
pub const TYPE_PARTS: usize = 4_000_000;

/// Parameters and results of all distinct signatures. Where a signature has more than 32, each counts
/// as often as 32 fit. Both trampolines of a signature move all of them at once, for which 2,000 take
/// the code generator 46 ms; programs have some hundred signatures of less than ten.
pub const SIGNATURE_VALUES: usize = 1_000_000;

/// Declared supertypes above each other. The specification's own limit for implementations, which
/// the validator holds modules to; an image is held to it when it is loaded.
pub const SUPERTYPES: usize = 63;

/// Functions, imported and defined. Four times the largest known program; keeps the context's
/// array of function reference records below 8 MiB.
pub const FUNCTIONS: u32 = 400_000;

/// Globals. They lie in the context, 16 bytes each; position-independent libraries have some
/// thousand of them.
pub const GLOBALS: u32 = 100_000;

/// Tables. Each costs address space of its own.
pub const TABLES: u32 = 1_000;

/// Tags. Programs have one or two for each language they are written in; each costs a record in
/// the store.
pub const TAGS: u32 = 100_000;

/// Linear memories. Each reserves 8 GiB of address space, with 64-bit indices up to 64 GiB, of which
/// a process has 128 TiB.
pub const MEMORIES: u32 = 100;

/// Elements in all element segments together. They are kept decoded in the image's metadata.
pub const ELEMENTS: usize = 10_000_000;

/// Operators of a constant expression. Programs use one to three; each is kept decoded.
pub const CONST_OPERATORS: usize = 1_000;

/// Operators of all constant expressions that are not the index of a function.
pub const CONST_OPERATORS_TOTAL: usize = 4_000_000;

/// Locals and parameters of all functions together. A function of ten bytes can have 50,000, which
/// cost the translator 3 ms; the largest known programs have some million.
pub const LOCALS: u64 = 20_000_000;

/// Values that the calls and branches of all functions pass, to begin with, and how many more for
/// each byte of code. Where more than 32 are passed at once, each counts as often as 32 fit. A call
/// of two bytes can pass two thousand, which cost the code generator 20 ms; programs pass one or
/// two for each five bytes.
pub const PASSED_VALUES: u64 = 1_000_000;
/// See [`PASSED_VALUES`].
pub const PASSED_VALUES_PER_BYTE: u64 = 4;

/// Values of a function in the code generator, to begin with, and how many more for each byte of
/// its body. Locals that are alive across many loops are a value in each of them, so that a body of
/// 200 KB can have ten million; programs have less than one for each byte.
pub const VALUES: usize = 1_000_000;
/// See [`VALUES`].
pub const VALUES_PER_BYTE: usize = 8;

/// Targets of the branch tables of a function. Each costs the code generator 600 bytes of memory,
/// and the module one; the largest tables of programs have some thousand.
pub const BRANCH_TARGETS: u32 = 500_000;

/// Handlers that the calls of one function have, all together: a call inside a `try_table` has one
/// for each clause around it. The code generator's time grows with the square of it, and its memory
/// with the square of the clauses, which reach 600 MiB here. It also grows with the square of the
/// locals that each handler is given, which nothing but [`VALUES`] bounds. Programs have one to
/// three at a call.
pub const HANDLERS: usize = 30_000;

/// Values, most of them locals, that the calls of one function pass to handlers, all together. The
/// code generator's time grows with the square of it in the worst case; a clean-up of a program
/// takes one to five.
pub const HANDLED_VALUES: usize = 200_000;

/// Blocks, loops and conditions inside each other. The code generator's time grows with the square
/// of it; the largest switches of programs nest some thousand.
pub const NESTING: usize = 20_000;

/// Bytes kept of a function's name. Mangled names of generic code reach some thousand bytes; a
/// backtrace shows less.
pub const NAME_BYTES: usize = 1024;

/// Bytes of all names kept. Names that come later are dropped; they only serve backtraces.
pub const NAMES_BYTES: usize = 32 << 20;

/// Bytes of initial memory contents that may be laid out in addition to the data's own size, when
/// scattered segments each fill a page of their own. Beyond it, segments are copied at start.
pub const MEMORY_IMAGE_SLACK: usize = 4 << 20;
