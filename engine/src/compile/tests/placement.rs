//! Where loops lie within lines of the instruction cache.

use super::image_of;
use crate::image::{CodeImage, Section};

/// Checks `holds` of where the last loop begins and ends, with the loop moved through every place that code
/// before it can give it.
fn wherever_it_comes(body: &str, holds: impl Fn(usize, usize) -> bool) {
    for before in 0..24 {
        let divide = |n| format!("(drop (i32.div_u (i32.const {n}) (local.get 0)))");
        let work: String = (0..before).map(divide).collect();
        let wat = format!(
            "(module (memory 1) (func (param i32) {work}
                (block $out (loop $l {body}
                    (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))))"
        );
        let blob = image_of(&wat);
        let image = CodeImage::new(&blob).unwrap();
        let code = image.func(0).unwrap();
        let text = image.section(Section::Text);
        let start = code.start as usize;
        // The one jump backwards: its target and its end.
        let bytes = &text[start..code.end as usize];
        let (from, to) = backward_jump(bytes);
        assert!(holds(start + to, start + from), "{before}: {to}..{from} at {start}");
    }
}

#[test]
fn a_short_loop_does_not_cross_a_line_of_the_cache() {
    let body = "(i32.store8 (local.get 0) (i32.const 1))";
    wherever_it_comes(body, |start, end| end - start <= 64 && start / 64 == (end - 1) / 64);
}

#[test]
fn a_short_block_of_a_long_loop_does_not_cross_a_line_of_the_cache() {
    // A comparison and a jump, nine bytes, in front of many.
    let leave = "(br_if $out (i32.eq (local.get 0) (i32.const 7)))";
    let store = |n| format!("(i32.store offset={n} (local.get 0) (i32.const 123456789))");
    let body = leave.to_owned() + &(0..40).map(store).collect::<String>();
    wherever_it_comes(&body, |start, end| end - start > 256 && start / 64 == (start + 8) / 64);
}

/// The end of the last conditional jump backwards, and its target.
fn backward_jump(code: &[u8]) -> (usize, usize) {
    (0..code.len() - 5)
        .rev()
        .filter(|&at| code[at] == 0x0f && code[at + 1] & 0xf0 == 0x80)
        .find_map(|at| {
            let distance = i32::from_le_bytes(code[at + 2..at + 6].try_into().ok()?);
            let to = (at + 6).checked_add_signed(distance as isize)?;
            (distance < 0).then_some((at + 6, to))
        })
        .unwrap()
}
