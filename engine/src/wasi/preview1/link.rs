//! The table of preview 1's functions, and their way into a linker.

use std::rc::Rc;

use super::{args, clock, environ, fd, file, path, poll, proc, random, sock};
use crate::runtime::{Caller, Linker};
use crate::wasi::link::{Host, functions, status};

/// The name that programs import the functions under.
pub const MODULE: &str = "wasi_snapshot_preview1";

functions! {
    FUNCTIONS:
    args_get = args(argv: u32, argv_buf: u32);
    args_sizes_get = args(count: u32, size: u32);
    clock_res_get = clock(id: u32, resolution: u32);
    clock_time_get = clock(id: u32, precision: u64, time: u32);
    environ_get = environ(environ: u32, environ_buf: u32);
    environ_sizes_get = environ(count: u32, size: u32);
    fd_advise = file(fd: u32, offset: u64, len: u64, advice: u32);
    fd_allocate = file(fd: u32, offset: u64, len: u64);
    fd_close = fd(fd: u32);
    fd_datasync = fd(fd: u32);
    fd_fdstat_get = fd(fd: u32, stat: u32);
    fd_fdstat_set_flags = fd(fd: u32, flags: u32);
    fd_fdstat_set_rights = fd(fd: u32, base: u64, inheriting: u64);
    fd_filestat_get = fd(fd: u32, stat: u32);
    fd_filestat_set_size = fd(fd: u32, size: u64);
    fd_filestat_set_times = fd(fd: u32, accessed: u64, modified: u64, flags: u32);
    fd_pread = file(fd: u32, iovs: u32, iovs_len: u32, offset: u64, nread: u32);
    fd_prestat_dir_name = fd(fd: u32, path: u32, path_len: u32);
    fd_prestat_get = fd(fd: u32, prestat: u32);
    fd_pwrite = file(fd: u32, iovs: u32, iovs_len: u32, offset: u64, nwritten: u32);
    fd_read = file(fd: u32, iovs: u32, iovs_len: u32, nread: u32);
    fd_readdir = file(fd: u32, buf: u32, buf_len: u32, cookie: u64, used: u32);
    fd_renumber = fd(from: u32, to: u32);
    fd_seek = file(fd: u32, offset: i64, whence: u32, position: u32);
    fd_sync = fd(fd: u32);
    fd_tell = file(fd: u32, position: u32);
    fd_write = file(fd: u32, iovs: u32, iovs_len: u32, nwritten: u32);
    path_create_directory = path(fd: u32, path: u32, len: u32);
    path_filestat_get = path(fd: u32, flags: u32, path: u32, len: u32, stat: u32);
    path_filestat_set_times = path(
        fd: u32, flags: u32, path: u32, len: u32, accessed: u64, modified: u64, time_flags: u32
    );
    path_link = path(
        old_fd: u32, old_flags: u32, old: u32, old_len: u32, new_fd: u32, new: u32, new_len: u32
    );
    path_open = path(
        fd: u32, dirflags: u32, path: u32, len: u32, oflags: u32, base: u64, inheriting: u64,
        fdflags: u32, opened: u32
    );
    path_readlink = path(fd: u32, path: u32, len: u32, buf: u32, buf_len: u32, used: u32);
    path_remove_directory = path(fd: u32, path: u32, len: u32);
    path_rename = path(fd: u32, old: u32, old_len: u32, new_fd: u32, new: u32, new_len: u32);
    path_symlink = path(old: u32, old_len: u32, fd: u32, new: u32, new_len: u32);
    path_unlink_file = path(fd: u32, path: u32, len: u32);
    poll_oneoff = poll(subscriptions: u32, events: u32, count: u32, happened: u32);
    random_get = random(buf: u32, buf_len: u32);
    sched_yield = proc();
    sock_accept = sock(fd: u32, flags: u32, accepted: u32);
    sock_recv = sock(
        fd: u32, data: u32, data_len: u32, flags: u32, received: u32, received_flags: u32
    );
    sock_send = sock(fd: u32, data: u32, data_len: u32, flags: u32, sent: u32);
    sock_shutdown = sock(fd: u32, how: u32);
}

/// Defines all 46 functions for one guest. The guest's state lives as long as the definitions.
pub fn add_to_linker(linker: &mut Linker, ctx: impl Into<Rc<Host>>) {
    add_shared(linker, &ctx.into());
}

/// The same for a state that others use too.
pub(in crate::wasi) fn add_shared(linker: &mut Linker, ctx: &Rc<Host>) {
    for function in FUNCTIONS {
        (function.define)(linker, ctx, function.name.into());
    }
    linker.func_wrap(
        MODULE,
        "proc_exit",
        |_: Caller<'_>, code: u32| -> Result<(), proc::ProcExit> { Err(proc::proc_exit(code)) },
    );
    linker.func_wrap(
        MODULE,
        "proc_raise",
        |_: Caller<'_>, signal: u32| -> Result<u32, proc::ProcExit> {
            proc::proc_raise(signal).map(status)
        },
    );
}

#[cfg(test)]
mod tests {
    use super::FUNCTIONS;
    use crate::wasi::preview1::rights::OPERATIONS;

    #[test]
    fn the_table_has_every_function_once() {
        let mut names: Vec<&str> = FUNCTIONS.iter().map(|function| function.name).collect();
        names.extend(["proc_exit", "proc_raise"]);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 46);
        for (operation, _) in OPERATIONS {
            let known = |name: &&str| operation.starts_with(name) || *name == "poll_oneoff";
            assert!(names.iter().any(known), "{operation}");
        }
    }
}
