//! Which features a refused module needs: a refusal names what would have to be switched on.

use wasmparser::{Validator, WasmFeatures};

use super::DecodeError;
use crate::config::Features;

/// An error in other words, if the module is only invalid because features are off.
///
/// Costs a validation of the whole module, and one more for each feature that is off if some of
/// them are all it lacks.
pub(crate) fn name_missing(error: DecodeError, bytes: &[u8], features: Features) -> DecodeError {
    let DecodeError::Invalid { offset, message } = error else { return error };
    let missing = missing(bytes, features);
    if missing.is_empty() {
        return DecodeError::Invalid { offset, message };
    }
    DecodeError::FeatureOff { features: missing.join("`, `"), offset, message }
}

/// The proposals beyond the first version that a binary module uses, by name and in the order of
/// [`Features`]; none if it is not valid with all of them. Of two that would each do, one is named.
///
/// It costs a validation of the whole module for each feature of the list.
///
/// ```
/// use coracle_engine::module::decode::needed_features;
/// let module = wat::parse_str("(module (memory 1 1 shared) (func (param i64 v128)))")?;
/// assert_eq!(needed_features(&module), ["threads", "simd"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn needed_features(bytes: &[u8]) -> Vec<&'static str> {
    missing(bytes, Features::none())
}

/// The features, by name, without which the module is not valid; none if it is not with all of them.
fn missing(bytes: &[u8], features: Features) -> Vec<&'static str> {
    let is_valid =
        |flags: WasmFeatures| Validator::new_with_features(flags).validate_all(bytes).is_ok();
    let mut on = Features::all().to_wasmparser();
    if !is_valid(on) {
        return Vec::new();
    }
    let mut missing = Vec::new();
    for (name, flag) in features.off() {
        // What the module does not need stays off, so that of two that would each do one is named.
        if is_valid(on.difference(flag)) {
            on.remove(flag);
        } else {
            missing.push(name);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(wat: &str, features: Features) -> String {
        let bytes = wat::parse_str(wat).unwrap();
        let found = DecodeError::Invalid { offset: 7, message: "why".into() };
        name_missing(found, &bytes, features).to_string()
    }

    #[test]
    fn features_that_are_off_are_named() {
        let off =
            Features { simd: false, relaxed_simd: false, threads: false, ..Features::default() };
        let simd = "(module (func (param v128)))";
        assert_eq!(
            refusal(simd, off),
            "module needs the feature `simd`, which is off: why (at byte offset 0x7)"
        );
        let both = "(module (memory 1 1 shared) (func (param v128)))";
        assert!(refusal(both, off).contains("`threads`, `simd`"), "{}", refusal(both, off));
        let invalid = "(module (func (result i32)))";
        assert_eq!(refusal(invalid, off), "invalid module at byte offset 0x7: why");
    }

    #[test]
    fn of_two_features_that_would_do_one_is_named() {
        let off = Features { function_references: false, gc: false, ..Features::default() };
        let found = refusal("(module (type $t (func)) (func (param (ref $t))))", off);
        assert!(found.contains("the feature `gc`") || found.contains("`function-references`"));
        assert!(!found.contains("`, `"), "{found}");
    }
}
