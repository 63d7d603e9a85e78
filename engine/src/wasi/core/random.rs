//! Random bytes from the kernel.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::error::Result;

/// Fills `buffer` with bytes fit for cryptography, straight from the kernel (`getrandom(2)`).
///
/// # Errors
/// What the kernel says; not expected after boot.
pub fn fill(buffer: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match getrandom(&mut buffer[done..], GetRandomFlags::empty()) {
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_byte_is_filled_beyond_one_call_of_the_kernel() {
        let mut bytes = vec![0; 3 << 20];
        super::fill(&mut bytes).unwrap();
        let zeros = bytes.iter().filter(|&&b| b == 0).count();
        assert!((8_000..17_000).contains(&zeros), "{zeros} zeros of 3 MiB");
        super::fill(&mut []).unwrap();
    }
}
