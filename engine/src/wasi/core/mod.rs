//! The host core: descriptors, files, directories, sockets, clocks, randomness, readiness.
//!
//! It knows no ABI: no numbers of errors, rights or flags of any WASI version. Thin layers above
//! it translate. Paths and buffers are plain bytes; nothing here sees guest memory as such.

pub mod clock;
pub mod descriptors;
pub mod dir;
pub mod error;
pub mod file;
pub mod listen;
pub mod listing;
pub mod mode;
pub mod names;
pub mod network;
pub mod object;
pub mod path;
pub mod policy;
pub mod poll;
pub mod random;
pub mod signals;
pub mod socket;
pub mod stat;
pub mod stop;
pub mod table;
