//! The dialect of WasmEdge, in both generations. Where their types are equal, the length of the
//! address buffer tells them apart: the first has 4 or 16 octets, the second a storage of 128 bytes
//! that begins with the family.

mod address;
mod both;
mod first;
mod names;
mod options;
mod second;

#[cfg(test)]
mod tests;

use crate::wasi::link::functions;

functions! {
    BOTH:
    epoll_oneoff = both(subscriptions: u32, events: u32, count: u32, happened: u32);
    sock_bind = both(fd: u32, addr: u32, port: u32);
    sock_connect = both(fd: u32, addr: u32, port: u32);
    sock_getaddrinfo = names(
        node: u32, node_len: u32, service: u32, service_len: u32, hints: u32, list: u32, most: u32,
        found: u32
    );
    sock_getsockopt = options(fd: u32, level: u32, name: u32, value: u32, len: u32);
    sock_open = both(family: u32, kind: u32, opened: u32);
    sock_send_to = both(
        fd: u32, data: u32, data_len: u32, addr: u32, port: u32, flags: u32, sent: u32
    );
    sock_setsockopt = options(fd: u32, level: u32, name: u32, value: u32, len: u32);
}

functions! {
    FIRST:
    sock_accept = first(fd: u32, accepted: u32);
    sock_getlocaladdr = first(fd: u32, addr: u32, kind: u32, port: u32);
    sock_getpeeraddr = first(fd: u32, addr: u32, kind: u32, port: u32);
    sock_recv_from = first(
        fd: u32, data: u32, data_len: u32, addr: u32, flags: u32, received: u32,
        received_flags: u32
    );
}

functions! {
    SECOND:
    sock_getlocaladdr = second(fd: u32, addr: u32, port: u32);
    sock_getpeeraddr = second(fd: u32, addr: u32, port: u32);
    sock_recv_from = second(
        fd: u32, data: u32, data_len: u32, addr: u32, flags: u32, port: u32, received: u32,
        received_flags: u32
    );
}
