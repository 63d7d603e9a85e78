//! Which functions are made, by whom, and which are next.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::abi::lazy::READY;
use crate::compile::first::{FunctionCompiler, Source};
use crate::runtime::{Arena, Piece};

/// All functions of a module on their way to code.
pub(super) struct Works<'a> {
    source: &'a Source<'a>,
    arena: Mutex<Arena>,
    queue: Mutex<Queue>,
    /// A function that was being made is made.
    made: Condvar,
}

struct Queue {
    states: Vec<State>,
    /// What is likely to be called soon, and is worth making now, at the end: of what a function calls
    /// the last, since the guest is about to ask for the first itself. May name functions again.
    next: VecDeque<u32>,
    /// No function below is new.
    scanned: u32,
    /// Functions that are neither made nor refused.
    left: u32,
    over: bool,
}

#[derive(Clone)]
enum State {
    New,
    /// A thread is at it.
    Busy,
    Made,
    /// Why it cannot be made.
    Refused(String),
}

/// Who wants a function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The guest waits: what it calls comes next.
    Asked,
    /// Nobody yet.
    Ahead,
}

impl<'a> Works<'a> {
    pub(super) fn new(source: &'a Source<'a>, arena: Arena) -> Works<'a> {
        let left = source.functions();
        let states = vec![State::New; left as usize];
        let queue = Queue { states, next: VecDeque::new(), scanned: 0, left, over: false };
        Works { source, arena: Mutex::new(arena), queue: Mutex::new(queue), made: Condvar::new() }
    }

    /// A compiler for the calling thread.
    pub(super) fn compiler(&self) -> FunctionCompiler<'a> {
        self.source.compiler()
    }

    /// Names functions that will be called.
    pub(super) fn expect(&self, funcs: impl Iterator<Item = u32>) {
        self.queue().next.extend(funcs);
    }

    /// Whether no function is left to be made.
    pub(super) fn is_done(&self) -> bool {
        self.queue().left == 0
    }

    /// Lets threads that go ahead return.
    pub(super) fn end(&self) {
        self.queue().over = true;
    }

    /// Makes what is likely to be asked for until nothing is left.
    pub(super) fn go_ahead(&self) {
        let mut compiler = self.compiler();
        while let Some(func) = self.take_next() {
            // Whoever asks for it is told why it cannot be made.
            let _ = self.make(&mut compiler, func, Reason::Ahead);
        }
    }

    /// Makes a function that the guest waits for.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub(super) fn demand(
        &self,
        compiler: &mut FunctionCompiler<'a>,
        func: u32,
    ) -> Result<(), String> {
        let mut queue = self.queue();
        loop {
            match queue.states.get_mut(func as usize) {
                None => return Err(format!("there is no function {func}")),
                Some(State::Made) => return Ok(()),
                Some(State::Refused(reason)) => return Err(reason.clone()),
                Some(State::Busy) => {
                    queue = self.made.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                Some(state @ State::New) => {
                    *state = State::Busy;
                    break;
                }
            }
        }
        drop(queue);
        self.make(compiler, func, Reason::Asked)
    }

    /// The next function to make ahead, which is the caller's to make.
    fn take_next(&self) -> Option<u32> {
        let mut queue = self.queue();
        let queue = &mut *queue;
        if queue.over {
            return None;
        }
        let is_new = |func: &u32| matches!(queue.states.get(*func as usize), Some(State::New));
        let likely = std::iter::from_fn(|| queue.next.pop_back()).find(is_new);
        let func = likely.or_else(|| {
            let found = (queue.scanned..queue.states.len() as u32).find(is_new);
            queue.scanned = found.unwrap_or(queue.states.len() as u32);
            found
        })?;
        queue.states[func as usize] = State::Busy;
        Some(func)
    }

    /// Makes a function that is the caller's to make.
    fn make(
        &self,
        compiler: &mut FunctionCompiler<'a>,
        func: u32,
        why: Reason,
    ) -> Result<(), String> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.compile(compiler, func)));
        let outcome = outcome.unwrap_or_else(|_| {
            // What it was in the middle of is unknown.
            *compiler = self.compiler();
            Err("the compiler failed; that is its own fault".to_owned())
        });
        let mut queue = self.queue();
        queue.left -= 1;
        let (state, result) = match outcome {
            Ok(callees) => {
                queue.expect_calls(&callees, why);
                (State::Made, Ok(()))
            }
            Err(reason) => (State::Refused(reason.clone()), Err(reason)),
        };
        queue.states[func as usize] = state;
        self.made.notify_all();
        result
    }

    /// Compiles and places a function; gives what it calls, in order.
    fn compile(&self, compiler: &mut FunctionCompiler<'a>, func: u32) -> Result<Vec<u32>, String> {
        let made = compiler.compile(func).map_err(|error| error.to_string())?;
        let piece = Piece {
            func,
            code: &made.bytes,
            align: made.align,
            calls: &made.calls,
            tables: &made.tables,
        };
        let mut arena = self.arena.lock().unwrap_or_else(PoisonError::into_inner);
        arena.place(&piece).map_err(|error| error.to_string())?;
        Ok(made.calls.iter().map(|&(_, callee)| callee).collect())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while holding it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn expect_calls(&mut self, callees: &[u32], why: Reason) {
        let states = &self.states;
        let is_new = |func: &&u32| matches!(states.get(**func as usize), Some(State::New));
        let new = callees.iter().filter(is_new).copied();
        match why {
            Reason::Asked => self.next.extend(new),
            Reason::Ahead => new.for_each(|func| self.next.push_front(func)),
        }
    }
}

/// The answer to a question.
pub(super) fn answer_of(outcome: Result<(), String>) -> Vec<u8> {
    match outcome {
        Ok(()) => vec![READY],
        // Neither empty nor like the other answer.
        Err(reason) => format!("{reason}.").into_bytes(),
    }
}
