//! Where loops lie within lines of the instruction cache.

use super::image_of;
use crate::image::{CodeImage, Section};

#[test]
fn a_short_loop_does_not_cross_a_line_of_the_cache() {
    // The loop's body is moved through every place that code before it can give it.
    for before in 0..24 {
        let work = "(drop (i32.div_u (i32.const 7) (local.get 0)))".repeat(before);
        let wat = format!(
            "(module (memory 1) (func (param i32) {work}
                (loop $l
                    (i32.store8 (local.get 0) (i32.const 1))
                    (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"
        );
        let blob = image_of(&wat);
        let image = CodeImage::new(&blob).unwrap();
        let code = image.func(0).unwrap();
        let text = image.section(Section::Text);
        let start = code.start as usize;
        // The one jump backwards: its target and its end.
        let bytes = &text[start..code.end as usize];
        let (from, to) = backward_jump(bytes);
        assert_eq!((start + to) / 64, (start + from - 1) / 64, "{before}: {to}..{from} at {start}");
    }
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
