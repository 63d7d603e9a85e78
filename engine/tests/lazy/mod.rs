//! Modules whose functions are compiled when they are called, by a thread of this process.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use coracle_engine::config::Settings;
use coracle_engine::first::{self, Bounds};
use coracle_engine::runtime::{Engine, Module};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// Largest image: virtual memory.
const IMAGE: u64 = 256 << 20;

/// The guest's end and its image, of a module that is accepted.
pub(crate) fn begin(
    wasm: &[u8],
    settings: &Settings,
    ahead: usize,
) -> Result<(File, OwnedFd), String> {
    let file = File::from(memfd_create("lazy", MemfdFlags::CLOEXEC).expect("a memory file"));
    let (guest, compiler) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("sockets");
    let (wasm, settings, image) = (wasm.to_owned(), *settings, file.try_clone().expect("a copy"));
    let server = thread::spawn(move || {
        let bounds = Bounds { image: IMAGE, ahead };
        first::serve(&wasm, &settings, image.as_fd(), compiler.as_fd(), bounds)
    });
    let mut ready = [1; 8];
    match rustix::io::read(&guest, &mut ready) {
        Ok(1) if ready[0] == 0 => Ok((file, guest)),
        _ => match server.join().expect("the server does not panic") {
            Err(error) => Err(format!("cannot compile: {error}")),
            Ok(()) => Err("the server ended".to_owned()),
        },
    }
}

/// The module; `ahead` threads compile what is not asked for.
pub(crate) fn load(
    engine: &Engine,
    wasm: &[u8],
    settings: &Settings,
    ahead: usize,
) -> Result<Module, String> {
    let (image, guest) = begin(wasm, settings, ahead)?;
    Module::from_lazy_file(engine, &image, guest).map_err(|error| format!("cannot load: {error}"))
}
