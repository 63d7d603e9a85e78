//! The unsafe floor: maps code images, instantiates modules, calls functions, turns faults into
//! traps.
//!
//! * `code` maps an image and answers questions about its tables; `check` refuses damaged ones.
//! * `store` holds what lives together; `vmcontext` is the memory that compiled code knows.
//! * `linker` matches names, `instantiate` builds an `instance`.
//! * `gc` is the heap of structures, arrays and exceptions.
//! * `call` is the one door in, `host` the one door out, `builtins` the runtime calls.
//! * `throw` finds who catches an `exception`.
//! * `trap` turns a fault into an error with a backtrace; `sys` is all that is Linux.
//! * `memory` and `region` are linear memories and their address space, `shared` those that several
//!   threads use, `waiters` and `threads` how these wait for each other.
//!
//! A thread uses a store; a process may have many. Stores share modules and [`SharedMemory`]. An image
//! compiled for dedicated addressing is for one main instance at a time, or for several instances of
//! one shared memory.

mod builtins;
mod call;
mod check;
mod code;
mod engine;
mod exception;
mod func;
mod gc;
mod global;
mod host;
mod instance;
mod instantiate;
mod linker;
mod memory;
mod region;
mod registry;
mod shared;
mod store;
mod supertypes;
mod sys;
mod table;
mod threads;
mod throw;
mod trap;
mod types;
mod val;
mod vmcontext;
mod waiters;

pub use code::{LoadError, Module};
pub use engine::Engine;
pub use exception::{Exception, ExceptionError, Tag};
pub use func::{CallError, Func};
pub use gc::{ArrayRef, ObjectError, StructRef};
pub use global::{Global, GlobalError};
pub use host::{
    Caller, HostError, HostPanic, HostResult, HostResultError, IntoHostFunc, MemoryView, WasmValue,
};
pub use instance::{Extern, Instance};
pub use instantiate::InstantiateError;
pub use linker::Linker;
pub use memory::{Memory, MemoryError, OutOfBounds};
pub use registry::TypeId;
pub use shared::SharedMemory;
pub use store::{AsStore, Store, StoreConfig, StoreError};
pub use table::{Table, TableError};
pub use trap::{Frame, MAX_FRAMES, Trap, TrapKind};
pub use types::{
    FieldType, FuncType, GlobalType, HeapType, RefType, StorageType, SubType, TableType, ValType,
};
pub use val::{AnyRef, ExnRef, ExternRef, Val};
