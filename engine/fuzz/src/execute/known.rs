//! Faults of the oracles that are known: what they get wrong is not compared with them.

use wasmparser::{Operator, Parser, Payload};

/// Whether wasmi 2.0.0 computes something wrong in a module: it takes the operands of a `select` for
/// each other when the condition is an `i32.eqz`, or an `i32.eq` with 0, right before it.
pub(super) fn wasmi_is_wrong(wasm: &[u8]) -> bool {
    Parser::new(0).parse_all(wasm).any(|payload| match payload {
        Ok(Payload::CodeSectionEntry(body)) => {
            let Ok(operators) = body.get_operators_reader() else { return false };
            let mut inverted = false;
            operators.into_iter().flatten().any(|operator| {
                let selects = matches!(operator, Operator::Select | Operator::TypedSelect { .. });
                let wrong = inverted && selects;
                inverted = matches!(operator, Operator::I32Eqz | Operator::I32Eq);
                wrong
            })
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::wasmi_is_wrong;

    fn with(body: &str) -> Vec<u8> {
        wat::parse_str(format!("(module (func (param i32) (result i32) {body}))")).unwrap()
    }

    #[test]
    fn only_a_select_right_behind_is_left_out() {
        let select = |condition| format!("(select (i32.const 1) (i32.const 7) {condition})");
        assert!(wasmi_is_wrong(&with(&select("(i32.eqz (local.get 0))"))));
        assert!(wasmi_is_wrong(&with(&select("(i32.eq (local.get 0) (i32.const 0))"))));
        assert!(!wasmi_is_wrong(&with(&select("(i32.ne (local.get 0) (i32.const 0))"))));
        assert!(!wasmi_is_wrong(&with("(i32.eqz (local.get 0))")));
    }
}
