//! `sock_getaddrinfo` with a hosts file of the test's own.

use super::*;
use crate::wasi::NameFiles;
use resolver::Failure;

/// The guest's list of results: elements with socket addresses and data, linked.
struct List {
    first: u32,
    at: u32,
    most: u32,
    found: u32,
}

const ELEMENT: u32 = 28;

fn list(guest: &mut Guest, most: u32) -> List {
    let (elements, addresses, data) = (
        guest.room((ELEMENT * most) as usize),
        guest.room(12 * most as usize),
        guest.room(32 * most as usize),
    );
    for n in 0..most {
        let mut element = [0; ELEMENT as usize];
        element[12..16].copy_from_slice(&(addresses + 12 * n).to_le_bytes());
        let next = if n + 1 < most { elements + ELEMENT * (n + 1) } else { 0 };
        element[24..].copy_from_slice(&next.to_le_bytes());
        guest.memory[(elements + ELEMENT * n) as usize..][..28].copy_from_slice(&element);
        let mut address = [0; 12];
        address[4] = 14;
        address[8..].copy_from_slice(&(data + 32 * n).to_le_bytes());
        guest.memory[(addresses + 12 * n) as usize..][..12].copy_from_slice(&address);
    }
    List { first: guest.put(&elements.to_le_bytes()), at: elements, most, found: guest.room(4) }
}

/// Flags, family, kind, protocol as a hint.
fn hints(guest: &mut Guest, flags: u16, family: u8, kind: u8, protocol: u8) -> u32 {
    let mut bytes = [0; 28];
    bytes[..2].copy_from_slice(&flags.to_le_bytes());
    bytes[2..5].copy_from_slice(&[family, kind, protocol]);
    guest.put(&bytes)
}

fn ask(
    guest: &mut Guest,
    (node, service): (&str, &str),
    hints: u32,
    list: &List,
) -> Result<u32, Failure> {
    let (n, s) = (guest.put(node.as_bytes()), guest.put(service.as_bytes()));
    let (nl, sl) = (node.len() as u32, service.len() as u32);
    let (first, most, found) = (list.first, list.most, list.found);
    guest.call(|c, m| resolver::sock_getaddrinfo(c, m, n, nl, s, sl, hints, first, most, found))?;
    Ok(guest.u32_at(list.found))
}

fn guest() -> (Guest, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let files = NameFiles { hosts: dir.path().join("hosts"), resolv_conf: dir.path().join("none") };
    std::fs::write(&files.hosts, "192.0.2.1 host.example h\n2001:db8::1 host.example\n").unwrap();
    let guest = Guest::with("allow", |grants| {
        grants.name_files(files);
    });
    (guest, dir)
}

/// The data of a result: port in network order, then what the family has.
fn data(guest: &Guest, list: &List, n: u32) -> Vec<u8> {
    let address = guest.u32_at(list.at + ELEMENT * n + 12);
    guest.bytes(guest.u32_at(address + 8), guest.u32_at(address + 4) as usize).to_vec()
}

#[test]
fn results_fill_the_guests_list() {
    let (mut guest, _dir) = guest();
    let (list, hint) = (list(&mut guest, 4), hints(&mut guest, 0, 0, 2, 1));
    // With the NUL that clients count in.
    assert_eq!(ask(&mut guest, ("host.example\0", "http\0"), hint, &list), Ok(2));
    assert_eq!(guest.bytes(list.at, 5), [0, 0, 1, 2, 1]);
    assert_eq!(guest.u32_at(list.at + 8), 16);
    assert_eq!(guest.bytes(guest.u32_at(list.at + 12), 8), [1, 0, 0, 0, 14, 0, 0, 0]);
    let mut four = vec![0, 80, 192, 0, 2, 1];
    four.resize(14, 0);
    assert_eq!(data(&guest, &list, 0), four);
    let mut six = vec![0, 80, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8];
    six.resize(21, 0);
    six.extend([1, 0, 0, 0, 0]);
    assert_eq!(data(&guest, &list, 1), six);
    assert_eq!(guest.bytes(list.at + ELEMENT, 5), [0, 0, 2, 2, 1]);
}

#[test]
fn hints_choose_family_kind_and_form() {
    let (mut guest, _dir) = guest();
    let list = list(&mut guest, 4);
    let host = ("host.example", "80");
    let both = ask(&mut guest, host, 0, &list);
    assert_eq!(both, Ok(4), "two families, two kinds");
    for (family, kind, protocol, result) in [
        (1, 2, 0, Ok(1)),
        (2, 1, 2, Ok(1)),
        (1, 0, 2, Ok(1)),
        (3, 2, 0, Err(Failure::FAMILY)),
        (1, 3, 0, Err(Failure::KIND)),
        (1, 1, 1, Err(Failure::KIND)),
    ] {
        let hint = hints(&mut guest, 0, family, kind, protocol);
        assert_eq!(ask(&mut guest, host, hint, &list), result);
    }
    let numeric = hints(&mut guest, 4 | 8, 0, 2, 0);
    assert_eq!(ask(&mut guest, host, numeric, &list), Err(Failure::NO_NAME));
    assert_eq!(ask(&mut guest, ("::1", "http"), numeric, &list), Err(Failure::SERVICE));
    assert_eq!(ask(&mut guest, ("::1", "80"), numeric, &list), Ok(1));
    let four = hints(&mut guest, 0, 1, 2, 0);
    assert_eq!(ask(&mut guest, ("::1", "80"), four, &list), Err(Failure::NO_ADDRESS));
    let passive = hints(&mut guest, 1, 1, 2, 0);
    assert_eq!(ask(&mut guest, ("", "80"), passive, &list), Ok(1));
    assert_eq!(data(&guest, &list, 0)[2..6], [0; 4]);
    assert_eq!(ask(&mut guest, ("", ""), passive, &list), Err(Failure::NO_NAME));
}

#[test]
fn canonical_names_stay_inside_their_room() {
    let (mut guest, _dir) = guest();
    let (list, hint) = (list(&mut guest, 1), hints(&mut guest, 2, 1, 2, 0));
    let place = guest.put(&[9; 32]);
    for (room, written) in [(32_u32, 13), (13, 13), (12, 0), (0, 0)] {
        guest.memory[list.at as usize + 16..][..4].copy_from_slice(&place.to_le_bytes());
        guest.memory[list.at as usize + 20..][..4].copy_from_slice(&room.to_le_bytes());
        guest.memory[place as usize..][..32].fill(9);
        assert_eq!(ask(&mut guest, ("h", ""), hint, &list), Ok(1));
        assert_eq!(guest.u32_at(list.at + 20), written);
        let expected: &[u8] = if written == 0 { &[9; 13] } else { b"host.example\0" };
        assert_eq!(guest.bytes(place, 13), expected);
    }
}

#[test]
fn hostile_lists_end() {
    let (mut guest, _dir) = guest();
    let mut list = list(&mut guest, 2);
    // An element that follows itself, in a list that is said to be endless.
    guest.memory[list.at as usize + 24..][..4].copy_from_slice(&list.at.to_le_bytes());
    list.most = u32::MAX;
    assert_eq!(ask(&mut guest, ("host.example", ""), 0, &list), Ok(4));
    guest.memory[list.at as usize + 24..][..4].copy_from_slice(&0_u32.to_le_bytes());
    assert_eq!(ask(&mut guest, ("host.example", ""), 0, &list), Ok(1), "it ends early");
    list.most = 0;
    assert_eq!(ask(&mut guest, ("host.example", ""), 0, &list), Ok(0));
    list.most = 1;
    let errno = |errno: Errno| Err(Failure::from(errno));
    for (bad, error) in [(2_u32, Errno::Inval), (70_000, Errno::Fault)] {
        guest.memory[list.at as usize + 12..][..4].copy_from_slice(&bad.to_le_bytes());
        assert_eq!(ask(&mut guest, ("host.example", ""), 0, &list), errno(error));
    }
    for (first, error) in [(2, Errno::Inval), (u32::MAX - 3, Errno::Fault)] {
        list.first = first;
        assert_eq!(ask(&mut guest, ("host.example", ""), 0, &list), errno(error));
    }
    let long = "x".repeat(5000);
    list.first = guest.put(&list.at.to_le_bytes());
    assert_eq!(ask(&mut guest, (&long, ""), 0, &list), Err(Failure::NO_NAME));
    let denied = &mut Guest::with("deny", |_| {});
    list.first = denied.put(&list.at.to_le_bytes());
    assert_eq!(ask(denied, ("host.example", ""), 0, &list), errno(Errno::Acces));
}
