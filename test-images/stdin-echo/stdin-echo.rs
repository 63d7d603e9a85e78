//! Copies stdin to stdout until end of file, then says on stderr how many bytes that were.

use std::io::{self, Read, Write};

fn main() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        let got = input.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        output.write_all(&buffer[..got])?;
        // Written through at once, so that an interactive reader sees its own line back.
        output.flush()?;
        total += got;
    }
    eprintln!("{total} bytes");
    Ok(())
}
