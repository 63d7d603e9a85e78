//! The dialect of WAMR: an address is a structure with its port, an option a pair of functions.

mod address;
mod base;
mod names;
mod options;

#[cfg(test)]
mod tests;

use crate::wasi::link::functions;

functions! {
    FUNCTIONS:
    sock_addr_local = base(fd: u32, addr: u32);
    sock_addr_remote = base(fd: u32, addr: u32);
    sock_addr_resolve = names(
        host: u32, service: u32, hints: u32, list: u32, most: u32, found: u32
    );
    sock_bind = base(fd: u32, addr: u32);
    sock_close = base(fd: u32);
    sock_connect = base(fd: u32, addr: u32);
    sock_get_broadcast = options(fd: u32, value: u32);
    sock_get_ip_multicast_loop = options(fd: u32, six: u32, value: u32);
    sock_get_ip_multicast_ttl = options(fd: u32, value: u32);
    sock_get_ip_ttl = options(fd: u32, value: u32);
    sock_get_ipv6_only = options(fd: u32, value: u32);
    sock_get_keep_alive = options(fd: u32, value: u32);
    sock_get_linger = options(fd: u32, on: u32, seconds: u32);
    sock_get_recv_buf_size = options(fd: u32, value: u32);
    sock_get_recv_timeout = options(fd: u32, value: u32);
    sock_get_reuse_addr = options(fd: u32, value: u32);
    sock_get_reuse_port = options(fd: u32, value: u32);
    sock_get_send_buf_size = options(fd: u32, value: u32);
    sock_get_send_timeout = options(fd: u32, value: u32);
    sock_get_tcp_fastopen_connect = options(fd: u32, value: u32);
    sock_get_tcp_keep_idle = options(fd: u32, value: u32);
    sock_get_tcp_keep_intvl = options(fd: u32, value: u32);
    sock_get_tcp_no_delay = options(fd: u32, value: u32);
    sock_get_tcp_quick_ack = options(fd: u32, value: u32);
    sock_open = base(pool: u32, family: u32, kind: u32, opened: u32);
    sock_recv_from = base(
        fd: u32, data: u32, data_len: u32, flags: u32, addr: u32, received: u32
    );
    sock_send_to = base(fd: u32, data: u32, data_len: u32, flags: u32, addr: u32, sent: u32);
    sock_set_broadcast = options(fd: u32, value: u32);
    sock_set_ip_add_membership = options(fd: u32, group: u32, interface: u32);
    sock_set_ip_drop_membership = options(fd: u32, group: u32, interface: u32);
    sock_set_ip_multicast_loop = options(fd: u32, six: u32, value: u32);
    sock_set_ip_multicast_ttl = options(fd: u32, value: u32);
    sock_set_ip_ttl = options(fd: u32, value: u32);
    sock_set_ipv6_only = options(fd: u32, value: u32);
    sock_set_keep_alive = options(fd: u32, value: u32);
    sock_set_linger = options(fd: u32, on: u32, seconds: u32);
    sock_set_recv_buf_size = options(fd: u32, value: u32);
    sock_set_recv_timeout = options(fd: u32, micros: i64);
    sock_set_reuse_addr = options(fd: u32, value: u32);
    sock_set_reuse_port = options(fd: u32, value: u32);
    sock_set_send_buf_size = options(fd: u32, value: u32);
    sock_set_send_timeout = options(fd: u32, micros: i64);
    sock_set_tcp_fastopen_connect = options(fd: u32, value: u32);
    sock_set_tcp_keep_idle = options(fd: u32, value: u32);
    sock_set_tcp_keep_intvl = options(fd: u32, value: u32);
    sock_set_tcp_no_delay = options(fd: u32, value: u32);
    sock_set_tcp_quick_ack = options(fd: u32, value: u32);
}
