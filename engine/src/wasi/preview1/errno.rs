//! Error numbers of preview 1, and the one translation into them.

use rustix::io::Errno as HostErrno;

use crate::wasi::core::error::Error;
use crate::wasi::guest_mem::MemoryFault;

/// An error number as the guest sees it (`errno` of the preview 1 witx).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "names of the specification")]
pub enum Errno {
    TooBig = 1,
    Acces = 2,
    Addrinuse = 3,
    Addrnotavail = 4,
    Afnosupport = 5,
    Again = 6,
    Already = 7,
    Badf = 8,
    Badmsg = 9,
    Busy = 10,
    Canceled = 11,
    Child = 12,
    Connaborted = 13,
    Connrefused = 14,
    Connreset = 15,
    Deadlk = 16,
    Destaddrreq = 17,
    Dom = 18,
    Dquot = 19,
    Exist = 20,
    Fault = 21,
    Fbig = 22,
    Hostunreach = 23,
    Idrm = 24,
    Ilseq = 25,
    Inprogress = 26,
    Intr = 27,
    Inval = 28,
    Io = 29,
    Isconn = 30,
    Isdir = 31,
    Loop = 32,
    Mfile = 33,
    Mlink = 34,
    Msgsize = 35,
    Multihop = 36,
    Nametoolong = 37,
    Netdown = 38,
    Netreset = 39,
    Netunreach = 40,
    Nfile = 41,
    Nobufs = 42,
    Nodev = 43,
    Noent = 44,
    Noexec = 45,
    Nolck = 46,
    Nolink = 47,
    Nomem = 48,
    Nomsg = 49,
    Noprotoopt = 50,
    Nospc = 51,
    Nosys = 52,
    Notconn = 53,
    Notdir = 54,
    Notempty = 55,
    Notrecoverable = 56,
    Notsock = 57,
    Notsup = 58,
    Notty = 59,
    Nxio = 60,
    Overflow = 61,
    Ownerdead = 62,
    Perm = 63,
    Pipe = 64,
    Proto = 65,
    Protonosupport = 66,
    Prototype = 67,
    Range = 68,
    Rofs = 69,
    Spipe = 70,
    Srch = 71,
    Stale = 72,
    Timedout = 73,
    Txtbsy = 74,
    Xdev = 75,
    Notcapable = 76,
}

impl Errno {
    /// The error with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Errno> {
        let all = HOST.iter().map(|(_, errno)| *errno).chain([Errno::Notcapable]);
        all.into_iter().find(|errno| *errno as u32 == number)
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Errno {
        match error {
            Error::BadDescriptor => Errno::Badf,
            Error::TooManyDescriptors => Errno::Mfile,
            Error::NotDirectory => Errno::Notdir,
            Error::IsDirectory => Errno::Isdir,
            Error::NotSocket => Errno::Notsock,
            Error::NotSeekable => Errno::Spipe,
            Error::Escape => Errno::Perm,
            Error::ReadOnly => Errno::Rofs,
            Error::Invalid => Errno::Inval,
            Error::NotSupported => Errno::Notsup,
            Error::Interrupted => Errno::Intr,
            Error::Stopped => Errno::Canceled,
            Error::Denied => Errno::Acces,
            Error::Os(error) => Errno::from(error),
        }
    }
}

impl From<MemoryFault> for Errno {
    fn from(fault: MemoryFault) -> Errno {
        match fault {
            MemoryFault::OutOfBounds => Errno::Fault,
            MemoryFault::Misaligned => Errno::Inval,
            MemoryFault::Overflow => Errno::Overflow,
        }
    }
}

impl From<HostErrno> for Errno {
    fn from(error: HostErrno) -> Errno {
        HOST.iter().find(|(host, _)| *host == error).map_or(Errno::Io, |(_, errno)| *errno)
    }
}

/// Host error numbers; one that is not here has no counterpart and reads as an I/O error. The
/// frequent ones come first.
const HOST: &[(HostErrno, Errno)] = &[
    (HostErrno::NOENT, Errno::Noent),
    (HostErrno::AGAIN, Errno::Again),
    (HostErrno::EXIST, Errno::Exist),
    (HostErrno::NOTDIR, Errno::Notdir),
    (HostErrno::ISDIR, Errno::Isdir),
    (HostErrno::ACCESS, Errno::Acces),
    (HostErrno::PERM, Errno::Perm),
    (HostErrno::INVAL, Errno::Inval),
    (HostErrno::BADF, Errno::Badf),
    (HostErrno::PIPE, Errno::Pipe),
    (HostErrno::SPIPE, Errno::Spipe),
    (HostErrno::LOOP, Errno::Loop),
    (HostErrno::NOTEMPTY, Errno::Notempty),
    (HostErrno::ROFS, Errno::Rofs),
    (HostErrno::NOSPC, Errno::Nospc),
    (HostErrno::TOOBIG, Errno::TooBig),
    (HostErrno::ADDRINUSE, Errno::Addrinuse),
    (HostErrno::ADDRNOTAVAIL, Errno::Addrnotavail),
    (HostErrno::AFNOSUPPORT, Errno::Afnosupport),
    (HostErrno::ALREADY, Errno::Already),
    (HostErrno::BADMSG, Errno::Badmsg),
    (HostErrno::BUSY, Errno::Busy),
    (HostErrno::CANCELED, Errno::Canceled),
    (HostErrno::CHILD, Errno::Child),
    (HostErrno::CONNABORTED, Errno::Connaborted),
    (HostErrno::CONNREFUSED, Errno::Connrefused),
    (HostErrno::CONNRESET, Errno::Connreset),
    (HostErrno::DEADLK, Errno::Deadlk),
    (HostErrno::DESTADDRREQ, Errno::Destaddrreq),
    (HostErrno::DOM, Errno::Dom),
    (HostErrno::DQUOT, Errno::Dquot),
    (HostErrno::FAULT, Errno::Fault),
    (HostErrno::FBIG, Errno::Fbig),
    (HostErrno::HOSTUNREACH, Errno::Hostunreach),
    (HostErrno::IDRM, Errno::Idrm),
    (HostErrno::ILSEQ, Errno::Ilseq),
    (HostErrno::INPROGRESS, Errno::Inprogress),
    (HostErrno::INTR, Errno::Intr),
    (HostErrno::IO, Errno::Io),
    (HostErrno::ISCONN, Errno::Isconn),
    (HostErrno::MFILE, Errno::Mfile),
    (HostErrno::MLINK, Errno::Mlink),
    (HostErrno::MSGSIZE, Errno::Msgsize),
    (HostErrno::MULTIHOP, Errno::Multihop),
    (HostErrno::NAMETOOLONG, Errno::Nametoolong),
    (HostErrno::NETDOWN, Errno::Netdown),
    (HostErrno::NETRESET, Errno::Netreset),
    (HostErrno::NETUNREACH, Errno::Netunreach),
    (HostErrno::NFILE, Errno::Nfile),
    (HostErrno::NOBUFS, Errno::Nobufs),
    (HostErrno::NODEV, Errno::Nodev),
    (HostErrno::NOEXEC, Errno::Noexec),
    (HostErrno::NOLCK, Errno::Nolck),
    (HostErrno::NOLINK, Errno::Nolink),
    (HostErrno::NOMEM, Errno::Nomem),
    (HostErrno::NOMSG, Errno::Nomsg),
    (HostErrno::NOPROTOOPT, Errno::Noprotoopt),
    (HostErrno::NOSYS, Errno::Nosys),
    (HostErrno::NOTCONN, Errno::Notconn),
    (HostErrno::NOTRECOVERABLE, Errno::Notrecoverable),
    (HostErrno::NOTSOCK, Errno::Notsock),
    (HostErrno::OPNOTSUPP, Errno::Notsup),
    (HostErrno::NOTTY, Errno::Notty),
    (HostErrno::NXIO, Errno::Nxio),
    (HostErrno::OVERFLOW, Errno::Overflow),
    (HostErrno::OWNERDEAD, Errno::Ownerdead),
    (HostErrno::PROTO, Errno::Proto),
    (HostErrno::PROTONOSUPPORT, Errno::Protonosupport),
    (HostErrno::PROTOTYPE, Errno::Prototype),
    (HostErrno::RANGE, Errno::Range),
    (HostErrno::SRCH, Errno::Srch),
    (HostErrno::STALE, Errno::Stale),
    (HostErrno::TIMEDOUT, Errno::Timedout),
    (HostErrno::TXTBSY, Errno::Txtbsy),
    (HostErrno::XDEV, Errno::Xdev),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_error_translates_once() {
        for (n, (host, errno)) in HOST.iter().enumerate() {
            assert!(!HOST[..n].iter().any(|(h, e)| h == host || e == errno), "{host:?}");
        }
        // All numbers of the list but 76, which only this host gives.
        assert_eq!(HOST.len(), 75);
        assert_eq!(Errno::from(HostErrno::UCLEAN), Errno::Io);
        assert_eq!(Errno::from(Error::Os(HostErrno::NOENT)) as u16, 44);
        assert_eq!(Errno::Notcapable as u16, 76);
    }
}
