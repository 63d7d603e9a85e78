//! The first start of a module: its functions are compiled while it runs.
//!
//! [`serve`] is the compiler's half, in a process (or on a thread) of its own; the guest maps the image
//! that it makes by [`Module::from_lazy_file`](crate::runtime::Module::from_lazy_file). A function is
//! compiled when it is first called. Meanwhile other threads compile ahead: what the last functions
//! call, then all the rest, so that the compiler is done at some time and the guest can do without it.
//!
//! ```text
//!   answer   guest's questions, one after another      ┐
//!   ahead    what is likely next, on every other core  ├─▶ Works ─▶ Arena (the image)
//!   ahead    …                                         ┘
//! ```

mod works;

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{read, retry_on_intr};
use rustix::net::{SendFlags, send};

use crate::abi::lazy::{MAX_ANSWER, READY};
use crate::compile::CompileError;
use crate::compile::first::prepare;
use crate::config::Settings;
use crate::runtime::Arena;
pub use crate::runtime::ArenaError;
use works::{Works, answer_of};

/// Stack of a compiler thread in bytes: as elsewhere, passes recurse on what a module's author wrote.
const STACK: usize = 16 << 20;
/// How often is looked whether everything is made, in milliseconds.
const LOOK: i64 = 50;

/// Why a module cannot be compiled for a guest that runs.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum FirstError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Arena(#[from] ArenaError),
    #[error("cannot start a compiler thread: {0}")]
    Thread(#[source] io::Error),
    #[error("the guest's questions cannot be read or answered: {0}")]
    Guest(#[source] io::Error),
}

/// What a first start may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most bytes of the image, of which memory is only used for what is made.
    pub image: u64,
    /// Threads that compile ahead; without any, only what is asked for is compiled.
    pub ahead: usize,
}

impl Bounds {
    /// Every processor but one compiles ahead, and at least one thread.
    #[must_use]
    pub fn with_image(image: u64) -> Bounds {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Bounds { image, ahead: processors.saturating_sub(1).max(1) }
    }
}

/// Makes the lazy image of a module in an empty file and compiles its functions, first those that
/// the guest asks for at the other end of the socket, one that keeps messages apart. The first
/// message tells that the image can be mapped. Returns when all functions have code, or the guest
/// has closed its end.
///
/// # Errors
/// When the module is not accepted as a whole. Functions that cannot be compiled are an answer to who
/// asks for them.
pub fn serve(
    wasm: &[u8],
    settings: &Settings,
    image: BorrowedFd<'_>,
    guest: BorrowedFd<'_>,
    bounds: Bounds,
) -> Result<(), FirstError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    prepare(wasm, settings, threads, bounds.image, |source, pieces| {
        let arena = Arena::new(image, &pieces, source.functions())?;
        let works = Works::new(&source, arena);
        works.expect(source.first());
        tell(guest, &[READY]).map_err(FirstError::Guest)?;
        let works = &works;
        thread::scope(|scope| {
            let ahead = (0..bounds.ahead).map(|n| {
                let thread = thread::Builder::new().name(format!("ahead-{n}")).stack_size(STACK);
                thread.spawn_scoped(scope, || works.go_ahead())
            });
            // Without any of them the guest still gets what it asks for, for as long as it lives.
            let alone = ahead.filter(Result::is_ok).count() == 0;
            let answering = thread::Builder::new().name("answer".to_owned()).stack_size(STACK);
            let answering = answering.spawn_scoped(scope, move || answer(guest, works, !alone));
            let result = match answering {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(io::Error::other("panic"))),
                Err(error) => {
                    works.end();
                    return Err(FirstError::Thread(error));
                }
            };
            works.end();
            result.map_err(FirstError::Guest)
        })
    })
}

/// Answers until everything is made, or nobody asks any more.
fn answer(guest: BorrowedFd<'_>, works: &Works<'_>, ends: bool) -> io::Result<()> {
    let mut compiler = works.compiler();
    let pause = Timespec { tv_sec: 0, tv_nsec: LOOK * 1_000_000 };
    loop {
        let mut question = [PollFd::new(&guest, PollFlags::IN)];
        let asked = retry_on_intr(|| poll(&mut question, Some(&pause)))?;
        if asked == 0 {
            if ends && works.is_done() {
                return Ok(());
            }
            continue;
        }
        let mut func = [0; 4];
        match retry_on_intr(|| read(guest, &mut func)) {
            Ok(4) => {}
            // The guest has gone.
            Ok(0) | Err(rustix::io::Errno::CONNRESET) => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(errno) => return Err(errno.into()),
        }
        let outcome = works.demand(&mut compiler, u32::from_le_bytes(func));
        match tell(guest, &answer_of(outcome)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
    }
}

fn tell(guest: BorrowedFd<'_>, answer: &[u8]) -> io::Result<()> {
    let answer = &answer[..answer.len().min(MAX_ANSWER)];
    retry_on_intr(|| send(guest, answer, SendFlags::NOSIGNAL))?;
    Ok(())
}
