//! All functions that a guest can import, and the modules that export them again.

use std::fmt::Write as _;
use std::sync::OnceLock;

use coracle_engine::compile::compile;
use coracle_engine::config::Settings;
use coracle_engine::wasi::preview1;

/// A function: its name, its parameters (`i` is i32, `l` is i64). All but `proc_exit` give an errno.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) params: &'static str,
    pub(super) part: Part,
}

/// Which of the guest's modules has the function: a module speaks one dialect of sockets, and
/// imports a name with one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Preview 1, and WasmEdge's dialect in its second generation. This module has the memory.
    Main,
    /// What the first generation has under other types.
    First,
    /// WAMR's dialect.
    Wamr,
}

impl Part {
    pub(super) const ALL: [Part; 3] = [Part::Main, Part::First, Part::Wamr];

    fn functions(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Part::Main => &MAIN,
            Part::First => &FIRST,
            Part::Wamr => &WAMR,
        }
    }
}

/// Preview 1, then WasmEdge's.
const MAIN: [(&str, &str); 58] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "ili"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("fd_advise", "illi"),
    ("fd_allocate", "ill"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "ill"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "il"),
    ("fd_filestat_set_times", "illi"),
    ("fd_pread", "iiili"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_pwrite", "iiili"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiili"),
    ("fd_renumber", "ii"),
    ("fd_seek", "ilii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiilli"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiillii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_exit", "i"),
    ("proc_raise", "i"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
    ("sock_listen", "ii"),
    ("epoll_oneoff", "iiii"),
    ("sock_bind", "iii"),
    ("sock_connect", "iii"),
    ("sock_getaddrinfo", "iiiiiiii"),
    ("sock_getlocaladdr", "iii"),
    ("sock_getpeeraddr", "iii"),
    ("sock_getsockopt", "iiiii"),
    ("sock_open", "iii"),
    ("sock_recv_from", "iiiiiiii"),
    ("sock_send_to", "iiiiiii"),
    ("sock_setsockopt", "iiiii"),
];

const FIRST: [(&str, &str); 4] = [
    ("sock_accept", "ii"),
    ("sock_getlocaladdr", "iiii"),
    ("sock_getpeeraddr", "iiii"),
    ("sock_recv_from", "iiiiiii"),
];

/// WAMR's, of which `sock_listen` is above.
const WAMR: [(&str, &str); 47] = [
    ("sock_addr_local", "ii"),
    ("sock_addr_remote", "ii"),
    ("sock_addr_resolve", "iiiiii"),
    ("sock_bind", "ii"),
    ("sock_close", "i"),
    ("sock_connect", "ii"),
    ("sock_get_broadcast", "ii"),
    ("sock_get_ip_multicast_loop", "iii"),
    ("sock_get_ip_multicast_ttl", "ii"),
    ("sock_get_ip_ttl", "ii"),
    ("sock_get_ipv6_only", "ii"),
    ("sock_get_keep_alive", "ii"),
    ("sock_get_linger", "iii"),
    ("sock_get_recv_buf_size", "ii"),
    ("sock_get_recv_timeout", "ii"),
    ("sock_get_reuse_addr", "ii"),
    ("sock_get_reuse_port", "ii"),
    ("sock_get_send_buf_size", "ii"),
    ("sock_get_send_timeout", "ii"),
    ("sock_get_tcp_fastopen_connect", "ii"),
    ("sock_get_tcp_keep_idle", "ii"),
    ("sock_get_tcp_keep_intvl", "ii"),
    ("sock_get_tcp_no_delay", "ii"),
    ("sock_get_tcp_quick_ack", "ii"),
    ("sock_open", "iiii"),
    ("sock_recv_from", "iiiiii"),
    ("sock_send_to", "iiiiii"),
    ("sock_set_broadcast", "ii"),
    ("sock_set_ip_add_membership", "iii"),
    ("sock_set_ip_drop_membership", "iii"),
    ("sock_set_ip_multicast_loop", "iii"),
    ("sock_set_ip_multicast_ttl", "ii"),
    ("sock_set_ip_ttl", "ii"),
    ("sock_set_ipv6_only", "ii"),
    ("sock_set_keep_alive", "ii"),
    ("sock_set_linger", "iii"),
    ("sock_set_recv_buf_size", "ii"),
    ("sock_set_recv_timeout", "il"),
    ("sock_set_reuse_addr", "ii"),
    ("sock_set_reuse_port", "ii"),
    ("sock_set_send_buf_size", "ii"),
    ("sock_set_send_timeout", "il"),
    ("sock_set_tcp_fastopen_connect", "ii"),
    ("sock_set_tcp_keep_idle", "ii"),
    ("sock_set_tcp_keep_intvl", "ii"),
    ("sock_set_tcp_no_delay", "ii"),
    ("sock_set_tcp_quick_ack", "ii"),
];

/// How many functions there are.
pub(super) const COUNT: usize = MAIN.len() + FIRST.len() + WAMR.len();

fn all() -> impl Iterator<Item = Function> {
    Part::ALL.into_iter().flat_map(|part| {
        part.functions().iter().map(move |&(name, params)| Function { name, params, part })
    })
}

/// The function of this number, counted round.
pub(super) fn numbered(number: usize) -> Function {
    match all().nth(number % COUNT) {
        Some(function) => function,
        None => unreachable!("there are {COUNT} functions"),
    }
}

/// A function by what a module would import.
pub(super) fn named(part: Part, name: &str, params: &str) -> Function {
    match all().find(|f| (f.part, f.name, f.params) == (part, name, params)) {
        Some(function) => function,
        None => panic!("there is no {name}({params})"),
    }
}

impl Function {
    /// The name that the modules export it under: names alone are not unique.
    pub(super) fn export(self) -> String {
        format!("{}({})", self.name, self.params)
    }
}

/// What a guest's modules differ in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The memory is its own.
    Own,
    /// As guests with threads have their memory, and their descriptors.
    Shared,
}

/// A compiled module that exports every function of a part.
pub(super) fn image(kind: Kind, part: Part) -> &'static [u8] {
    static IMAGES: [[OnceLock<Vec<u8>>; 2]; 3] = [const { [const { OnceLock::new() }; 2] }; 3];
    IMAGES[part as usize][kind as usize].get_or_init(|| {
        match compile(text(kind, part).as_bytes(), &Settings::default()) {
            Ok(image) => image,
            Err(error) => panic!("the module of all functions does not compile: {error}"),
        }
    })
}

fn text(kind: Kind, part: Part) -> String {
    let limits = match kind {
        Kind::Own => "2",
        Kind::Shared => "2 2 shared",
    };
    let (mut imports, mut exports) = (String::new(), String::new());
    for function in all().filter(|function| function.part == part) {
        let Function { name, params, .. } = function;
        let types = params.chars().map(|c| if c == 'l' { " i64" } else { " i32" });
        let types: String = types.collect();
        let result = if name == "proc_exit" { "" } else { "(result i32)" };
        let ty = format!("(param{types}) {result}");
        let id = format!("${name}{params}");
        let gets: String = (0..params.len()).map(|n| format!("(local.get {n})")).collect();
        let _ = write!(imports, "(import \"{}\" \"{name}\" (func {id} {ty}))", preview1::MODULE);
        let export = function.export();
        let _ = write!(exports, "(func (export \"{export}\") {ty} (call {id} {gets}))");
    }
    let memory = match part {
        Part::Main => format!("(memory (export \"memory\") {limits})"),
        Part::First | Part::Wamr => {
            format!("(memory (export \"memory\") (import \"main\" \"memory\") {limits})")
        }
    };
    let handler = "(func (export \"coracle_signal\") (param i32))";
    format!("(module {imports} {memory} {handler} {exports})")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_function_of_the_engine_is_left_out() {
        let readme = include_str!("../../../src/wasi/README.md");
        let table = readme.split("## Functions").nth(1).unwrap().split("\n## ").next().unwrap();
        let cells = table.lines().filter(|line| line.starts_with("| "));
        let cells = cells.map(|line| line.rsplit('|').nth(1).unwrap_or_default());
        let told: BTreeSet<&str> = cells.flat_map(|c| c.split('`').skip(1).step_by(2)).collect();
        let known: BTreeSet<&str> = all().map(|function| function.name).collect();
        assert_eq!(told, known);
    }
}
