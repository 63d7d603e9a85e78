//! Programs with threads: `thread-spawn` of the proposal wasi-threads.
//!
//! Each thread has a store and an instance of its own; they share the memory that the module imports,
//! and the descriptors. How many there can be is the pids cgroup's to say.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::entry::exported;
use super::outcome::{self, Outcome};
use super::{Linked, RunError};
use crate::config::Addressing;
use crate::module::types::{FuncType, ValType};
use crate::module::{Import, ImportType, ModuleInfo};
use crate::runtime::{
    CallError, Caller, InstantiateError, Memory, MemoryType, Module, SharedMemory, StoreConfig, Val,
};
use crate::wasi::WasiCtx;

/// Where the function comes from.
const MODULE: &str = "wasi";
/// The function that makes a thread.
const SPAWN: &str = "thread-spawn";
/// The export that a thread starts with.
const START: &str = "wasi_thread_start";
/// Ids are below this: wasi-threads, "Design choice: thread IDs".
const IDS: i32 = 1 << 29;
/// Stack of a thread for the host's functions, in bytes.
const HOST_STACK: usize = 512 << 10;
/// What a guest gets when there can be no other thread: an errno, negative.
const AGAIN: i32 = -6;

/// Why a program that makes threads cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The memory is no thread's but the first's.
    #[error(
        "it imports `thread-spawn` but no shared memory; link it with --import-memory and \
         --shared-memory (target wasm32-wasip1-threads does)"
    )]
    UnsharedMemory,
    /// There is nothing for a thread to run.
    #[error("it exports no function `{START}` that takes two i32 and returns nothing")]
    MissingStart,
    /// The system gives none.
    #[error("the system gives no thread for it: the limit on processes of the cgroup is reached")]
    Exhausted,
}

/// Whether a program makes threads.
pub(super) fn needed(module: &ModuleInfo) -> bool {
    module.imports.iter().any(|import| import.module == MODULE && import.name == SPAWN)
}

/// A program with threads, none of which runs yet.
#[derive(Debug)]
pub(super) struct Program {
    group: Arc<Group>,
    ctx: WasiCtx,
    ends: Receiver<Result<Outcome, RunError>>,
}

/// What the threads have in common.
struct Group {
    module: Module,
    memory: SharedMemory,
    /// Module and name that the memory is imported by.
    import: (String, String),
    config: StoreConfig,
    next: AtomicI32,
    /// Takes what ends the program.
    end: Sender<Result<Outcome, RunError>>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl Program {
    /// Checks that the module can have threads, and that its imports are there.
    pub(super) fn new(
        module: Module,
        ctx: WasiCtx,
        config: StoreConfig,
    ) -> Result<Program, RunError> {
        let start = exported(module.info(), START);
        let wanted = FuncType { params: vec![ValType::I32; 2], results: Vec::new() };
        if start != Some(&wanted) {
            return Err(Refusal::MissingStart.into());
        }
        let (index, ty, import) = shared_import(module.info()).ok_or(Refusal::UnsharedMemory)?;
        let import = (import.module.clone(), import.name.clone());
        let dedicated = index == 0 && module.settings().addressing == Addressing::Dedicated;
        let memory = match dedicated {
            true => SharedMemory::dedicated(ty, config.memory_limits())?,
            false => SharedMemory::new(ty, config.memory_limits())?,
        };
        let (end, ends) = mpsc::channel();
        let group = Group { module, memory, import, config, next: AtomicI32::new(1), end };
        let program = Program { group: Arc::new(group), ctx, ends };
        if let Some(ctx) = program.ctx.for_thread() {
            program.group.link(ctx)?;
        }
        Ok(program)
    }

    /// Runs the first thread, until it or something else ends the program.
    pub(super) fn run(self, calls: Vec<String>) -> Result<Outcome, RunError> {
        let Program { group, ctx, ends } = self;
        let first = Arc::clone(&group);
        let spawned = group.builder("wasm".to_owned()).spawn(move || {
            let end = match first.link(ctx) {
                Ok(mut linked) => linked.outcome(&calls),
                Err(error) => Err(error),
            };
            first.finish(end);
        });
        spawned.map_err(|_| Refusal::Exhausted)?;
        ends.recv().unwrap_or(Err(Refusal::Exhausted.into()))
    }
}

/// The first shared memory that a module imports: its place among its memories, type and names.
fn shared_import(module: &ModuleInfo) -> Option<(usize, MemoryType, &Import)> {
    let memories = module.imports.iter().filter_map(|import| match import.ty {
        ImportType::Memory(ty) => Some((ty, import)),
        _ => None,
    });
    let mut numbered = memories.enumerate().map(|(index, (ty, import))| (index, ty, import));
    numbered.find(|(_, ty, _)| ty.shared)
}

impl Group {
    fn builder(&self, name: String) -> thread::Builder {
        let stack = self.config.max_wasm_stack.saturating_add(HOST_STACK);
        thread::Builder::new().name(name).stack_size(stack)
    }

    /// Links the module for the calling thread.
    fn link(self: &Arc<Self>, ctx: WasiCtx) -> Result<Linked, RunError> {
        Linked::new(self.module.clone(), ctx, self.config, |linker, store, ctx| {
            let (module, name) = self.import.clone();
            linker.define(module, name, Memory::from_shared(store, &self.memory));
            let (group, ctx) = (Arc::clone(self), Rc::clone(ctx));
            let spawn = move |_: Caller<'_>, argument: i32| group.spawn(&ctx, argument);
            linker.func_wrap(MODULE, SPAWN, spawn);
        })
    }

    /// Makes a thread: its id, or a negative errno. The thread has all that it needs when this
    /// returns an id.
    fn spawn(self: &Arc<Self>, ctx: &WasiCtx, argument: i32) -> i32 {
        let taken = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| (id < IDS).then_some(id + 1));
        let (Ok(id), Some(ctx)) = (taken, ctx.for_thread()) else { return AGAIN };
        let (ready, is_ready) = mpsc::sync_channel(1);
        let group = Arc::clone(self);
        let spawned = self.builder(format!("wasm-{id}")).spawn(move || {
            let linked = group.link(ctx);
            // The maker waits for the answer.
            let _ = ready.send(linked.is_ok());
            if let Ok(linked) = linked {
                group.run(linked, id, argument);
            }
        });
        match spawned.is_ok() && is_ready.recv().unwrap_or(false) {
            true => id,
            false => AGAIN,
        }
    }

    fn run(&self, mut linked: Linked, id: i32, argument: i32) {
        let result = linked.run_thread(id, argument);
        if result.is_err() {
            self.finish(outcome::of(result, &linked.store));
        }
    }

    /// Ends the program. Only the first to do so is heard.
    fn finish(&self, end: Result<Outcome, RunError>) {
        // Nobody listens any more when the program has ended before.
        let _ = self.end.send(end);
    }
}

impl Linked {
    fn run_thread(&mut self, id: i32, argument: i32) -> Result<(), InstantiateError> {
        let instance = self.instantiate()?;
        let Some(start) = instance.func(&self.store, START) else { return Ok(()) };
        let arguments = [Val::I32(id), Val::I32(argument)];
        let called: Result<(), CallError> =
            start.call(&mut self.store, &arguments, &mut Vec::new());
        called.map_err(InstantiateError::Failed)
    }
}
