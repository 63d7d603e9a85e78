//! Traps in the way named by the first argument ("panic" without one), below functions with
//! mangled names: trap::main, trap::outer, trap::middle. A Rust panic ends in `unreachable`.

use std::hint::black_box;

#[allow(unconditional_recursion, reason = "a stack overflow is what it is for")]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    recurse(black_box(depth + 1)) + 1
}

#[inline(never)]
fn middle(way: &str) -> u64 {
    let index = black_box(7);
    match way {
        "panic" => panic!("asked to panic"),
        "divide" => 1 / black_box(0),
        "index" => [1, 2, 3][index],
        "stack" => recurse(0),
        "abort" => std::process::abort(),
        // SAFETY: not safe at all, which is the point: the address is past the linear memory.
        "memory" => unsafe { std::ptr::read_volatile(black_box(0xffff_fff0_usize) as *const u64) },
        _ => {
            eprintln!("trap: unknown way: {way}");
            std::process::exit(125)
        }
    }
}

#[inline(never)]
fn outer(way: &str) -> u64 {
    middle(way) + 1
}

fn main() {
    let way = std::env::args().nth(1).unwrap_or_else(|| "panic".into());
    println!("about to trap: {way}");
    println!("still alive: {}", outer(&way));
}
