//! Prints the arguments in order and the environment sorted by bytes.

fn main() {
    for (i, arg) in std::env::args().enumerate() {
        println!("arg {i}: {arg}");
    }
    let mut env: Vec<String> = std::env::vars().map(|(key, value)| format!("{key}={value}")).collect();
    env.sort();
    for pair in env {
        println!("env {pair}");
    }
}
