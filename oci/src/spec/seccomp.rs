//! The system call filter of the spec, checked.
//!
//! Source: OCI runtime spec, `config-linux.md`, section "Seccomp"; seccomp(2). Where several rules name
//! a call, the strictest action counts, as it does for several filters in the kernel.

use oci_spec::runtime as json;

use super::check;
use crate::error::SpecError;

/// The number of an error that the kernel would cut off; `MAX_ERRNO` of `linux/err.h`.
const LARGEST_ERRNO: u32 = 4095;
/// `EPERM`, the error of `SCMP_ACT_ERRNO` where none is given.
const EPERM: u32 = 1;
/// Arguments of a system call.
const ARGUMENTS: usize = 6;

/// A filter of system calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seccomp {
    /// What happens to a call that no rule names.
    pub default: SeccompAction,
    /// The rules, as written. One whose action is the default one is left out.
    pub rules: Vec<SeccompRule>,
    /// Whether what is not allowed is logged.
    pub log: bool,
    /// Whether the mitigation of speculative store bypass is left off.
    pub speculation: bool,
}

/// What happens to a system call; a later one is less strict than an earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeccompAction {
    /// The process is killed.
    KillProcess,
    /// The thread is killed.
    KillThread,
    /// SIGSYS is sent.
    Trap,
    /// The call fails with this error number.
    Errno(u16),
    /// A tracer is told, with this message; without one the call fails with `ENOSYS`.
    Trace(u16),
    /// It is logged and done.
    Log,
    /// It is done.
    Allow,
}

/// What happens to some system calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompRule {
    /// Their names. The kernel or this architecture may lack some.
    pub names: Vec<String>,
    /// What happens to them.
    pub action: SeccompAction,
    /// Conditions on arguments: one of these lists must hold as a whole. None is no condition.
    pub any: Vec<Vec<SeccompCondition>>,
}

/// A condition on an argument of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeccompCondition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// How it is compared; numbers are compared without a sign.
    pub how: SeccompCompare,
    /// With what.
    pub value: u64,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeccompCompare {
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Equal.
    Eq,
    /// Greater or equal.
    Ge,
    /// Greater.
    Gt,
    /// The argument's bits in this mask are equal to the value's.
    Masked(u64),
}

impl SeccompCondition {
    /// Whether an argument fulfils it.
    #[must_use]
    pub fn holds(&self, arguments: &[u64; ARGUMENTS]) -> bool {
        let argument = arguments.get(usize::from(self.argument)).copied().unwrap_or_default();
        match self.how {
            SeccompCompare::Ne => argument != self.value,
            SeccompCompare::Lt => argument < self.value,
            SeccompCompare::Le => argument <= self.value,
            SeccompCompare::Eq => argument == self.value,
            SeccompCompare::Ge => argument >= self.value,
            SeccompCompare::Gt => argument > self.value,
            SeccompCompare::Masked(mask) => argument & mask == self.value & mask,
        }
    }
}

impl SeccompRule {
    /// Whether it applies to a call of one of its names with these arguments.
    #[must_use]
    pub fn applies(&self, arguments: &[u64; ARGUMENTS]) -> bool {
        let all = |list: &Vec<SeccompCondition>| list.iter().all(|one| one.holds(arguments));
        self.any.is_empty() || self.any.iter().any(all)
    }
}

impl Seccomp {
    pub(super) fn parse(seccomp: &json::LinuxSeccomp) -> Result<Self, SpecError> {
        let default = action(seccomp.default_action(), seccomp.default_errno_ret())?;
        let mut rules = Vec::new();
        for call in seccomp.syscalls().iter().flatten() {
            let action = action(call.action(), call.errno_ret())?;
            let conditions = call.args().iter().flatten();
            let any = alternatives(conditions.map(condition).collect::<Result<_, _>>()?);
            if action != default {
                rules.push(SeccompRule { names: call.names().clone(), action, any });
            }
        }
        let has = |flag| seccomp.flags().iter().flatten().any(|one| *one == flag);
        use json::LinuxSeccompFilterFlag as F;
        Ok(Self {
            default,
            rules,
            log: has(F::SeccompFilterFlagLog),
            speculation: has(F::SeccompFilterFlagSpecAllow),
        })
    }
}

fn action(
    action: json::LinuxSeccompAction,
    number: Option<u32>,
) -> Result<SeccompAction, SpecError> {
    use json::LinuxSeccompAction as A;
    let number = number.unwrap_or(EPERM);
    let data = |limit| match u16::try_from(number) {
        Ok(number) if u32::from(number) <= limit => Ok(number),
        _ => Err(check::value("linux.seccomp errnoRet", number, "use a number from 0 to 4095")),
    };
    Ok(match action {
        A::ScmpActKill | A::ScmpActKillThread => SeccompAction::KillThread,
        A::ScmpActKillProcess => SeccompAction::KillProcess,
        A::ScmpActTrap => SeccompAction::Trap,
        A::ScmpActErrno => SeccompAction::Errno(data(LARGEST_ERRNO)?),
        A::ScmpActTrace => SeccompAction::Trace(data(u16::MAX.into())?),
        A::ScmpActLog => SeccompAction::Log,
        A::ScmpActAllow => SeccompAction::Allow,
        A::ScmpActNotify => {
            let problem = "this runtime has no agent to ask; use another action";
            return Err(check::value("linux.seccomp", "SCMP_ACT_NOTIFY", problem));
        }
    })
}

fn condition(arg: &json::LinuxSeccompArg) -> Result<SeccompCondition, SpecError> {
    use json::LinuxSeccompOperator as O;
    let argument = match u8::try_from(arg.index()) {
        Ok(argument) if usize::from(argument) < ARGUMENTS => argument,
        _ => {
            let problem = "a system call has the arguments 0 to 5";
            return Err(check::value("linux.seccomp.syscalls.args.index", arg.index(), problem));
        }
    };
    let how = match arg.op() {
        O::ScmpCmpNe => SeccompCompare::Ne,
        O::ScmpCmpLt => SeccompCompare::Lt,
        O::ScmpCmpLe => SeccompCompare::Le,
        O::ScmpCmpEq => SeccompCompare::Eq,
        O::ScmpCmpGe => SeccompCompare::Ge,
        O::ScmpCmpGt => SeccompCompare::Gt,
        // The mask comes first, then what the masked argument is compared with.
        O::ScmpCmpMaskedEq => {
            let value = arg.value_two().unwrap_or_default();
            return Ok(SeccompCondition {
                argument,
                how: SeccompCompare::Masked(arg.value()),
                value,
            });
        }
    };
    Ok(SeccompCondition { argument, how, value: arg.value() })
}

/// All conditions must hold; but where two are about the same argument, one of all suffices, as runc
/// reads it.
fn alternatives(conditions: Vec<SeccompCondition>) -> Vec<Vec<SeccompCondition>> {
    let twice = |at: usize, one: &SeccompCondition| {
        conditions.iter().skip(at + 1).any(|other| other.argument == one.argument)
    };
    if conditions.is_empty() {
        Vec::new()
    } else if conditions.iter().enumerate().any(|(at, one)| twice(at, one)) {
        conditions.into_iter().map(|one| vec![one]).collect()
    } else {
        vec![conditions]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: serde_json::Value) -> Result<Seccomp, String> {
        let parsed: json::LinuxSeccomp =
            serde_json::from_value(text).map_err(|error| error.to_string())?;
        Seccomp::parse(&parsed).map_err(|error| error.to_string())
    }

    fn rule(args: serde_json::Value) -> SeccompRule {
        let profile = serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": args }],
        });
        parse(profile).unwrap().rules.remove(0)
    }

    #[test]
    fn actions_have_their_numbers_and_equal_ones_are_left_out() {
        let profile = parse(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                { "names": ["read"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
                { "names": ["mount"], "action": "SCMP_ACT_ERRNO" },
            ],
        }))
        .unwrap();
        assert_eq!(profile.default, SeccompAction::Errno(38));
        assert!(profile.log && !profile.speculation);
        let actions: Vec<_> = profile.rules.iter().map(|rule| rule.action).collect();
        assert_eq!(actions, [SeccompAction::Allow, SeccompAction::Errno(1)]);
    }

    #[test]
    fn conditions_hold_as_libseccomp_reads_them() {
        let masked = rule(serde_json::json!([
            { "index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" },
        ]));
        assert!(masked.applies(&[0x11, 0, 0, 0, 0, 0]));
        assert!(!masked.applies(&[0x1000_0000, 0, 0, 0, 0, 0]));
        let both = rule(serde_json::json!([
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" },
            { "index": 1, "value": 5, "op": "SCMP_CMP_GT" },
        ]));
        assert!(both.applies(&[1, 6, 0, 0, 0, 0]) && !both.applies(&[1, 5, 0, 0, 0, 0]));
        let either = rule(serde_json::json!([
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" },
            { "index": 0, "value": 7, "op": "SCMP_CMP_GE" },
        ]));
        for (value, holds) in [(1, true), (2, false), (7, true), (u64::MAX, true)] {
            assert_eq!(either.applies(&[value, 0, 0, 0, 0, 0]), holds, "{value}");
        }
        assert!(rule(serde_json::json!([])).applies(&[9; 6]));
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        for (profile, word) in [
            (serde_json::json!({ "defaultAction": "SCMP_ACT_NOTIFY" }), "SCMP_ACT_NOTIFY"),
            (serde_json::json!({ "defaultAction": "SCMP_ACT_SMILE" }), "SCMP_ACT_SMILE"),
            (
                serde_json::json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096 }),
                "4096",
            ),
            (
                serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
                    "names": ["read"], "action": "SCMP_ACT_TRAP",
                    "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }],
                }] }),
                "arguments 0 to 5",
            ),
        ] {
            let error = parse(profile).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
