//! What WASI preview 1 cannot tell, asked of the host: functions that only this program can import.
//!
//! They act with the rights of the process, which are the container's. Each gives an error number of
//! WASI, 0 for success. The host's side is `shim/src/guest/toolbox.rs`.

use std::io;

mod import {
    #[link(wasm_import_module = "coracle_box")]
    unsafe extern "C" {
        pub fn kill(pid: i32, signal: i32) -> i32;
        pub fn stat(path: *const u8, length: usize, follow: i32, out: *mut u64) -> i32;
        pub fn statfs(path: *const u8, length: usize, out: *mut u64) -> i32;
        pub fn inspect(
            pid: i32,
            thread: i32,
            what: i32,
            to: *mut u8,
            room: usize,
            used: *mut usize,
        ) -> i32;
    }
}

/// What an inode says.
#[derive(Clone, Copy, Default)]
pub struct Stat {
    pub mode: u32,
    pub links: u64,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub major: u32,
    pub minor: u32,
    /// Seconds since 1970.
    pub modified: i64,
    pub modified_nanos: u32,
    pub inode: u64,
    /// Of 512 bytes.
    pub blocks: u64,
}

/// The space of a file system, in blocks.
#[derive(Clone, Copy, Default)]
pub struct StatFs {
    /// Bytes of a block.
    pub block: u64,
    pub blocks: u64,
    pub free: u64,
    /// Free for others than root.
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
}

/// What to tell of a running program.
#[derive(Clone, Copy)]
pub enum What {
    /// Where it is: text.
    Backtrace = 0,
    /// Bytes of its linear memories and elements of its tables: two numbers.
    Memory = 1,
}

fn check(errno: i32) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// Sends a signal; see kill(2).
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers alone.
    check(unsafe { import::kill(pid, signal) })
}

/// See stat(2), lstat(2).
pub fn stat(path: &str, follow: bool) -> io::Result<Stat> {
    let mut out = [0_u64; 11];
    // SAFETY: the host reads as many bytes as the path has and writes eleven numbers, for which there is room.
    check(unsafe { import::stat(path.as_ptr(), path.len(), i32::from(follow), out.as_mut_ptr()) })?;
    let [mode, links, uid, gid, size, major, minor, modified, nanos, inode, blocks] = out;
    Ok(Stat {
        mode: mode as u32,
        links,
        uid: uid as u32,
        gid: gid as u32,
        size,
        major: major as u32,
        minor: minor as u32,
        modified: modified as i64,
        modified_nanos: nanos as u32,
        inode,
        blocks,
    })
}

/// See statfs(2).
pub fn statfs(path: &str) -> io::Result<StatFs> {
    let mut out = [0_u64; 6];
    // SAFETY: the host reads as many bytes as the path has and writes six numbers, for which there is room.
    check(unsafe { import::statfs(path.as_ptr(), path.len(), out.as_mut_ptr()) })?;
    let [block, blocks, free, available, files, files_free] = out;
    Ok(StatFs { block, blocks, free, available, files, files_free })
}

/// Asks a thread of a running WebAssembly program what it does.
pub fn inspect(pid: i32, thread: i32, what: What) -> io::Result<String> {
    let mut text = vec![0; 1 << 16];
    let mut used = 0;
    // SAFETY: the host writes at most as many bytes as there is room for, and how many to `used`.
    check(unsafe {
        import::inspect(pid, thread, what as i32, text.as_mut_ptr(), text.len(), &mut used)
    })?;
    text.truncate(used);
    Ok(String::from_utf8_lossy(&text).into_owned())
}
