//! Coracle's WebAssembly engine: bytes → [`module`] → [`compile`] → [`image`] → [`runtime`] → [`wasi`].
//!
//! # From bytes to a call
//!
//! [`compile::compile`] validates a module and makes machine code of it: a code image, bytes that can
//! be kept in a file and loaded again and again. [`runtime::Module`] maps it. A [`runtime::Store`]
//! holds what lives, a [`runtime::Linker`] what a module may import, and instantiating gives a
//! [`runtime::Instance`] with exports to call. [`command`] does all of this for a program that uses
//! WASI.
//!
//! ```
//! use coracle_engine::compile::compile;
//! use coracle_engine::config::Settings;
//! use coracle_engine::runtime::{CallError, Caller, Engine, HostError, Linker, Module, Store};
//! use coracle_engine::runtime::{TrapKind, Val};
//!
//! let wasm = wat::parse_str(r#"(module
//!     (import "host" "log" (func $log (param i32 i32)))
//!     (memory (export "memory") 1)
//!     (data (i32.const 0) "hello")
//!     (func (export "greet") (call $log (i32.const 0) (i32.const 5)))
//!     (func (export "div") (param i32 i32) (result i32)
//!         (i32.div_s (local.get 0) (local.get 1))))"#)?;
//!
//! // Compile: pure, once for each module and machine.
//! let image = compile(&wasm, &Settings::default())?;
//!
//! // Load: images of other builds and damaged ones are refused.
//! let engine = Engine::new();
//! let module = Module::from_bytes(&engine, &image)?;
//!
//! // Link: a host function is a closure, which reaches its caller's memory.
//! let mut linker = Linker::new(&engine);
//! linker.func_wrap("host", "log", |mut caller: Caller<'_>, at: u32, len: u32| {
//!     let memory = caller.memory().ok_or("no memory")?;
//!     let text = memory.get(at as usize..).and_then(|rest| rest.get(..len as usize));
//!     println!("{}", String::from_utf8_lossy(text.ok_or("outside of the memory")?));
//!     Ok::<(), HostError>(())
//! });
//! let mut store = Store::new(&engine)?;
//! let instance = linker.instantiate(&mut store, &module)?;
//!
//! // Change memory, and call.
//! let memory = instance.memory(&store, "memory").ok_or("no memory")?;
//! memory.write(&mut store, 1, b"a")?;
//! let greet = instance.func(&store, "greet").ok_or("no greet")?;
//! greet.invoke(&mut store, &[])?; // prints "hallo"
//! let div = instance.func(&store, "div").ok_or("no div")?;
//! assert_eq!(div.invoke(&mut store, &[Val::I32(84), Val::I32(2)])?, [Val::I32(42)]);
//!
//! // A trap ends the call and nothing else.
//! match div.invoke(&mut store, &[Val::I32(1), Val::I32(0)]) {
//!     Err(CallError::Trap(trap)) => assert_eq!(trap.kind(), TrapKind::IntegerDivideByZero),
//!     other => panic!("no trap: {other:?}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`runtime`] has the list of what an embedder can do, by the names of the specification. Which
//! proposals are accepted says [`config::Features`].
//!
//! # Floors
//!
//! Each floor is ignorant of the ones above it. [`abi`] is the treaty between compiled code and
//! the runtime; `compile` and `runtime` never import each other. A process that only runs code
//! never touches `compile`, and the linker leaves the code generator out of its executable. Only
//! [`first`] knows both: it compiles for a guest that runs already.

pub mod abi;
pub mod cache;
pub mod command;
pub mod compile;
pub mod config;
pub mod first;
pub mod image;
pub mod module;
pub mod runtime;
pub mod snapshot;
pub mod wasi;
