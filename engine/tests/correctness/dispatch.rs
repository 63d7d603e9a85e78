//! Control flow without structure, as compilers write it that know no other way: a loop that begins
//! with a `br_table` on a local. The compiler leads branches past the table where it knows the
//! local. Generated machines, one inside another, do what a model does.

use std::fmt::Write;

use coracle_engine::runtime::Val;

use crate::{CONFIGURATIONS, Guest, Numbers};

/// Steps after which a machine stops, wherever it is.
const FUEL: u32 = 300;
/// Machines inside each other.
const DEPTH: usize = 3;

/// A loop with a dispatch over states.
struct Machine {
    states: Vec<State>,
    /// The state for selectors that have none; `None` leaves the machine.
    default: Option<usize>,
}

struct State {
    /// What the state adds to three times the accumulator.
    number: u32,
    inner: Option<Machine>,
    exit: Exit,
}

/// How a state ends. Selectors may be out of range.
#[derive(Clone, Copy)]
enum Exit {
    /// Runs on into the next state, or out of the machine.
    Next,
    /// A selector that is known, and a branch.
    Goto(u32),
    /// The same if a bit of the accumulator is set, else the next state.
    If(u32, u32),
    /// One of two selectors by a bit, then a branch: known in neither way alone.
    Either(u32, u32, u32),
    /// Three bits of the accumulator as the selector.
    Computed(u32),
    /// A selector of the machine around this one, and a branch to its loop.
    Outer(u32),
    Return,
}

impl Machine {
    fn random(numbers: &mut Numbers, depth: usize) -> Machine {
        let count = 1 + numbers.next() as usize % if depth == 0 { 7 } else { 4 };
        let states = (0..count).map(|_| State::random(numbers, depth, count)).collect();
        let default = (numbers.next().is_multiple_of(2)).then(|| numbers.next() as usize % count);
        Machine { states, default }
    }

    /// The machine as an expression. Its selector is local `sel{depth}`, its loop `$loop{depth}`.
    fn wat(&self, out: &mut String, depth: usize) {
        let count = self.states.len();
        write!(out, "(block $out{depth} (loop $loop{depth} ").unwrap();
        (0..count).rev().for_each(|n| write!(out, "(block $s{depth}_{n} ").unwrap());
        out.push_str("(br_table ");
        (0..count).for_each(|n| write!(out, "$s{depth}_{n} ").unwrap());
        match self.default {
            Some(n) => write!(out, "$s{depth}_{n} ").unwrap(),
            None => write!(out, "$out{depth} ").unwrap(),
        }
        write!(out, "(local.get $sel{depth}))").unwrap();
        for state in &self.states {
            out.push_str(")\n");
            state.wat(out, depth);
        }
        out.push_str("))\n");
    }

    /// Runs the model. `Flow::Left` when the machine is left at its end.
    fn run(&self, world: &mut World, depth: usize) -> Flow {
        let mut at = self.target(world.selectors[depth]);
        while let Some(n) = at {
            let Some(state) = self.states.get(n) else { break };
            at = match state.run(world, depth) {
                Flow::Left => Some(n + 1),
                Flow::Again => self.target(world.selectors[depth]),
                Flow::AgainOutside => return Flow::Again,
                Flow::Returned => return Flow::Returned,
            };
        }
        Flow::Left
    }

    fn target(&self, selector: u32) -> Option<usize> {
        let known = (selector as usize) < self.states.len();
        if known { Some(selector as usize) } else { self.default }
    }
}

/// The locals of the function.
struct World {
    accumulator: u32,
    fuel: u32,
    selectors: [u32; DEPTH],
}

/// Where control goes.
enum Flow {
    /// On behind.
    Left,
    /// To the beginning of the machine's loop.
    Again,
    /// To the beginning of the loop around the machine.
    AgainOutside,
    Returned,
}

impl State {
    fn random(numbers: &mut Numbers, depth: usize, states: usize) -> State {
        let inner = depth + 1 < DEPTH && numbers.next().is_multiple_of(4);
        let inner = inner.then(|| Machine::random(numbers, depth + 1));
        let bit = numbers.next() as u32 % 31;
        let mut selector = || numbers.next() as u32 % (states as u32 + 2);
        let (a, b) = (selector(), selector());
        let exit = match numbers.next() % 12 {
            0 | 1 => Exit::Next,
            2..=4 => Exit::Goto(a),
            5 | 6 => Exit::If(bit, a),
            7 | 8 => Exit::Either(bit, a, b),
            9 => Exit::Computed(bit),
            10 if depth > 0 => Exit::Outer(a),
            10 => Exit::Goto(0x8000_0000 | a),
            _ => Exit::Return,
        };
        State { number: numbers.next() as u32 % 1000, inner, exit }
    }

    fn wat(&self, out: &mut String, depth: usize) {
        write!(
            out,
            "(if (i32.eqz (local.get $fuel)) (then (return (local.get $acc))))
             (local.set $fuel (i32.sub (local.get $fuel) (i32.const 1)))
             (local.set $acc (i32.add (i32.mul (local.get $acc) (i32.const 3)) (i32.const {})))\n",
            self.number
        )
        .unwrap();
        if let Some(inner) = &self.inner {
            inner.wat(out, depth + 1);
        }
        let bit = |n: u32| format!("(i32.and (local.get $acc) (i32.const {}))", 1 << n);
        let set = |depth: usize, to: u32| format!("(local.set $sel{depth} (i32.const {to}))");
        let again = format!("(br $loop{depth})");
        let text = match self.exit {
            Exit::Next => String::new(),
            Exit::Goto(to) => set(depth, to) + &again,
            Exit::If(n, to) => set(depth, to) + &format!("(br_if $loop{depth} {})", bit(n)),
            Exit::Either(n, a, b) => {
                format!("(if {} (then {}) (else {})) {again}", bit(n), set(depth, a), set(depth, b))
            }
            Exit::Computed(n) => format!(
                "(local.set $sel{depth}
                    (i32.and (i32.shr_u (local.get $acc) (i32.const {n})) (i32.const 7))) {again}"
            ),
            Exit::Outer(to) => set(depth - 1, to) + &format!("(br $loop{})", depth - 1),
            Exit::Return => "(return (local.get $acc))".to_string(),
        };
        out.push_str(&text);
    }

    fn run(&self, world: &mut World, depth: usize) -> Flow {
        if world.fuel == 0 {
            return Flow::Returned;
        }
        world.fuel -= 1;
        world.accumulator = world.accumulator.wrapping_mul(3).wrapping_add(self.number);
        match self.inner.as_ref().map(|inner| inner.run(world, depth + 1)) {
            None | Some(Flow::Left) => {}
            Some(other) => return other,
        }
        let bit = |world: &World, n: u32| world.accumulator >> n & 1 == 1;
        let selector = &mut world.selectors;
        match self.exit {
            Exit::Next => return Flow::Left,
            Exit::Goto(to) => selector[depth] = to,
            Exit::If(n, to) => {
                selector[depth] = to;
                if !bit(world, n) {
                    return Flow::Left;
                }
            }
            Exit::Either(n, a, b) => {
                world.selectors[depth] = if bit(world, n) { a } else { b };
            }
            Exit::Computed(n) => selector[depth] = world.accumulator >> n & 7,
            Exit::Outer(to) => {
                selector[depth - 1] = to;
                return Flow::AgainOutside;
            }
            Exit::Return => return Flow::Returned,
        }
        Flow::Again
    }
}

#[test]
fn machines_of_branches_do_what_a_model_does() {
    let mut numbers = Numbers(7);
    let machines: Vec<Machine> = (0..150).map(|_| Machine::random(&mut numbers, 0)).collect();
    let mut wat = String::from("(module\n");
    for (n, machine) in machines.iter().enumerate() {
        write!(
            wat,
            "(func (export \"{n}\") (param $acc i32) (param $sel0 i32) (result i32)
                (local $fuel i32) (local $sel1 i32) (local $sel2 i32)
                (local.set $fuel (i32.const {FUEL}))\n"
        )
        .unwrap();
        machine.wat(&mut wat, 0);
        wat.push_str("(local.get $acc))\n");
    }
    wat.push(')');
    let mut steps = 0;
    for configuration in CONFIGURATIONS {
        let mut guest = Guest::new(&wat, configuration);
        for (n, machine) in machines.iter().enumerate() {
            for (accumulator, selector) in [(0, 0), (1, 1), (0x1234_5678, 2), (77, 0x8000_0000)] {
                let selectors = [selector, 0, 0];
                let mut world = World { accumulator, fuel: FUEL, selectors };
                machine.run(&mut world, 0);
                steps += FUEL - world.fuel;
                let args = [Val::I32(accumulator as i32), Val::I32(selector as i32)];
                let found = guest.bits(&n.to_string(), &args).unwrap();
                let expected = u128::from(world.accumulator);
                assert_eq!(found, expected, "machine {n} of {args:?}, {configuration:?}");
            }
        }
    }
    // Machines that stop at once would prove nothing.
    assert!(steps > 50_000, "{steps} steps");
}
