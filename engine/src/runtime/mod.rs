//! The unsafe floor: maps code images, instantiates modules, calls functions, turns faults into
//! traps. Its public types are what embedders use; the crate's documentation begins with an example.
//!
//! # By the names of the specification
//!
//! The operations of the core specification's appendix "Embedding":
//!
//! | specification | here |
//! |---|---|
//! | `store_init` | [`Store::new`], [`Store::with_config`] |
//! | `module_decode`, `module_parse`, `module_validate` | [`decode`](crate::module::decode::decode); compiling, on the floor beside this one, does both |
//! | `module_imports`, `module_exports` | [`Module::imports`], [`Module::exports`] |
//! | `module_instantiate` | [`Linker::instantiate`] |
//! | `instance_export` | [`Instance::export`], and one for each kind: [`Instance::func`] … |
//! | `func_alloc`, `func_type`, `func_invoke` | [`Func::wrap`] and [`Func::new`], [`Func::ty`], [`Func::invoke`] and [`Func::call`] |
//! | `table_alloc`, `table_type`, `table_read`, `table_write`, `table_size`, `table_grow` | [`Table::new`], [`Table::ty`], [`Table::get`], [`Table::set`], [`Table::size`], [`Table::grow`] |
//! | `mem_alloc`, `mem_type`, `mem_read`, `mem_write`, `mem_size`, `mem_grow` | [`Memory::new`], [`Memory::ty`], [`Memory::read`], [`Memory::write`], [`Memory::size`], [`Memory::grow`]; without copies [`Memory::data`]; between threads [`SharedMemory`] |
//! | `tag_alloc`, `tag_type` | [`Tag::new`], [`Tag::params`] |
//! | `exn_alloc`, `exn_tag`, `exn_read` | [`Exception::new`], [`Exception::tag`], [`Exception::values`] |
//! | `global_alloc`, `global_type`, `global_read`, `global_write` | [`Global::new`], [`Global::ty`], [`Global::get`], [`Global::set`] |
//! | `ref_type`, `val_default` | [`Val::ty`], [`Val::default_of`] |
//! | `match_valtype`, `match_externtype` | [`Engine::is_subtype`], [`ExternType::matches`] |
//!
//! Beyond it there are [`StructRef`] and [`ArrayRef`] for objects, [`Store::gc`] for their memory, and
//! [`Caller`] for what a host function may do.
//!
//! # Who panics, and who fails
//!
//! What a guest or a module can bring about is an error. Using a handle with another store than its
//! own, or a reference after it was released, is a mistake of the embedder and panics.
//!
//! # Inside
//!
//! * `code` maps an image and answers questions about its `tables`; `check` refuses damaged ones.
//! * `jit` is the compiler's side of an image whose functions come one by one, `lazy` the guest's.
//! * `store` holds what lives together; `vmcontext` is the memory that compiled code knows.
//! * `linker` matches names, `instantiate` builds an `instance`; `state` is what a snapshot keeps of one.
//! * `gc` is the heap of structures, arrays and exceptions.
//! * `call` is the one door in, `host` the one door out, `builtins` the runtime calls.
//! * `throw` finds who catches an `exception`.
//! * `trap` turns a fault into an error with a backtrace; `sight` is what a signal's handler sees of a
//!   guest that runs, `usage` what guests have; `sys` is all that is Linux.
//! * `memory` and `region` are linear memories and their address space, `shared` those that several
//!   threads use, `waiters` and `threads` how these wait for each other.
//!
//! A thread uses a store; a process may have many. Stores share modules and [`SharedMemory`]. An image
//! compiled for dedicated addressing is for one main instance at a time, or for several instances of
//! one shared memory.

mod builtins;
mod call;
mod ceiling;
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
mod jit;
mod lazy;
mod linker;
mod memory;
mod region;
mod registry;
mod shared;
mod sight;
mod state;
mod store;
mod supertypes;
mod sys;
mod table;
mod tables;
mod threads;
mod throw;
mod trap;
mod types;
mod usage;
mod val;
mod vmcontext;
mod waiters;

pub use ceiling::{Ceiling, MemoryLimits};
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
pub use jit::ArenaError;
pub(crate) use jit::{Arena, Piece};
pub use linker::Linker;
pub use memory::{Memory, MemoryError, OutOfBounds};
pub use registry::TypeId;
pub use shared::SharedMemory;
pub use sight::{MAX_SIGHT, Place, Sight};
pub(crate) use state::State;
pub use store::{AsStore, Store, StoreConfig, StoreError};
pub use sys::Interrupted;
pub use table::{Table, TableError};
pub use trap::{Frame, MAX_FRAMES, Trap, TrapKind};
pub use types::{
    ExternType, FieldType, FuncType, GlobalType, HeapType, MemoryType, RefType, StorageType,
    SubType, TableType, ValType,
};
pub use usage::MemoryUse;
pub use val::{AnyRef, ExnRef, ExternRef, Val};
