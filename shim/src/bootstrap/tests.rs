//! Which protocol containerd spoke, and what it said.

use super::*;
use crate::request::TaskId;
use std::ffi::OsString;

fn flags() -> Flags {
    Flags {
        namespace: "k8s.io".into(),
        id: TaskId::parse("abc").unwrap(),
        address: "/run/c.sock".into(),
        bundle: None,
        debug: false,
    }
}

fn env(name: &str) -> Option<OsString> {
    (name == ENV_TTRPC_ADDRESS).then(|| "/run/env.ttrpc".into())
}

fn params() -> BootstrapParams {
    BootstrapParams {
        instance_id: "abc".into(),
        namespace: "k8s.io".into(),
        containerd_ttrpc_address: "/run/msg.ttrpc".into(),
        socket_dir: Some("/tmp/s".into()),
        log_level: LogLevel::LOG_LEVEL_WARN.into(),
        ..Default::default()
    }
}

#[test]
fn a_message_for_us_is_the_new_protocol_and_flags_fill_its_gaps() {
    let input = params().write_to_bytes().unwrap();
    let (options, protocol) = options(&input, &flags(), &env).unwrap();
    assert_eq!(protocol, Protocol::Messages);
    assert_eq!(options.ttrpc_address, "/run/msg.ttrpc");
    assert_eq!(options.address, "/run/c.sock");
    assert!(!options.debug);
    let socket = options.socket_address("abc");
    assert!(socket.starts_with("unix:///tmp/s/"), "{socket}");
}

#[test]
fn nothing_garbage_and_runtime_options_are_the_old_protocol() {
    let any = Any { type_url: "runtimeoptions.v1.Options".into(), ..Default::default() };
    let full = Any { value: vec![0x12, 1, b'x'], ..any.clone() };
    for input in [
        Vec::new(),
        vec![0xff, 0xfe, 0x01],
        any.write_to_bytes().unwrap(),
        full.write_to_bytes().unwrap(),
    ] {
        let (options, protocol) = options(&input, &flags(), &env).unwrap();
        assert_eq!(protocol, Protocol::Plain, "{input:?}");
        assert_eq!((options.id.as_str(), options.namespace.as_str()), ("abc", "k8s.io"));
        assert_eq!(options.ttrpc_address, "/run/env.ttrpc");
    }
}

#[test]
fn a_message_for_somebody_else_is_an_error() {
    let input = BootstrapParams { instance_id: "xyz".into(), ..params() }.write_to_bytes().unwrap();
    let error = options(&input, &flags(), &env).unwrap_err();
    assert!(matches!(error, BootstrapError::Mismatch { .. }), "{error}");
}

#[test]
fn the_debug_flag_is_heard_in_both_protocols() {
    let flags = Flags { debug: true, ..flags() };
    let input = params().write_to_bytes().unwrap();
    assert!(options(&input, &flags, &env).unwrap().0.debug);
    assert!(options(&[], &flags, &env).unwrap().0.debug);
}

#[test]
fn events_need_an_address() {
    let error = options(&[], &flags(), &|_| None).unwrap_err();
    assert!(matches!(error, BootstrapError::NoEvents));
}

#[test]
fn the_group_is_the_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("config.json"), text).unwrap();
    assert_eq!(group(dir.path()).unwrap(), None);
    write(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","x":"y"},"process":{}}"#);
    assert_eq!(group(dir.path()).unwrap().as_deref(), Some("pod"));
    for alone in
        [r#"{"annotations":null}"#, "{}", r#"{"annotations":{"io.kubernetes.cri.sandbox-id":""}}"#]
    {
        write(alone);
        assert_eq!(group(dir.path()).unwrap(), None, "{alone}");
    }
    for bad in ["", "[1]", r#"{"annotations":7}"#] {
        write(bad);
        assert!(matches!(group(dir.path()), Err(BootstrapError::Spec { .. })), "{bad}");
    }
}

#[test]
fn a_listening_socket_is_kept_and_a_dead_one_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = bind(&path).unwrap();
    remove_dead_socket(&path).unwrap();
    assert!(path.exists());
    drop(listener);
    remove_dead_socket(&path).unwrap();
    assert!(!path.exists());
    remove_dead_socket(&path).unwrap();
}

#[test]
fn answers() {
    assert_eq!(Protocol::Plain.answer("unix:///a").unwrap(), b"unix:///a");
    let bytes = Protocol::Messages.answer("unix:///a").unwrap();
    let result = BootstrapResult::parse_from_bytes(&bytes).unwrap();
    assert_eq!((result.version, result.address.as_str()), (3, "unix:///a"));
}
