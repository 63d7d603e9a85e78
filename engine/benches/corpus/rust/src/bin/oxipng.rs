//! Optimises a picture made here: filters, palettes, deflate at several levels.

use std::io::Cursor;

const WIDTH: u32 = 480;
const HEIGHT: u32 = 360;

/// Gradients, circles and a little noise, in true colour.
fn picture() -> Vec<u8> {
    let mut state = 1u32;
    let mut pixels = Vec::new();
    for y in 0..HEIGHT as i32 {
        for x in 0..WIDTH as i32 {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
            let noise = (state >> 28) as i32 / 5;
            let circle = ((x - 240).pow(2) + (y - 180).pow(2)) / 900 % 5;
            pixels.extend([x / 2 + noise, y + circle * 3, (x + y) / 4].map(|c| c.min(255) as u8));
        }
    }
    pixels
}

fn main() {
    let level = std::env::args().nth(1).map_or(3, |n| n.parse().expect("a number"));
    let mut plain = Vec::new();
    let mut encoder = png::Encoder::new(Cursor::new(&mut plain), WIDTH, HEIGHT);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&picture()).expect("a picture");
    writer.finish().expect("an end");

    let small = oxipng::optimize_from_memory(&plain, &oxipng::Options::from_preset(level))
        .expect("the picture is sound");
    let sum =
        small.iter().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    println!("{} bytes, then {}, {sum:08x}", plain.len(), small.len());
}
