//! Which calls are replaced by the callee's body, and which functions need no code of their own.
//!
//! Decided for the whole module before anything is translated, from the [surveys](super::survey)
//! alone, so that the result does not depend on threads. The translator then translates the
//! callee's body where the call stands.

use cranelift_entity::{EntityRef, EntitySet};

use super::survey::{CallSite, Survey};
use crate::module::ModuleInfo;
use crate::module::index::{DefinedFuncIndex, FuncIndex};

/// Callees up to this size replace every call: the body is hardly larger than the call.
const SMALL: u32 = 24;
/// Callees up to this size replace every call while [`COPIES`] allows it.
const MEDIUM: u32 = 40;
/// Callees up to this size replace calls inside a loop.
const IN_LOOP: u32 = 60;
/// Callees up to this size replace calls inside a loop while [`COPIES`] allows it.
const MEDIUM_IN_LOOP: u32 = 80;
/// Size of all copies of a callee together up to which it is worth compiling them.
const COPIES: u32 = 2_000;
/// Callees up to this size replace the only call of them, if that is inside a loop: nothing becomes
/// larger by it but the caller.
const ONLY_CALL_IN_LOOP: u32 = 1_500;
/// Callees up to this size replace the only call of them anywhere else, where it gains little.
const ONLY_CALL: u32 = 150;
/// Callers do not grow beyond this size by it.
const CALLER: u32 = 2_000;
/// Callees with more locals are left alone: each is a variable of the caller's.
const LOCALS: u32 = 100;
/// Bodies inside each other; bounds the translator's recursion.
const NESTING: u32 = 12;

/// The decisions for a module.
pub(super) struct Plan {
    /// Positions of the calls that are replaced, ascending.
    replaced: Vec<u32>,
    /// Functions that need code of their own.
    live: EntitySet<DefinedFuncIndex>,
}

impl Plan {
    /// Every function for itself.
    pub(super) fn without_inlining(functions: usize) -> Plan {
        let mut live = EntitySet::with_capacity(functions);
        (0..functions).for_each(|n| {
            live.insert(DefinedFuncIndex::new(n));
        });
        Plan { replaced: Vec::new(), live }
    }

    /// Decides.
    pub(super) fn new(module: &ModuleInfo, surveys: &[Survey]) -> Plan {
        let mut planner = Planner::new(module, surveys);
        for root in 0..surveys.len() {
            planner.visit(root);
        }
        let Planner { mut replaced, calls, .. } = planner;
        replaced.sort_unstable();
        let mut plan = Plan { replaced, live: EntitySet::new() };
        plan.find_live(module, surveys, &calls);
        plan
    }

    /// Whether the call at this position is replaced by the callee's body.
    pub(super) fn replaces(&self, offset: u32) -> bool {
        self.replaced.binary_search(&offset).is_ok()
    }

    /// Whether a function needs code of its own.
    pub(super) fn is_live(&self, func: DefinedFuncIndex) -> bool {
        self.live.contains(func)
    }

    /// What the outside can reach needs code, and what such code calls. So does what nothing calls,
    /// to be compiled like everything else that its author left in the module.
    fn find_live(&mut self, module: &ModuleInfo, surveys: &[Survey], calls: &[u32]) {
        let mut next: Vec<_> = (0..surveys.len())
            .map(DefinedFuncIndex::new)
            .filter(|&func| calls[func.index()] == 0 || is_root(module, module.func_index(func)))
            .collect();
        // Bodies are looked through once for the code that they are part of.
        let mut seen = EntitySet::new();
        while let Some(func) = next.pop() {
            self.live.insert(func);
            let mut bodies = vec![func];
            while let Some(body) = bodies.pop() {
                if !seen.insert(body) {
                    continue;
                }
                for call in &surveys[body.index()].calls {
                    let Some(callee) = module.defined_func(call.callee) else { continue };
                    if self.replaces(call.offset) {
                        bodies.push(callee);
                    } else if !self.live.contains(callee) {
                        next.push(callee);
                    }
                }
            }
        }
    }
}

/// Whether a function can be reached other than by a direct call.
fn is_root(module: &ModuleInfo, func: FuncIndex) -> bool {
    module.functions[func].func_ref.is_some() || module.start == Some(func)
}

/// Goes through the call graph from the callees up.
struct Planner<'a> {
    module: &'a ModuleInfo,
    surveys: &'a [Survey],
    /// Calls of each function.
    calls: Vec<u32>,
    states: Vec<State>,
    replaced: Vec<u32>,
}

#[derive(Clone, Copy)]
enum State {
    New,
    /// Its callees are being visited: a call of it is recursion, which stays a call.
    Open,
    /// Size, locals and nesting with all that was put into it.
    Done {
        size: u32,
        nesting: u32,
    },
}

impl<'a> Planner<'a> {
    fn new(module: &'a ModuleInfo, surveys: &'a [Survey]) -> Self {
        let mut calls = vec![0; surveys.len()];
        for call in surveys.iter().flat_map(|survey| &survey.calls) {
            if let Some(callee) = module.defined_func(call.callee) {
                calls[callee.index()] += 1;
            }
        }
        let states = vec![State::New; surveys.len()];
        Planner { module, surveys, calls, states, replaced: Vec::new() }
    }

    /// Visits what a function calls, then itself. Without recursion: call chains may be long.
    fn visit(&mut self, root: usize) {
        let mut path = vec![(root, 0)];
        while let Some((func, call)) = path.pop() {
            if call == 0 {
                if !matches!(self.states[func], State::New) {
                    continue;
                }
                self.states[func] = State::Open;
            }
            match self.surveys[func].calls.get(call) {
                Some(site) => {
                    path.push((func, call + 1));
                    if let Some(callee) = self.module.defined_func(site.callee) {
                        path.push((callee.index(), 0));
                    }
                }
                None => self.decide(func),
            }
        }
    }

    fn decide(&mut self, func: usize) {
        let survey = &self.surveys[func];
        let (mut size, mut nesting) = (survey.size, 0);
        for call in &survey.calls {
            if let Some((added, depth)) = self.body_for(call, size) {
                size += added;
                nesting = nesting.max(depth + 1);
                self.replaced.push(call.offset);
            }
        }
        self.states[func] = State::Done { size, nesting };
    }

    /// Size and nesting of the body that replaces a call; `None` if it stays a call.
    fn body_for(&self, call: &CallSite, caller: u32) -> Option<(u32, u32)> {
        let callee = self.module.defined_func(call.callee)?;
        let State::Done { size, nesting } = self.states[callee.index()] else { return None };
        let survey = &self.surveys[callee.index()];
        if call.tail || survey.tail_calls || survey.locals > LOCALS || nesting >= NESTING {
            return None;
        }
        let calls = self.calls[callee.index()];
        let only = calls == 1 && !is_root(self.module, call.callee);
        let few = size.saturating_mul(calls) <= COPIES;
        let limit = match (only, few, call.loops > 0) {
            (true, _, true) => ONLY_CALL_IN_LOOP,
            (true, _, false) => ONLY_CALL,
            (false, true, true) => MEDIUM_IN_LOOP,
            (false, true, false) => MEDIUM,
            (false, false, true) => IN_LOOP,
            (false, false, false) => SMALL,
        };
        (size <= limit && (size <= MEDIUM || caller + size <= CALLER)).then_some((size, nesting))
    }
}
