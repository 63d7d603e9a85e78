//! Parameters without sense: every function answers, none panics, nothing grows.

use super::*;
use crate::wasi::preview1::{args, clock, environ, poll, random, sock};

/// Addresses and lengths around every edge of a memory of one page, and flags with odd bits.
const VALUES: [u32; 12] =
    [0, 1, 3, 8, 4096, 65_528, 65_535, 65_536, 65_537, 1 << 31, u32::MAX - 7, u32::MAX];

/// A small generator, so that failures repeat (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    fn value(&mut self) -> u32 {
        match self.next() % 4 {
            0 => self.next() % 16,
            1 => self.next(),
            _ => VALUES[self.next() as usize % VALUES.len()],
        }
    }

    fn long(&mut self) -> u64 {
        u64::from(self.value()) << 32 | u64::from(self.value())
    }
}

fn call(c: &WasiCtx, m: &mut GuestMemory<'_>, function: u32, r: &mut Random) {
    let fd = r.next() % 8;
    let (v, l) = ([0; 10].map(|_| r.value()), [0; 2].map(|_| r.long()));
    let _: Result<(), Errno> = match function {
        0 => args::args_get(c, m, v[0], v[1]),
        1 => args::args_sizes_get(c, m, v[0], v[1]),
        2 => environ::environ_get(c, m, v[0], v[1]),
        3 => environ::environ_sizes_get(c, m, v[0], v[1]),
        4 => clock::clock_res_get(c, m, v[0], v[1]),
        5 => clock::clock_time_get(c, m, v[0], l[0], v[1]),
        6 => files::fd_advise(c, m, fd, l[0], l[1], v[0]),
        // A length that fits is not hostile, only large.
        7 => files::fd_allocate(c, m, fd, l[0] | 1 << 62, l[1]),
        8 => fds::fd_close(c, m, fd),
        9 => fds::fd_datasync(c, m, fd),
        10 => fds::fd_fdstat_get(c, m, fd, v[0]),
        11 => fds::fd_fdstat_set_flags(c, m, fd, v[0] | 4),
        12 => fds::fd_fdstat_set_rights(c, m, fd, l[0], l[1]),
        13 => fds::fd_filestat_get(c, m, fd, v[0]),
        14 => fds::fd_filestat_set_size(c, m, fd, l[0]),
        15 => fds::fd_filestat_set_times(c, m, fd, l[0], l[1], v[0]),
        16 => files::fd_pread(c, m, fd, v[0], v[1], l[0], v[2]),
        17 => fds::fd_prestat_get(c, m, fd, v[0]),
        18 => fds::fd_prestat_dir_name(c, m, fd, v[0], v[1]),
        19 => files::fd_pwrite(c, m, fd, v[0], v[1], l[0], v[2]),
        20 => files::fd_read(c, m, fd, v[0], v[1], v[2]),
        21 => files::fd_readdir(c, m, fd, v[0], v[1], l[0], v[2]),
        22 => fds::fd_renumber(c, m, fd, v[0] % 8),
        23 => files::fd_seek(c, m, fd, l[0].cast_signed(), v[0], v[1]),
        24 => fds::fd_sync(c, m, fd),
        25 => files::fd_tell(c, m, fd, v[0]),
        26 => files::fd_write(c, m, fd, v[0], v[1], v[2]),
        27 => paths::path_create_directory(c, m, fd, v[0], v[1]),
        28 => paths::path_filestat_get(c, m, fd, v[0], v[1], v[2], v[3]),
        29 => paths::path_filestat_set_times(c, m, fd, v[0], v[1], v[2], l[0], l[1], v[3]),
        30 => paths::path_link(c, m, fd, v[0], v[1], v[2], v[3] % 8, v[4], v[5]),
        31 => paths::path_open(c, m, fd, v[0], v[1], v[2], v[3], l[0], l[1], v[4] | 4, v[5]),
        32 => paths::path_readlink(c, m, fd, v[0], v[1], v[2], v[3], v[4]),
        33 => paths::path_remove_directory(c, m, fd, v[0], v[1]),
        34 => paths::path_rename(c, m, fd, v[0], v[1], v[2] % 8, v[3], v[4]),
        35 => paths::path_symlink(c, m, v[0], v[1], fd, v[2], v[3]),
        36 => paths::path_unlink_file(c, m, fd, v[0], v[1]),
        // Every subscription is of time that is past, so that none waits.
        37 => {
            let mut zeros = vec![0; 65_536];
            zeros[16] = (r.next() % 4) as u8;
            let _ = m.write_bytes(0, &zeros);
            poll::poll_oneoff(c, m, v[0], v[1], v[2], v[3])
        }
        38 => random::random_get(c, m, v[0], v[1]),
        39 => sock::sock_accept(c, m, fd, v[0], v[1]),
        40 => sock::sock_recv(c, m, fd, v[0], v[1], v[2], v[3], v[4]),
        41 => sock::sock_send(c, m, fd, v[0], v[1], v[2], v[3]),
        _ => sock::sock_shutdown(c, m, fd, v[0]),
    };
}

#[test]
fn random_parameters_never_panic_or_leave_the_directory() {
    for seed in 1..=6_u64 {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut guest = Guest::with(|grants| {
            grants.stdin(reader).stdout(writer).socket(socket.into()).max_descriptors(16);
            grants.arg("a").env("B", "c");
        });
        for fd in [0, 1, 4] {
            guest.call(|c, m| fds::fd_fdstat_set_flags(c, m, fd, 4)).unwrap();
        }
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for _ in 0..20_000 {
            let function = random.next() % 43;
            // Short paths at low addresses, and noise above.
            let (at, byte) = (random.next() as usize % 65_536, random.next() as u8);
            guest.memory[at] = byte;
            guest.memory[8..14].copy_from_slice(b"../a/b");
            guest.call(|c, m| call(c, m, function, &mut random));
        }
        let outside = fs::read_dir(guest.dir.path()).unwrap().count();
        assert_eq!(outside, 1, "only the granted directory");
    }
}
