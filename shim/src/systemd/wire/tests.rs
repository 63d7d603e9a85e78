//! Messages as the specification lays them out, byte by byte, and damaged ones.

use super::*;

const HELLO: Method = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "Hello",
};

#[test]
fn a_call_without_values() {
    let message = call(1, &HELLO, &Body::default());
    let mut wanted = b"l\x01\0\x01\0\0\0\0\x01\0\0\0\x6d\0\0\0".to_vec();
    wanted.extend(b"\x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0");
    wanted.extend(b"\x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
    wanted.extend(b"\x03\x01s\0\x05\0\0\0Hello\0\0\0");
    wanted.extend(b"\x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
    assert_eq!(message, wanted, "{}", message.escape_ascii());
    let head: [u8; FIXED] = message[..FIXED].try_into().unwrap();
    assert_eq!(length(&head).unwrap(), message.len());
}

#[test]
fn values_lie_at_multiples_of_their_alignment() {
    let properties = [
        ("A", Value::Bool(true)),
        ("Bc", Value::Number(7)),
        ("D", Value::Numbers(vec![8, 9])),
        ("E", Value::Bytes(vec![1, 2, 3])),
        ("F", Value::Text("x".into())),
    ];
    let body = Body::default().text("u").bool(false).properties(&properties).no_units();
    assert_eq!(body.signature, "sba(sv)a(sa(sv))");
    let mut wanted = b"\x01\0\0\0u\0\0\0\0\0\0\0".to_vec();
    wanted.extend(b"\x6a\0\0\0");
    wanted.extend(b"\x01\0\0\0A\0\x01b\0\0\0\0\x01\0\0\0");
    wanted.extend(b"\x02\0\0\0Bc\0\x01t\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0");
    wanted.extend(b"\x01\0\0\0D\0\x02au\0\0\0\x08\0\0\0\x08\0\0\0\x09\0\0\0");
    wanted.extend(b"\x01\0\0\0E\0\x02ay\0\0\0\x03\0\0\0\x01\x02\x03\0\0\0\0\0");
    wanted.extend(b"\x01\0\0\0F\0\x01s\0\0\0\0\x01\0\0\0x\0");
    // The second array begins, though empty, at a multiple of eight.
    wanted.extend(b"\0\0\0\0\0\0");
    assert_eq!(body.bytes.0, wanted, "{}", body.bytes.0.escape_ascii());
}

/// What systemd says when a job has ended.
fn job_removed() -> Vec<u8> {
    let mut message = Bytes(vec![b'l', 4, 1, 1]);
    let mut body = Bytes::default();
    body.u32(12);
    ["/org/freedesktop/systemd1/job/12", "x.scope", "done"].iter().for_each(|text| body.text(text));
    message.length(body.0.len());
    message.u32(99);
    message.array(8, |bytes| {
        for (code, kind, text) in [(1, "o", "/org/freedesktop/systemd1"), (3, "s", "JobRemoved")] {
            bytes.align(8);
            bytes.0.extend([code]);
            bytes.signature(kind);
            bytes.text(text);
        }
        bytes.align(8);
        bytes.0.push(8);
        bytes.signature("g");
        bytes.signature("uoss");
    });
    message.align(8);
    message.0.extend(body.0);
    message.0
}

#[test]
fn a_signal_is_read() {
    let bytes = job_removed();
    let read = message(&bytes).unwrap();
    let texts = ["/org/freedesktop/systemd1/job/12", "x.scope", "done"].map(str::to_owned);
    let wanted = Message {
        kind: Kind::Signal,
        answers: 0,
        name: "JobRemoved".into(),
        texts: texts.to_vec(),
    };
    assert_eq!(read, wanted);
}

#[test]
fn a_message_that_is_cut_anywhere_is_refused() {
    let bytes = job_removed();
    for end in 0..bytes.len() {
        let error = message(&bytes[..end]).unwrap_err().to_string();
        assert_eq!(error, "a message of D-Bus is damaged", "{end}");
    }
    let mut long: [u8; FIXED] = bytes[..FIXED].try_into().unwrap();
    long[7] = 0x7f;
    assert!(length(&long).unwrap_err().to_string().contains("too long"));
    long[0] = b'B';
    assert!(length(&long).unwrap_err().to_string().contains("byte order"));
}
