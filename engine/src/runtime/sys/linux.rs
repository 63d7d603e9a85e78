//! Linux: mappings, protection, signals, alternate stacks and the bounds of the thread's stack.

use std::cell::Cell;
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the runtime knows the signal context of x86_64 only: add `Registers` for this CPU");

/// A range of address space that belongs to this value alone and is unmapped when it is dropped.
#[derive(Debug)]
pub(in crate::runtime) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain address space; who may access what is inside is decided by the owner,
// and munmap works from every thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared `Mapping` gives out nothing but its address and length.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `len` bytes of inaccessible address space anywhere.
    pub(in crate::runtime) fn reserve(len: usize) -> io::Result<Mapping> {
        // SAFETY: without MAP_FIXED the kernel picks a free range; nothing existing is touched.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        Mapping::new(start, len)
    }

    /// Reserves `len` bytes of inaccessible address space at `address`, which must be free.
    pub(in crate::runtime) fn reserve_at(address: usize, len: usize) -> io::Result<Mapping> {
        let hint = ptr::without_provenance_mut::<c_void>(address);
        // SAFETY: MAP_FIXED_NOREPLACE never replaces an existing mapping.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                hint,
                len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE,
            )?
        };
        let mapping = Mapping::new(start, len)?;
        // Kernels before 4.17 ignore the flag and treat the address as a hint.
        if mapping.address() != address {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        Ok(mapping)
    }

    /// Reserves inaccessible address space anywhere: `before` bytes, then `len` bytes that begin at
    /// a multiple of `align`. All three are page-aligned.
    pub(in crate::runtime) fn reserve_aligned(
        before: usize,
        len: usize,
        align: usize,
    ) -> io::Result<Mapping> {
        let mut all = Mapping::reserve(before + len + align)?;
        let start = (all.address() + before).next_multiple_of(align) - before;
        let skipped = start - all.address();
        let tail = all.split_off(skipped + before + len);
        // What is not needed is unmapped when it is dropped.
        drop(tail);
        Ok(all.split_off(skipped))
    }

    /// Leaves the first `at` bytes with `self` and gives the rest away. Either may be empty.
    fn split_off(&mut self, at: usize) -> Mapping {
        assert!(at <= self.len, "split within the mapping");
        // SAFETY: `at` is within the mapping or its end (asserted).
        let start = unsafe { self.start.add(at) };
        let rest = Mapping { start, len: self.len - at };
        self.len = at;
        rest
    }

    /// Gives the memory of `range` (page-aligned, counted from the start) back to the system. An
    /// anonymous mapping reads as zero there afterwards.
    pub(in crate::runtime) fn discard(&self, range: Range<usize>) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.len, "discard within the mapping");
        // SAFETY: the range lies within this mapping (asserted), to whose bytes the caller has no
        // reference.
        unsafe {
            let start = self.as_ptr().add(range.start);
            rustix::mm::madvise(start.cast(), range.len(), Advice::LinuxDontNeed)?;
        }
        Ok(())
    }

    /// Maps the first `len` bytes of a file for reading, shared with every process that maps it.
    pub(in crate::runtime) fn file(file: &File, len: usize) -> io::Result<Mapping> {
        // SAFETY: the kernel picks a free range, and the mapping is never writable.
        let start = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0)?
        };
        Mapping::new(start, len)
    }

    /// Maps the first `len` bytes of a file for reading and writing, shared with every process that
    /// maps it.
    pub(in crate::runtime) fn file_writable(
        file: BorrowedFd<'_>,
        len: usize,
    ) -> io::Result<Mapping> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel picks a free range, and the mapping is never executable.
        let start =
            unsafe { rustix::mm::mmap(ptr::null_mut(), len, access, MapFlags::SHARED, file, 0)? };
        Mapping::new(start, len)
    }

    fn new(start: *mut c_void, len: usize) -> io::Result<Mapping> {
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Mapping { start, len })
    }

    /// First byte.
    pub(in crate::runtime) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Address of the first byte.
    pub(in crate::runtime) fn address(&self) -> usize {
        self.start.as_ptr().addr()
    }

    /// Bytes.
    pub(in crate::runtime) fn len(&self) -> usize {
        self.len
    }

    /// Makes `range` (page-aligned, counted from the start) readable and executable.
    pub(in crate::runtime) fn make_executable(&self, range: Range<usize>) -> io::Result<()> {
        self.protect(range, MprotectFlags::READ | MprotectFlags::EXEC)
    }

    /// Makes `range` (page-aligned, counted from the start) readable and writable.
    pub(in crate::runtime) fn make_writable(&self, range: Range<usize>) -> io::Result<()> {
        self.protect(range, MprotectFlags::READ | MprotectFlags::WRITE)
    }

    fn protect(&self, range: Range<usize>, flags: MprotectFlags) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.len, "protect within the mapping");
        if range.is_empty() {
            return Ok(());
        }
        // SAFETY: the range lies within this mapping, which belongs to `self` (asserted above), so
        // no other object's pages change. Callers only ever widen access.
        unsafe {
            let start = self.as_ptr().add(range.start);
            rustix::mm::mprotect(start.cast(), range.len(), flags)?;
        }
        Ok(())
    }

    /// Maps `range` of the file at `offset` over part of this mapping: readable, writable, private
    /// to this process, pages copied on first write. All three are page-aligned.
    pub(in crate::runtime) fn overlay_file(
        &self,
        range: Range<usize>,
        file: &File,
        offset: u64,
    ) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.len, "overlay within the mapping");
        // SAFETY: MAP_FIXED replaces only pages of this mapping (asserted above), which the caller
        // owns and has not handed out yet.
        unsafe {
            rustix::mm::mmap(
                self.as_ptr().add(range.start).cast(),
                range.len(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED,
                file,
                offset,
            )?;
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: the range was mapped by `new`'s caller and belongs to `self` alone; references
        // into it borrow from the owner of this value.
        let result = unsafe { rustix::mm::munmap(self.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "unmap an own mapping: {result:?}");
    }
}

/// Writes bytes to an anonymous file that nobody can change, shrink or map writable any more.
pub(in crate::runtime) fn anonymous_file(bytes: &[u8]) -> io::Result<File> {
    use std::io::Write;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("coracle-image", flags)?);
    file.write_all(bytes)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// The addresses of this thread's stack, lowest first.
///
/// glibc's `pthread_getattr_np` reads `/proc/self/maps` for the main thread, which costs more than
/// loading a small module. The kernel puts the executable's name (`AT_EXECFN`) into the main
/// stack's last page, and the stack may grow down to the soft limit from there, so both ends are
/// known without a file. On every other thread the C library knows the bounds.
pub(in crate::runtime) fn stack_bounds() -> io::Result<Range<usize>> {
    let local = 0u8;
    let here = std::hint::black_box(&raw const local).addr();
    let main = rustix::thread::gettid() == rustix::process::getpid();
    // The only thread of a process forked off another thread runs on that thread's stack.
    if let Some(bounds) = main_stack_bounds().filter(|bounds| main && bounds.contains(&here)) {
        return Ok(bounds);
    }
    let mut attr = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut low, mut size) = (ptr::null_mut::<c_void>(), 0usize);
    // SAFETY: pthread_getattr_np initialises `attr` when it returns 0, and only then is it read;
    // it is destroyed exactly once.
    let code = unsafe {
        match libc::pthread_getattr_np(libc::pthread_self(), attr.as_mut_ptr()) {
            0 => {
                let code = libc::pthread_attr_getstack(attr.as_ptr(), &mut low, &mut size);
                libc::pthread_attr_destroy(attr.as_mut_ptr());
                code
            }
            code => code,
        }
    };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    Ok(low.addr()..low.addr() + size)
}

/// Largest main stack that is taken for granted when the soft limit is higher: the kernel keeps
/// this much room below the stack whatever the limit was at exec time.
const MAIN_STACK_MAX: u64 = 128 << 20;

fn main_stack_bounds() -> Option<Range<usize>> {
    // SAFETY: getauxval only reads the auxiliary vector.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as usize;
    if name == 0 {
        return None;
    }
    let high = (name + 1).next_multiple_of(page_size());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    let size = limit.unwrap_or(MAIN_STACK_MAX).min(MAIN_STACK_MAX) as usize;
    Some(high.checked_sub(size)?..high)
}

/// Bytes of a page of memory.
pub(in crate::runtime) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Bytes of the stack on which signal handlers run. The kernel's frame takes up to 11 KiB with
/// AVX-512 state; the rest is for the handler and those it falls through to.
const SIGNAL_STACK: usize = 128 << 10;

/// A thread's alternate signal stack, with a guard page below.
struct SignalStack {
    memory: Mapping,
}

thread_local! {
    static SIGNAL_STACK_OF_THREAD: Cell<Option<SignalStack>> = const { Cell::new(None) };
}

/// Gives this thread an alternate signal stack of at least 64 KiB, once.
pub(in crate::runtime) fn ensure_signal_stack() -> io::Result<()> {
    SIGNAL_STACK_OF_THREAD.with(|slot| {
        let stack = match slot.take() {
            Some(stack) => stack,
            None => SignalStack::install()?,
        };
        slot.set(Some(stack));
        Ok(())
    })
}

impl SignalStack {
    fn install() -> io::Result<SignalStack> {
        let guard = page_size();
        let memory = Mapping::reserve(guard + SIGNAL_STACK)?;
        memory.make_writable(guard..guard + SIGNAL_STACK)?;
        let stack = libc::stack_t {
            // SAFETY: `guard` is within the mapping.
            ss_sp: unsafe { memory.as_ptr().add(guard) }.cast(),
            ss_flags: 0,
            ss_size: SIGNAL_STACK,
        };
        // SAFETY: the memory is writable, unused and outlives its use: `Drop` takes it away again.
        check(unsafe { libc::sigaltstack(&stack, ptr::null_mut()) })?;
        Ok(SignalStack { memory })
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        let mut current = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
        // SAFETY: reads the current setting; takes the stack away only if it is still this one.
        unsafe {
            if libc::sigaltstack(ptr::null(), &mut current) == 0
                && current.ss_sp.addr() == self.memory.address() + page_size()
            {
                current.ss_flags = libc::SS_DISABLE;
                libc::sigaltstack(&current, ptr::null_mut());
            }
        }
    }
}

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A fault that the kernel reported on the instruction that it interrupted.
pub(in crate::runtime) struct Fault<'a> {
    /// For an access violation, the address that was accessed.
    pub(in crate::runtime) address: Option<usize>,
    context: &'a mut libc::ucontext_t,
}

impl Fault<'_> {
    fn register(&mut self, name: libc::c_int) -> &mut i64 {
        &mut self.context.uc_mcontext.gregs[name as usize]
    }

    /// The faulting instruction's address.
    pub(in crate::runtime) fn pc(&mut self) -> usize {
        *self.register(libc::REG_RIP) as usize
    }

    /// The frame pointer at the fault.
    pub(in crate::runtime) fn frame_pointer(&mut self) -> usize {
        *self.register(libc::REG_RBP) as usize
    }

    /// Lets the thread go on at `pc` with this stack and frame pointer and zero in the two
    /// registers that a landing pad may read.
    pub(in crate::runtime) fn resume_at(&mut self, pc: usize, sp: usize, fp: usize) {
        *self.register(libc::REG_RIP) = pc as i64;
        *self.register(libc::REG_RSP) = sp as i64;
        *self.register(libc::REG_RBP) = fp as i64;
        *self.register(libc::REG_RAX) = 0;
        *self.register(libc::REG_RDX) = 0;
    }
}

/// The signals by which the processor's exceptions arrive.
const SIGNALS: [libc::c_int; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];

static PREVIOUS: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();
static ON_FAULT: AtomicUsize = AtomicUsize::new(0);

/// Decides on a fault: `true` when it was dealt with and the (changed) context may be resumed.
pub(in crate::runtime) type FaultHandler = fn(&mut Fault<'_>) -> bool;

/// Installs the process's fault handlers, once. `on_fault` runs inside a signal handler: it must
/// not allocate, lock or panic. What it declines goes to the action that was there before.
pub(in crate::runtime) fn install_fault_handlers(on_fault: FaultHandler) -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    ON_FAULT.store(on_fault as usize, Ordering::Release);
    INSTALLED
        .get_or_init(|| replace_actions().map_err(|e| e.raw_os_error().unwrap_or(libc::EINVAL)))
        .map_err(io::Error::from_raw_os_error)
}

fn replace_actions() -> io::Result<()> {
    // All previous actions are known before the first handler can run.
    let mut previous = [empty_action(); SIGNALS.len()];
    for (signal, old) in SIGNALS.into_iter().zip(&mut previous) {
        // SAFETY: only reads the current action into a valid place.
        check(unsafe { libc::sigaction(signal, ptr::null(), old) })?;
    }
    PREVIOUS.get_or_init(|| previous);
    let mut action = empty_action();
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for signal in SIGNALS {
        // SAFETY: `on_signal` has the signature that SA_SIGINFO asks for and lives for ever.
        check(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) })?;
    }
    Ok(())
}

fn empty_action() -> libc::sigaction {
    // SAFETY: all fields are integers, an optional function pointer and a bit set; zero is valid
    // for each and means the default action.
    unsafe { std::mem::zeroed() }
}

extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid pointers to both for the time of the handler, and nothing
    // else refers to them.
    let (details, machine) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    // Codes of 0 and below come from kill and its relatives, SI_KERNEL from a fault without a
    // usable address (on x86 one outside of the canonical range).
    let accessed = matches!(signal, libc::SIGSEGV | libc::SIGBUS);
    let by_fault = details.si_code > 0 && !(accessed && details.si_code == libc::SI_KERNEL);
    if by_fault {
        // SAFETY: si_addr is set for all four signals when the code says that a fault sent them.
        let address = accessed.then(|| unsafe { details.si_addr() }.addr());
        let mut fault = Fault { address, context: machine };
        let handler = ON_FAULT.load(Ordering::Acquire);
        if handler != 0 {
            // SAFETY: the only store to ON_FAULT writes a `FaultHandler`.
            let handler = unsafe { std::mem::transmute::<usize, FaultHandler>(handler) };
            if handler(&mut fault) {
                return;
            }
        }
    }
    fall_through(signal, info, context, details.si_code > 0);
}

/// Does what would have happened without our handler.
fn fall_through(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
    by_kernel: bool,
) {
    let previous = SIGNALS
        .iter()
        .position(|&s| s == signal)
        .and_then(|n| PREVIOUS.get().map(|all| all[n]))
        .unwrap_or_else(empty_action);
    match previous.sa_sigaction {
        libc::SIG_IGN if !by_kernel => {}
        // A fault cannot be ignored: the kernel, too, ends a process that tries.
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: sigaction and raise are async-signal-safe. The signal is blocked until this
            // handler returns; then the raised one ends the process.
            unsafe {
                libc::sigaction(signal, &empty_action(), ptr::null_mut());
                libc::raise(signal);
            }
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            type Action = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: the action was installed with SA_SIGINFO, so the value is such a function.
            let handler = unsafe { std::mem::transmute::<usize, Action>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: the action was installed without SA_SIGINFO: a function of the number alone.
            let handler =
                unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
            handler(signal);
        }
    }
    if !by_kernel {
        send_again_if_default(signal);
    }
}

/// A handler that gives up puts the default action back and returns, so that the fault comes again
/// (the standard library's does). What a process sent does not come again by itself.
fn send_again_if_default(signal: libc::c_int) {
    let mut action = empty_action();
    // SAFETY: sigaction and raise are async-signal-safe; the first only reads the current action.
    // The signal is blocked until the handler returns; then the raised one ends the process.
    unsafe {
        let known = libc::sigaction(signal, ptr::null(), &mut action) == 0;
        if known && action.sa_sigaction == libc::SIG_DFL {
            libc::raise(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_frame_lies_within_the_bounds_on_every_thread() {
        let check = || {
            let bounds = stack_bounds().unwrap();
            let local = 0u8;
            assert!(bounds.contains(&std::hint::black_box(&raw const local).addr()));
            bounds.len()
        };
        check();
        let len = std::thread::Builder::new().stack_size(1 << 20).spawn(check).unwrap();
        // The C library may reuse a larger stack of a thread that ended.
        assert!(len.join().unwrap() >= 1 << 20);
    }

    #[test]
    fn a_sealed_file_cannot_be_written() {
        use std::io::Write;
        let mut file = anonymous_file(b"text").unwrap();
        assert!(file.write_all(b"more").is_err());
        assert!(file.set_len(0).is_err());
        let map = Mapping::file(&file, 4).unwrap();
        assert!(map.make_writable(0..4).is_err());
    }

    #[test]
    fn a_taken_address_is_refused() {
        let taken = Mapping::reserve(1 << 16).unwrap();
        assert!(Mapping::reserve_at(taken.address(), 1 << 16).is_err());
    }
}
