//! Random bytes from the kernel.

use std::fmt;

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

/// Bytes that are got from the kernel at a time for small wishes.
const STOCK: usize = 512;
/// Largest wish that is met from the stock.
const SMALL: usize = 64;

/// Random bytes with a stock, since a system call costs more than the bytes.
///
/// Bytes are given out once and wiped. Whoever copies the process (`fork(2)`) must not let both
/// copies use the stock.
pub struct Random {
    stock: [u8; STOCK],
    /// Bytes at the end of the stock that nobody has got.
    left: usize,
}

impl Default for Random {
    fn default() -> Random {
        Random { stock: [0; STOCK], left: 0 }
    }
}

impl fmt::Debug for Random {
    /// Without the bytes: guests are going to rely on them as secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Random {
    /// Fills `buffer` with bytes fit for cryptography.
    ///
    /// # Errors
    /// As [`fill`].
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        if buffer.len() > SMALL {
            return fill(buffer);
        }
        if self.left < buffer.len() {
            fill(&mut self.stock)?;
            self.left = STOCK;
        }
        let start = STOCK - self.left;
        let bytes = &mut self.stock[start..start + buffer.len()];
        buffer.copy_from_slice(bytes);
        bytes.fill(0);
        self.left -= buffer.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Random, SMALL, STOCK};

    #[test]
    fn no_byte_is_given_out_twice() {
        let mut random = Random::default();
        let mut seen = HashSet::new();
        // Sizes that do and do not divide the stock.
        for len in [8, 16, 13, SMALL].into_iter().cycle().take(4 * STOCK) {
            let mut bytes = vec![0; len];
            random.fill(&mut bytes).unwrap();
            assert!(seen.insert(bytes[..8].to_vec()), "{bytes:?} again");
            assert!(random.stock[..STOCK - random.left].iter().all(|&byte| byte == 0), "not wiped");
        }
        random.fill(&mut []).unwrap();
        assert!(!format!("{random:?}").contains("stock"));
    }

    #[test]
    fn every_byte_is_filled_beyond_one_call_of_the_kernel() {
        let mut bytes = vec![0; 3 << 20];
        super::fill(&mut bytes).unwrap();
        let zeros = bytes.iter().filter(|&&b| b == 0).count();
        assert!((8_000..17_000).contains(&zeros), "{zeros} zeros of 3 MiB");
        super::fill(&mut []).unwrap();
    }
}
