//! Exits with the number given as the first argument, 42 without one.

fn main() {
    let code = match std::env::args().nth(1).map(|arg| arg.parse()) {
        None => 42,
        Some(Ok(code)) => code,
        Some(Err(error)) => {
            eprintln!("exit-code: {error}");
            125
        }
    };
    std::process::exit(code);
}
