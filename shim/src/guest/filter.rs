//! Filters of system calls that are made when the shim is compiled.
//!
//! A start must not pay for a filter's making, and the kernel looks at it once for each number there is
//! when it is installed: so the program searches by halves, and lies in the executable as the kernel
//! wants it. See seccomp(2) and `Documentation/userspace-api/seccomp_filter.rst`.

use libc::sock_filter;

/// One system call that is allowed, at least in part.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) rule: Rule,
}

/// What happens to a call.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// It is done.
    Allow,
    /// It is done if of each list one test holds; else it fails with `EPERM`.
    Each(&'static [&'static [Test]]),
    /// It fails with this error number.
    Refuse(u32),
}

/// A test of the lower half of an argument, which is all that the kernel looks at of an `int`.
#[derive(Clone, Copy)]
pub(super) struct Test {
    pub(super) argument: u32,
    pub(super) mask: u32,
    pub(super) value: u32,
}

/// The argument is this number.
pub(super) const fn is(argument: u32, value: u32) -> Test {
    Test { argument, mask: u32::MAX, value }
}

/// These bits of the argument are not set.
pub(super) const fn without(argument: u32, bits: u32) -> Test {
    Test { argument, mask: bits, value: 0 }
}

/// A call that is allowed whatever its arguments are.
pub(super) const fn any(number: i64) -> Call {
    Call { number: number as u32, rule: Rule::Allow }
}

/// A call of which one of these tests must hold.
pub(super) const fn only(number: i64, each: &'static [&'static [Test]]) -> Call {
    Call { number: number as u32, rule: Rule::Each(each) }
}

/// Stands in a program for the number of the process that installs it.
pub(super) const OWN_PID: u32 = 0xffff_fff0;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const ALWAYS: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Where things are in `struct seccomp_data`; arguments have eight bytes each, the lower half first.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

/// Instructions before the search: the architecture, and the number.
const PROLOGUE: usize = 4;

const fn instruction(code: u32, k: u32, jt: usize, jf: usize) -> sock_filter {
    assert!(jt < 256 && jf < 256, "a conditional jump has eight bits");
    sock_filter { code: code as u16, jt: jt as u8, jf: jf as u8, k }
}

/// The calls by their numbers, which the search needs.
pub(super) const fn sorted<const N: usize>(mut calls: [Call; N]) -> [Call; N] {
    let mut end = 1;
    while end < N {
        let mut at = end;
        while at > 0 && calls[at - 1].number > calls[at].number {
            (calls[at - 1], calls[at]) = (calls[at], calls[at - 1]);
            at -= 1;
        }
        end += 1;
    }
    let mut at = 1;
    while at < N {
        assert!(calls[at - 1].number < calls[at].number, "a call is listed twice");
        at += 1;
    }
    calls
}

/// What happens to all numbers from one on, up to the next segment.
#[derive(Clone, Copy)]
enum Segment {
    Refused,
    Ruled(Rule),
}

/// Segments of the numbers, the first from 0 on: neighbours that are allowed are one.
struct Segments {
    list: [(u32, Segment); MOST_SEGMENTS],
    count: usize,
}

/// Twice the most calls that a list has.
const MOST_SEGMENTS: usize = 256;

impl Segments {
    const fn of(calls: &[Call]) -> Self {
        let mut all = Self { list: [(0, Segment::Refused); MOST_SEGMENTS], count: 0 };
        let (mut next, mut at, mut allowing) = (0, 0, false);
        while at < calls.len() {
            let Call { number, rule } = calls[at];
            if number > next {
                all.push(next, Segment::Refused);
                allowing = false;
            }
            let allow = matches!(rule, Rule::Allow);
            if !(allow && allowing) {
                all.push(number, Segment::Ruled(rule));
            }
            allowing = allow;
            next = number + 1;
            at += 1;
        }
        all.push(next, Segment::Refused);
        all
    }

    const fn push(&mut self, from: u32, segment: Segment) {
        self.list[self.count] = (from, segment);
        self.count += 1;
    }

    /// How many instructions the search among these takes, what is found included.
    const fn length(&self, from: usize, to: usize) -> usize {
        if to - from == 1 {
            return match self.list[from].1 {
                Segment::Refused => 1,
                Segment::Ruled(rule) => rule_length(rule),
            };
        }
        let middle = from + (to - from) / 2;
        let left = self.length(from, middle);
        left + self.length(middle, to) + if left < 256 { 1 } else { 2 }
    }
}

/// How many instructions the program of sorted calls has.
pub(super) const fn length(calls: &[Call]) -> usize {
    let segments = Segments::of(calls);
    PROLOGUE + segments.length(0, segments.count)
}

const fn rule_length(rule: Rule) -> usize {
    let Rule::Each(each) = rule else { return 1 };
    let (mut length, mut at) = (1, 0);
    while at < each.len() {
        length += tests_length(each[at], 0) + 1;
        at += 1;
    }
    length
}

/// How many instructions these tests take from one of them on.
const fn tests_length(tests: &[Test], from: usize) -> usize {
    let (mut length, mut at) = (0, from);
    while at < tests.len() {
        length += 1 + loads(tests, at) as usize + masks(tests[at]) as usize;
        at += 1;
    }
    length
}

/// Whether the argument is not at hand from the test before.
const fn loads(tests: &[Test], at: usize) -> bool {
    at == 0 || masks(tests[at - 1]) || tests[at - 1].argument != tests[at].argument
}

const fn masks(test: Test) -> bool {
    test.mask != u32::MAX
}

/// A program under construction.
struct Program<const N: usize> {
    code: [sock_filter; N],
    at: usize,
}

impl<const N: usize> Program<N> {
    const fn push(&mut self, code: u32, k: u32, jt: usize, jf: usize) {
        self.code[self.at] = instruction(code, k, jt, jf);
        self.at += 1;
    }

    const fn search(&mut self, segments: &Segments, from: usize, to: usize) {
        if to - from == 1 {
            return match segments.list[from].1 {
                Segment::Refused => self.push(RETURN, REFUSED, 0, 0),
                Segment::Ruled(rule) => self.rule(rule),
            };
        }
        let middle = from + (to - from) / 2;
        let left = segments.length(from, middle);
        if left < 256 {
            self.push(AT_LEAST, segments.list[middle].0, left, 0);
        } else {
            self.push(AT_LEAST, segments.list[middle].0, 0, 1);
            self.push(ALWAYS, left as u32, 0, 0);
        }
        self.search(segments, from, middle);
        self.search(segments, middle, to);
    }

    const fn rule(&mut self, rule: Rule) {
        let each = match rule {
            Rule::Allow => return self.push(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
            Rule::Refuse(errno) => {
                return self.push(RETURN, libc::SECCOMP_RET_ERRNO | errno, 0, 0);
            }
            Rule::Each(each) => each,
        };
        let mut at = 0;
        while at < each.len() {
            self.one_of(each[at]);
            at += 1;
        }
        self.push(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
    }

    /// Goes on behind it if one of the tests holds.
    const fn one_of(&mut self, tests: &[Test]) {
        let mut at = 0;
        while at < tests.len() {
            let Test { argument, mask, value } = tests[at];
            if loads(tests, at) {
                self.push(LOAD, ARGUMENTS_AT + 8 * argument, 0, 0);
            }
            if masks(tests[at]) {
                self.push(AND, mask, 0, 0);
            }
            self.push(EQUAL, value, tests_length(tests, at + 1) + 1, 0);
            at += 1;
        }
        self.push(RETURN, REFUSED, 0, 0);
    }
}

/// The program that lets nothing happen but sorted `calls`; another architecture's are the end.
pub(super) const fn program<const N: usize>(calls: &[Call]) -> [sock_filter; N] {
    let mut program = Program { code: [instruction(RETURN, REFUSED, 0, 0); N], at: 0 };
    program.push(LOAD, ARCHITECTURE_AT, 0, 0);
    program.push(EQUAL, ARCHITECTURE, 1, 0);
    program.push(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0);
    program.push(LOAD, NUMBER_AT, 0, 0);
    let segments = Segments::of(calls);
    program.search(&segments, 0, segments.count);
    assert!(program.at == N, "the length was computed wrongly");
    program.code
}

/// The program with the number of this process where it belongs.
pub(super) fn for_process<const N: usize>(
    program: &[sock_filter; N],
    pid: u32,
) -> [sock_filter; N] {
    let mut program = *program;
    for one in program.iter_mut().filter(|one| one.k == OWN_PID) {
        one.k = pid;
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn answer(program: &[sock_filter], architecture: u32, call: u32, args: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER_AT => call,
            ARCHITECTURE_AT => architecture,
            _ => args[(offset - ARGUMENTS_AT) as usize / 8] as u32,
        };
        let (mut at, mut value) = (0, 0);
        loop {
            let one = program[at];
            at += 1;
            match u32::from(one.code) {
                LOAD => value = word(one.k),
                AND => value &= one.k,
                EQUAL => at += usize::from(if value == one.k { one.jt } else { one.jf }),
                AT_LEAST => at += usize::from(if value >= one.k { one.jt } else { one.jf }),
                ALWAYS => at += one.k as usize,
                RETURN => return one.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const CALLS: [Call; 7] = sorted([
        any(7),
        any(0),
        any(8),
        only(3, &[&[is(0, 2), is(0, 10)], &[without(1, 4)]]),
        any(300),
        Call { number: 200, rule: Rule::Refuse(38) },
        only(9, &[&[is(0, OWN_PID)]]),
    ]);
    const PROGRAM: [sock_filter; length(&CALLS)] = program(&CALLS);

    #[test]
    fn every_number_has_the_answer_of_the_list() {
        let program = for_process(&PROGRAM, 77);
        let ask = |call, args| answer(&program, ARCHITECTURE, call, args);
        for call in (0..600).chain([0x4000_0007, u32::MAX]) {
            let want = match call {
                0 | 7 | 8 | 300 => libc::SECCOMP_RET_ALLOW,
                200 => libc::SECCOMP_RET_ERRNO | 38,
                _ => REFUSED,
            };
            assert_eq!(ask(call, [0; 6]), want, "{call}");
        }
        for (first, second, allowed) in
            [(2, 0, true), (10, 3, true), (10, 4, false), (3, 0, false), (2, 0xff, false)]
        {
            let got = ask(3, [first, second, 0, 0, 0, 0]) == libc::SECCOMP_RET_ALLOW;
            assert_eq!(got, allowed, "{first} {second}");
        }
        assert_eq!(ask(9, [77, 0, 0, 0, 0, 0]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(ask(9, [78, 0, 0, 0, 0, 0]), REFUSED);
        let foreign = answer(&program, 0x4000_0003, 7, [0; 6]);
        assert_eq!(foreign, libc::SECCOMP_RET_KILL_PROCESS);
    }
}
