//! Seccomp profiles of the spec become programs for the kernel.
//!
//! seccompiler's filters have one action for what matches and one for the rest. A profile has many, so
//! it becomes several filters, of which the kernel takes the strictest answer: the first allows whatever
//! has a rule, with the profile's default for the rest; then one for each other action. Of two answers
//! with errors the kernel takes that of the filter installed last, so errors of rules win over the
//! default's.

use std::collections::BTreeMap;
use std::str::FromStr;

use coracle_oci::spec::{Seccomp, SeccompAction, SeccompCompare, SeccompCondition, SeccompRule};
use seccompiler::{BackendError, BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompFilter};
use serde::{Deserialize, Serialize};
use syscalls::Sysno;

use super::runner::{Act, Failure};
use super::{GuestError, sys};

/// On x86-64, calls from this number on are those of the x32 ABI, each of which has a twin below: a
/// filter that names what it forbids would not know them.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Filter {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(super) flags: u64,
    /// The program.
    pub(super) program: Vec<Instruction>,
}

/// One instruction, `struct sock_filter` of `linux/filter.h`: code, jump if true, jump if false, operand.
pub(super) type Instruction = (u16, u8, u8, u32);

/// The filters of a profile, in the order in which they must be installed.
///
/// Names that this architecture does not have are passed over, as under runc. A program of another ABI
/// (32 bits) is killed at its first call.
///
/// # Errors
/// When a filter gets too large.
pub(super) fn compile(profile: &Seccomp) -> Result<Vec<Filter>, GuestError> {
    let mut flags = 0;
    if profile.log {
        flags |= libc::SECCOMP_FILTER_FLAG_LOG;
    }
    if profile.speculation {
        flags |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    }
    let mut filters = Vec::new();
    let mut add = |rules: Chains, mismatch, matched| -> Result<(), GuestError> {
        let program = assemble(rules, mismatch, matched)?;
        let program = program.iter().map(|one| (one.code, one.jt, one.jf, one.k)).collect();
        filters.push(Filter { flags, program });
        Ok(())
    };
    let lenient = matches!(profile.default, SeccompAction::Allow);
    if !lenient {
        let all = chains(profile.rules.iter());
        add(all, profile.default, SeccompAction::Allow)?;
    }
    let mut actions: Vec<_> = profile.rules.iter().map(|rule| rule.action).collect();
    actions.sort_unstable();
    actions.dedup();
    for action in actions.into_iter().filter(|action| *action != SeccompAction::Allow) {
        let rules = chains(profile.rules.iter().filter(|rule| rule.action == action));
        if !rules.is_empty() {
            add(rules, SeccompAction::Allow, action)?;
        }
    }
    #[cfg(target_arch = "x86_64")]
    if matches!(profile.default, SeccompAction::Allow | SeccompAction::Log) && !filters.is_empty() {
        filters.push(Filter { flags, program: no_x32().to_vec() });
    }
    Ok(filters)
}

/// Installs filters in this order, for this process and all that it becomes and makes.
pub(super) fn install(filters: &[Filter]) -> Result<(), Failure> {
    for filter in filters {
        let one = |&(code, jt, jf, k): &Instruction| libc::sock_filter { code, jt, jf, k };
        let program: Vec<_> = filter.program.iter().map(one).collect();
        sys::kernel::seccomp(&program, filter.flags)
            .act("install", "the filter of system calls in linux.seccomp")?;
    }
    Ok(())
}

/// Makes calls of the x32 ABI fail with `ENOSYS`.
#[cfg(target_arch = "x86_64")]
fn no_x32() -> [Instruction; 4] {
    let (load, at_least, give) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    // The number of the call is the first word of `struct seccomp_data`.
    [
        (load as u16, 0, 0, 0),
        (at_least as u16, 0, 1, X32),
        (give as u16, 0, 0, refuse),
        (give as u16, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// For each call the conditions of which one must hold; an empty list is none.
type Chains = BTreeMap<i64, Vec<Vec<SeccompCondition>>>;

fn chains<'r>(rules: impl Iterator<Item = &'r SeccompRule>) -> Chains {
    let mut all = Chains::new();
    for rule in rules {
        let known = rule.names.iter().filter_map(|name| Sysno::from_str(name).ok());
        for number in known.map(|call| i64::from(call.id())) {
            let before = all.get(&number).map(Vec::is_empty);
            let chain = all.entry(number).or_default();
            match before {
                // One rule without conditions makes those of others idle.
                Some(true) => {}
                _ if rule.any.is_empty() => chain.clear(),
                _ => chain.extend(rule.any.iter().cloned()),
            }
        }
    }
    all
}

fn assemble(
    rules: Chains,
    mismatch: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, GuestError> {
    let compile = || -> Result<BpfProgram, BackendError> {
        let mut compiled = BTreeMap::new();
        for (number, chain) in rules {
            let chain = chain.into_iter().map(|all| {
                let all = all.into_iter().map(condition).collect::<Result<_, _>>()?;
                seccompiler::SeccompRule::new(all)
            });
            compiled.insert(number, chain.collect::<Result<Vec<_>, _>>()?);
        }
        let architecture = std::env::consts::ARCH.try_into()?;
        SeccompFilter::new(compiled, action(mismatch), action(matched), architecture)?.try_into()
    };
    compile().map_err(|error| GuestError::Spec {
        what: "the filter of system calls in linux.seccomp".to_owned(),
        why: format!("cannot be made: {error}"),
    })
}

fn condition(condition: SeccompCondition) -> Result<seccompiler::SeccompCondition, BackendError> {
    let how = match condition.how {
        SeccompCompare::Ne => SeccompCmpOp::Ne,
        SeccompCompare::Lt => SeccompCmpOp::Lt,
        SeccompCompare::Le => SeccompCmpOp::Le,
        SeccompCompare::Eq => SeccompCmpOp::Eq,
        SeccompCompare::Ge => SeccompCmpOp::Ge,
        SeccompCompare::Gt => SeccompCmpOp::Gt,
        SeccompCompare::Masked(mask) => SeccompCmpOp::MaskedEq(mask),
    };
    let SeccompCondition { argument, value, .. } = condition;
    seccompiler::SeccompCondition::new(argument, SeccompCmpArgLen::Qword, how, value)
}

fn action(action: SeccompAction) -> seccompiler::SeccompAction {
    use seccompiler::SeccompAction as S;
    match action {
        SeccompAction::KillProcess => S::KillProcess,
        SeccompAction::KillThread => S::KillThread,
        SeccompAction::Trap => S::Trap,
        SeccompAction::Errno(number) => S::Errno(number.into()),
        SeccompAction::Trace(number) => S::Trace(number.into()),
        SeccompAction::Log => S::Log,
        SeccompAction::Allow => S::Allow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_oci::spec::{SeccompCompare as C, SeccompCondition as Condition};

    use crate::guest::sys::kernel::raw;

    fn rule(names: &[&str], action: SeccompAction, any: Vec<Vec<Condition>>) -> SeccompRule {
        SeccompRule { names: names.iter().map(|name| (*name).to_owned()).collect(), action, any }
    }

    /// Installs a profile in a thread of its own and makes calls there.
    fn under(profile: &Seccomp, calls: &[(i64, [u64; 6])]) -> Vec<i64> {
        let filters = compile(profile).unwrap();
        let work = move || {
            install(&filters).unwrap();
            calls.iter().map(|(call, arguments)| raw(*call, *arguments)).collect()
        };
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    fn profile(default: SeccompAction, rules: Vec<SeccompRule>) -> Seccomp {
        Seccomp { default, rules, log: false, speculation: false }
    }

    #[test]
    fn of_several_actions_the_kernel_takes_the_right_one() {
        let is = |value| vec![vec![Condition { argument: 0, how: C::Eq, value }]];
        let any = Vec::new;
        let lenient = profile(
            SeccompAction::Allow,
            vec![
                rule(&["getppid", "no_such_call"], SeccompAction::Errno(71), any()),
                rule(&["umask"], SeccompAction::Errno(72), is(0o22)),
                rule(&["getuid"], SeccompAction::Log, any()),
            ],
        );
        let calls = [
            (libc::SYS_getppid, [0; 6]),
            (libc::SYS_umask, [0o22, 0, 0, 0, 0, 0]),
            (libc::SYS_getuid, [0; 6]),
            #[cfg(target_arch = "x86_64")]
            (i64::from(X32) | libc::SYS_getppid, [0; 6]),
        ];
        let got = under(&lenient, &calls);
        assert_eq!(got[..3], [-71, -72, 0]);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(got[3], -i64::from(libc::ENOSYS));
    }

    #[test]
    fn what_no_rule_names_has_the_default() {
        // Whatever the test itself needs, but for what is looked at.
        let names = Sysno::iter().map(|call| call.name());
        let looked_at = ["getppid", "getpgid", "personality", "umask", "getsid"];
        let needed: Vec<&str> = names.filter(|name| !looked_at.contains(name)).collect();
        let one = |how, value| Condition { argument: 0, how, value };
        let strict = profile(
            SeccompAction::Errno(70),
            vec![
                rule(&needed, SeccompAction::Allow, Vec::new()),
                rule(&["personality"], SeccompAction::Allow, vec![vec![one(C::Eq, 0xffff_ffff)]]),
                rule(&["getpgid"], SeccompAction::Errno(73), Vec::new()),
                rule(&["getsid"], SeccompAction::Allow, vec![vec![one(C::Masked(0xf0), 0)]]),
                rule(
                    &["umask"],
                    SeccompAction::Allow,
                    vec![vec![one(C::Gt, 5)], vec![one(C::Eq, 1)]],
                ),
            ],
        );
        let with = |value| [value, 0, 0, 0, 0, 0];
        let got = under(
            &strict,
            &[
                (libc::SYS_getppid, [0; 6]),
                (libc::SYS_getpgid, [0; 6]),
                (libc::SYS_personality, with(0)),
                (libc::SYS_personality, with(0xffff_ffff)),
                (libc::SYS_getsid, with(0x10)),
                (libc::SYS_umask, with(2)),
            ],
        );
        assert_eq!(got[..3], [-70, -73, -70]);
        assert!(got[3] >= 0);
        assert_eq!(got[4..], [-70, -70]);
        let umask = |value| under(&strict, &[(libc::SYS_umask, with(value))])[0];
        assert!(umask(0o22) >= 0);
    }

    #[test]
    fn profiles_of_all_calls_fit_and_two_errors_do_not_mix() {
        let names: Vec<&str> = Sysno::iter().map(|call| call.name()).collect();
        let all =
            profile(SeccompAction::Errno(1), vec![rule(&names, SeccompAction::Allow, Vec::new())]);
        let filters = compile(&all).unwrap();
        assert_eq!(filters.len(), 1);
        assert!(filters[0].program.len() < 4096);
        let flags = Seccomp { log: true, speculation: true, ..all };
        assert_eq!(compile(&flags).unwrap()[0].flags, 6);
    }
}
