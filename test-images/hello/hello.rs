//! The smallest useful program: one line on stdout, exit code 0.

fn main() {
    println!("hello from Rust");
}
