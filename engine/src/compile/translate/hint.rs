//! What translating an operator wants to know of the types of its operands, which only the
//! validator keeps.

use wasmparser::{FuncValidator, Operator, ValType, ValidatorResources};

/// What is known; nothing of most operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::compile) struct Hint {
    /// The reference that the operator traps on if it is null, or tests for null, never is.
    pub(super) never_null: bool,
    /// The type of the reference that the operator casts or tests.
    pub(super) operand: Option<ValType>,
}

impl Hint {
    /// Asks the validator, before it has seen the operator itself.
    pub(in crate::compile) fn new(
        op: &Operator<'_>,
        validator: &FuncValidator<ValidatorResources>,
    ) -> Hint {
        match op {
            Operator::CallRef { .. }
            | Operator::ReturnCallRef { .. }
            | Operator::RefAsNonNull
            | Operator::RefIsNull
            | Operator::BrOnNull { .. } => {
                let ty = validator.get_operand_type(0).flatten();
                let never_null = matches!(ty, Some(ValType::Ref(ty)) if !ty.is_nullable());
                Hint { never_null, operand: None }
            }
            Operator::RefTestNonNull { .. }
            | Operator::RefTestNullable { .. }
            | Operator::RefCastNonNull { .. }
            | Operator::RefCastNullable { .. } => {
                Hint { never_null: false, operand: validator.get_operand_type(0).flatten() }
            }
            _ => Hint::default(),
        }
    }
}
