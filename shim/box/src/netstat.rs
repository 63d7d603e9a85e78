//! `netstat`.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::args::Options;
use crate::error::{Failure, reason};
use crate::out::Context;

/// States of TCP by the kernel's numbers, from 1 on.
const STATES: [&str; 12] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];
const LISTEN: usize = 10;
/// A UDP socket that nobody is connected to is in the state of a closed one.
const CLOSED: usize = 7;
/// A flag of a UNIX socket that listens, and what type and state the numbers mean.
const ACCEPTS: u32 = 0x1_0000;
const TYPES: [&str; 6] = ["", "STREAM", "DGRAM", "RAW", "RDM", "SEQPACKET"];
const UNIX_STATES: [&str; 5] = ["FREE", "", "CONNECTING", "CONNECTED", "DISCONNECTING"];

/// Which sockets are wanted.
#[derive(Clone, Copy)]
struct Wanted {
    all: bool,
    listening: bool,
}

impl Wanted {
    fn has(self, listens: bool) -> bool {
        self.all || self.listening == listens
    }

    fn which(self) -> &'static str {
        match self {
            Wanted { all: true, .. } => "servers and established",
            Wanted { listening: true, .. } => "only servers",
            Wanted { .. } => "w/o servers",
        }
    }
}

/// Lists the sockets of the container's network. Numbers are never turned into names; processes are not
/// known in here, so `-p` changes nothing.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let options = Options::parse(words, "altunwxpeW", &[])?;
    let wanted = Wanted { all: options.has('a'), listening: options.has('l') };
    let any = "tuwx".chars().any(|letter| options.has(letter));
    let families: Vec<&str> = [('t', "tcp"), ('u', "udp"), ('w', "raw")]
        .iter()
        .filter(|(letter, _)| !any || options.has(*letter))
        .map(|(_, name)| *name)
        .collect();
    if !families.is_empty() {
        context.line(format_args!("Active Internet connections ({})", wanted.which()))?;
        context
            .line("Proto Recv-Q Send-Q Local Address           Foreign Address         State")?;
        for family in families {
            for name in [family.to_owned(), format!("{family}6")] {
                internet(context, &name, family == "tcp", wanted)?;
            }
        }
    }
    if !any || options.has('x') {
        unix(context, wanted)?;
    }
    Ok(())
}

/// A table of the kernel without its head. One that there is not, as without IPv6, is empty.
fn table(name: &str) -> Result<Vec<String>, Failure> {
    let path = format!("/proc/net/{name}");
    match std::fs::read(&path) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).lines().skip(1).map(str::to_owned).collect()),
        Err(error) if name.ends_with('6') && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => {
            let reason = reason(&error);
            Err(Failure::Told(format!(
                "cannot list sockets: {path}: {reason}; does the container mount /proc?"
            )))
        }
    }
}

fn internet(context: &mut Context, name: &str, tcp: bool, wanted: Wanted) -> Result<(), Failure> {
    for line in table(name)? {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, queues, ..] = fields[..] else { continue };
        let state = usize::from_str_radix(state, 16).unwrap_or(0);
        let listens = state == if tcp { LISTEN } else { CLOSED };
        if !wanted.has(listens) {
            continue;
        }
        let (Some(local), Some(remote)) = (address(local), address(remote)) else { continue };
        let queue = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
        let (send, receive) = queues.split_once(':').unwrap_or_default();
        let state = match state {
            CLOSED if !tcp => "",
            state => STATES.get(state.wrapping_sub(1)).copied().unwrap_or("UNKNOWN"),
        };
        let line = format!(
            "{name:<5} {:>6} {:>6} {local:<23} {remote:<23} {state}",
            queue(receive),
            queue(send)
        );
        context.line(line.trim_end())?;
    }
    Ok(())
}

/// `0100007F:1F90`: words of an address as the machine has them, in hexadecimal, then the port.
fn address(text: &str) -> Option<String> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |n: usize| u32::from_str_radix(ip.get(8 * n..8 * n + 8)?, 16).ok();
    let ip = match ip.len() {
        8 => Ipv4Addr::from(word(0)?.to_le_bytes()).to_string(),
        32 => {
            let mut octets = [0; 16];
            for n in 0..4 {
                octets[4 * n..4 * n + 4].copy_from_slice(&word(n)?.to_le_bytes());
            }
            Ipv6Addr::from(octets).to_string()
        }
        _ => return None,
    };
    Some(if port == 0 { format!("{ip}:*") } else { format!("{ip}:{port}") })
}

fn unix(context: &mut Context, wanted: Wanted) -> Result<(), Failure> {
    let lines = table("unix")?;
    context.line(format_args!("Active UNIX domain sockets ({})", wanted.which()))?;
    context.line("Proto RefCnt Flags       Type       State         I-Node Path")?;
    for line in lines {
        let mut rest = line.as_str();
        let mut next = || {
            let (field, after) =
                rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
            rest = after;
            field.to_owned()
        };
        let (_, references, _, flags, kind, state, inode) =
            (next(), next(), next(), next(), next(), next(), next());
        let hexadecimal = |text: &str| u32::from_str_radix(text, 16).unwrap_or(0);
        let listens = hexadecimal(&flags) & ACCEPTS != 0;
        if !wanted.has(listens) {
            continue;
        }
        let kind = TYPES.get(hexadecimal(&kind) as usize).copied().unwrap_or("UNKNOWN");
        let state = match UNIX_STATES.get(hexadecimal(&state) as usize) {
            _ if listens => "LISTENING",
            Some(state) => state,
            None => "UNKNOWN",
        };
        let path = context.shown(rest.trim_start()).into_owned();
        let flags = if listens { "[ ACC ]" } else { "[ ]" };
        let line = format!(
            "unix  {:<6} {flags:<11} {kind:<10} {state:<13} {inode:>6} {path}",
            hexadecimal(&references)
        );
        context.line(line.trim_end())?;
    }
    Ok(())
}
