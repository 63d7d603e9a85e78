//! The engine's trap kinds as the code generator's trap codes: the one place that knows both.

use cranelift_codegen::ir::TrapCode;

use crate::abi::trap::TrapKind;

/// The code generator has its own codes for what its instructions raise; all others are ours.
pub(super) const fn trap_code(kind: TrapKind) -> TrapCode {
    match kind {
        TrapKind::StackOverflow => TrapCode::STACK_OVERFLOW,
        TrapKind::MemoryOutOfBounds => TrapCode::HEAP_OUT_OF_BOUNDS,
        TrapKind::IntegerOverflow => TrapCode::INTEGER_OVERFLOW,
        TrapKind::IntegerDivideByZero => TrapCode::INTEGER_DIVISION_BY_ZERO,
        TrapKind::InvalidConversionToInteger => TrapCode::BAD_CONVERSION_TO_INTEGER,
        other => TrapCode::unwrap_user(other as u8),
    }
}

/// The way back; `None` for a code that [`trap_code`] never gives.
pub(super) fn trap_kind(code: TrapCode) -> Option<TrapKind> {
    TrapKind::ALL.iter().copied().find(|&kind| trap_code(kind) == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_code_of_its_own() {
        for &kind in TrapKind::ALL {
            assert_eq!(trap_kind(trap_code(kind)), Some(kind));
        }
        for &code in TrapCode::non_user_traps() {
            assert!(trap_kind(code).is_some(), "{code} has no kind");
        }
    }
}
