//! Rules for devices as a cgroup keeps them: lines for the files of v1, a program for v2.
//!
//! The spec's list is first read as cgroup v1 reads it: one answer for everything, and exceptions from
//! it. So both versions answer alike, whatever the order and overlap of the rules.
//!
//! Sources: Linux `Documentation/admin-guide/cgroup-v1/devices.rst`, `security/device_cgroup.c`;
//! `struct bpf_cgroup_dev_ctx` of `linux/bpf.h`; the kernel's `instruction-set.rst` for BPF.

use std::fmt::Write as _;

use crate::spec::{DeviceAccess, DeviceClass, DeviceRule};

/// Class, major and minor number, of which none is any, and access.
type Allowed = (Option<DeviceClass>, Option<u32>, Option<u32>, DeviceAccess);

/// What every container may use, whatever the spec says; runc's list. Nodes of any kind may be made,
/// for they cannot be opened.
const ALWAYS: [Allowed; 10] = {
    const C: Option<DeviceClass> = Some(DeviceClass::Char);
    const ALL: DeviceAccess = DeviceAccess::ALL;
    [
        (C, None, None, DeviceAccess::MKNOD),
        (Some(DeviceClass::Block), None, None, DeviceAccess::MKNOD),
        (C, Some(1), Some(3), ALL),
        (C, Some(1), Some(5), ALL),
        (C, Some(1), Some(7), ALL),
        (C, Some(1), Some(8), ALL),
        (C, Some(1), Some(9), ALL),
        (C, Some(5), Some(0), ALL),
        (C, Some(5), Some(2), ALL),
        // Pseudo-terminals, of which the console is one.
        (C, Some(136), None, ALL),
    ]
};

/// The rules of a container, read: one answer, and exceptions from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePolicy {
    /// What is answered where no exception is.
    allow: bool,
    exceptions: Vec<Exception>,
}

/// Devices for which the other answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    class: DeviceClass,
    major: Option<u32>,
    minor: Option<u32>,
    access: DeviceAccess,
}

impl Exception {
    /// Whether it is about the same devices, wild cards included.
    fn is_about(&self, other: &Self) -> bool {
        (self.class, self.major, self.minor) == (other.class, other.major, other.minor)
    }
}

impl DevicePolicy {
    /// Reads a list of rules. Without any rule nothing is allowed but what every container has.
    #[must_use]
    pub fn new(rules: &[DeviceRule]) -> Self {
        let mut policy = Self { allow: false, exceptions: Vec::new() };
        let always = ALWAYS.iter().map(|&(kind, major, minor, access)| DeviceRule {
            allow: true,
            kind,
            major,
            minor,
            access,
        });
        for rule in rules.iter().copied().chain(always) {
            policy.add(rule);
        }
        policy
    }

    fn add(&mut self, rule: DeviceRule) {
        let everything = (rule.kind, rule.major, rule.minor) == (None, None, None);
        if everything && rule.access == DeviceAccess::ALL {
            *self = Self { allow: rule.allow, exceptions: Vec::new() };
            return;
        }
        let both = [DeviceClass::Block, DeviceClass::Char];
        for class in both.into_iter().filter(|class| rule.kind.is_none_or(|kind| kind == *class)) {
            let DeviceRule { major, minor, access, .. } = rule;
            self.except(Exception { class, major, minor, access }, rule.allow != self.allow);
        }
    }

    /// Adds an exception to one about the same devices, or takes it out of that.
    fn except(&mut self, new: Exception, add: bool) {
        match self.exceptions.iter_mut().find(|old| old.is_about(&new)) {
            Some(old) if add => old.access = old.access.with(new.access),
            Some(old) => old.access = old.access.without(new.access),
            None if add => self.exceptions.push(new),
            None => {}
        }
        self.exceptions.retain(|one| !one.access.is_empty());
    }

    /// The lines for cgroup v1, each for the file `devices.allow` or `devices.deny`, in order.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let (all, other) = if self.allow {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        let mut lines = vec![(all, "a".to_owned())];
        for one in &self.exceptions {
            let class = if one.class == DeviceClass::Block { 'b' } else { 'c' };
            let mut line = format!("{class} ");
            for (number, end) in [(one.major, ':'), (one.minor, ' ')] {
                // Writing to a string cannot fail.
                let _ = match number {
                    Some(number) => write!(line, "{number}{end}"),
                    None => write!(line, "*{end}"),
                };
            }
            lines.push((other, line + &one.access.to_string()));
        }
        lines
    }

    /// The program for cgroup v2, of type `BPF_PROG_TYPE_CGROUP_DEVICE`: one instruction a number, in
    /// the layout of `struct bpf_insn`.
    #[must_use]
    pub fn program(&self) -> Vec<u64> {
        let mut code = vec![
            bpf::load_word(bpf::CLASS, bpf::CONTEXT, 0),
            bpf::copy(bpf::ACCESS, bpf::CLASS),
            bpf::and(bpf::CLASS, 0xffff),
            bpf::shift_right(bpf::ACCESS, 16),
            bpf::load_word(bpf::MAJOR, bpf::CONTEXT, 4),
            bpf::load_word(bpf::MINOR, bpf::CONTEXT, 8),
        ];
        for one in &self.exceptions {
            self.check(one, &mut code);
        }
        code.extend(bpf::answer(self.allow));
        code
    }

    /// An exception that allows must cover all that is asked for; one that forbids, any of it.
    fn check(&self, one: &Exception, code: &mut Vec<u64>) {
        let (mask, unless) = if self.allow {
            (one.access.bits(), bpf::Jump::Zero)
        } else {
            (DeviceAccess::ALL.without(one.access).bits(), bpf::Jump::NotZero)
        };
        let numbers = [(bpf::MAJOR, one.major), (bpf::MINOR, one.minor)];
        let numbers = numbers.iter().filter_map(|(register, number)| Some((*register, (*number)?)));
        let mut tests = vec![(bpf::CLASS, one.class as u32)];
        tests.extend(numbers);
        let answer = bpf::answer(!self.allow);
        // Past the tests that are left, the three instructions for the access, and the answer.
        let mut left = tests.len() + 3 + answer.len();
        for (register, value) in tests {
            left -= 1;
            code.push(bpf::jump(bpf::Jump::NotEqual(value), register, left));
        }
        code.push(bpf::copy(bpf::RESULT, bpf::ACCESS));
        code.push(bpf::and(bpf::RESULT, mask));
        code.push(bpf::jump(unless, bpf::RESULT, answer.len()));
        code.extend(answer);
    }
}

/// The few instructions that are needed; codes of `linux/bpf.h` and `linux/bpf_common.h`.
mod bpf {
    /// `r0`: what is answered.
    pub(super) const RESULT: u8 = 0;
    /// `r1`: where the question is, when the program begins.
    pub(super) const CONTEXT: u8 = 1;
    pub(super) const CLASS: u8 = 2;
    pub(super) const ACCESS: u8 = 3;
    pub(super) const MAJOR: u8 = 4;
    pub(super) const MINOR: u8 = 5;

    /// When to jump.
    #[derive(Clone, Copy)]
    pub(super) enum Jump {
        Zero,
        NotZero,
        NotEqual(u32),
    }

    fn instruction(code: u8, to: u8, from: u8, offset: u16, operand: u32) -> u64 {
        u64::from(code)
            | u64::from(to & 0xf | from << 4) << 8
            | u64::from(offset) << 16
            | u64::from(operand) << 32
    }

    /// `BPF_LDX | BPF_W | BPF_MEM`.
    pub(super) fn load_word(to: u8, from: u8, offset: u16) -> u64 {
        instruction(0x61, to, from, offset, 0)
    }

    /// `BPF_ALU | BPF_MOV | BPF_X`, of 32 bits as all others here.
    pub(super) fn copy(to: u8, from: u8) -> u64 {
        instruction(0xbc, to, from, 0, 0)
    }

    /// `BPF_ALU | BPF_AND | BPF_K`.
    pub(super) fn and(register: u8, mask: u32) -> u64 {
        instruction(0x54, register, 0, 0, mask)
    }

    /// `BPF_ALU | BPF_RSH | BPF_K`.
    pub(super) fn shift_right(register: u8, bits: u32) -> u64 {
        instruction(0x74, register, 0, 0, bits)
    }

    /// `BPF_JMP32 | BPF_JEQ` or `BPF_JNE`, with `BPF_K`; over `count` instructions.
    pub(super) fn jump(when: Jump, register: u8, count: usize) -> u64 {
        let (code, operand) = match when {
            Jump::Zero => (0x16, 0),
            Jump::NotZero => (0x56, 0),
            Jump::NotEqual(value) => (0x56, value),
        };
        // At most a dozen.
        instruction(code, register, 0, count as u16, operand)
    }

    /// `BPF_ALU | BPF_MOV | BPF_K` and `BPF_JMP | BPF_EXIT`.
    pub(super) fn answer(allow: bool) -> [u64; 2] {
        [instruction(0xb4, RESULT, 0, 0, allow.into()), instruction(0x95, 0, 0, 0, 0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: char, numbers: [i64; 2], access: DeviceAccess) -> DeviceRule {
        let kind = match kind {
            'b' => Some(DeviceClass::Block),
            'c' => Some(DeviceClass::Char),
            _ => None,
        };
        let [major, minor] = numbers.map(|number| u32::try_from(number).ok());
        DeviceRule { allow, kind, major, minor, access }
    }

    /// Runs a program as the kernel would; panics on an instruction that it should not have.
    fn run(code: &[u64], class: DeviceClass, number: (u32, u32), access: DeviceAccess) -> bool {
        let context = [access.bits() << 16 | class as u32, number.0, number.1];
        let mut registers = [0_u32; 6];
        let mut at = 0;
        loop {
            let word = code[at];
            let (to, from) = ((word >> 8 & 0xf) as usize, (word >> 12 & 0xf) as usize);
            let (offset, operand) = ((word >> 16) as u16 as usize, (word >> 32) as u32);
            at += 1;
            match word as u8 {
                0x61 => registers[to] = context[offset / 4],
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = operand,
                0x54 => registers[to] &= operand,
                0x74 => registers[to] >>= operand,
                0x16 if registers[to] == operand => at += offset,
                0x56 if registers[to] != operand => at += offset,
                0x16 | 0x56 => {}
                0x95 => return registers[0] != 0,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const R: DeviceAccess = DeviceAccess::READ;
    const W: DeviceAccess = DeviceAccess::WRITE;
    const ALL: DeviceAccess = DeviceAccess::ALL;

    #[test]
    fn dockers_rules_allow_what_they_name_and_the_usual() {
        let policy = DevicePolicy::new(&[
            rule(false, 'a', [-1, -1], ALL),
            rule(true, 'c', [10, 229], R.with(W)),
        ]);
        let lines = policy.lines();
        assert_eq!(lines[0], ("devices.deny", "a".to_owned()));
        assert_eq!(lines[1], ("devices.allow", "c 10:229 rw".to_owned()));
        assert!(lines.contains(&("devices.allow", "b *:* m".to_owned())));
        assert!(lines.contains(&("devices.allow", "c 136:* rwm".to_owned())));
        let code = policy.program();
        let may = |class, number, access| run(&code, class, number, access);
        use DeviceClass::{Block, Char};
        assert!(may(Char, (10, 229), R) && may(Char, (10, 229), R.with(W)));
        assert!(may(Char, (1, 3), ALL) && may(Char, (136, 77), R));
        assert!(may(Block, (8, 0), DeviceAccess::MKNOD));
        assert!(!may(Block, (8, 0), R) && !may(Char, (10, 228), R) && !may(Char, (1, 1), W));
        // The one allows to make it and the other to read it, but none both at once.
        assert!(!may(Char, (10, 229), ALL));
    }

    #[test]
    fn a_privileged_container_may_use_all_but_what_it_is_denied() {
        let everything = DevicePolicy::new(&[rule(true, 'a', [-1, -1], ALL)]);
        assert_eq!(everything.lines(), [("devices.allow", "a".to_owned())]);
        assert!(run(&everything.program(), DeviceClass::Block, (8, 0), ALL));
        let but = DevicePolicy::new(&[
            rule(true, 'a', [-1, -1], ALL),
            rule(false, 'b', [8, -1], W),
            rule(false, 'c', [1, 1], ALL),
            rule(true, 'c', [1, 1], R),
        ]);
        let code = but.program();
        assert!(run(&code, DeviceClass::Block, (8, 3), R));
        assert!(!run(&code, DeviceClass::Block, (8, 3), R.with(W)));
        assert!(run(&code, DeviceClass::Char, (1, 1), R));
        assert!(!run(&code, DeviceClass::Char, (1, 1), W));
    }

    #[test]
    fn without_rules_only_the_usual_devices_are_left() {
        let policy = DevicePolicy::new(&[]);
        assert_eq!(policy.lines().len(), 1 + ALWAYS.len());
        assert!(!run(&policy.program(), DeviceClass::Char, (10, 229), R));
        assert!(run(&policy.program(), DeviceClass::Char, (5, 2), R.with(W)));
    }
}
