//! Option strings against the bits of `mount(2)`.

use super::*;

fn mount(kind: &str, options: &[&str]) -> Mount {
    let mount = serde_json::json!({
        "destination": "/d", "type": kind, "source": "s", "options": options,
    });
    Mount::parse(&serde_json::from_value(mount).unwrap(), Path::new("/bundle")).unwrap()
}

#[test]
fn tmpfs_as_engines_write_it() {
    let shm = mount("tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]);
    // MS_NOSUID | MS_NODEV | MS_NOEXEC
    assert_eq!(shm.flags.bits(), 2 | 4 | 8);
    assert_eq!(shm.data, "mode=1777,size=65536k");
    assert_eq!(shm.source.as_deref(), Some(Path::new("s")));
    assert!(!shm.is_bind());
}

#[test]
fn bind_is_known_by_option_or_by_type() {
    let by_option = mount("none", &["rbind", "rprivate", "ro"]);
    // MS_BIND | MS_REC | MS_RDONLY
    assert_eq!(by_option.flags.bits(), 4096 | 16384 | 1);
    // MS_PRIVATE | MS_REC
    assert_eq!(by_option.propagation.unwrap().bits(), 1 << 18 | 16384);
    assert_eq!(by_option.kind, "bind");
    assert_eq!(by_option.source.as_deref(), Some(Path::new("/bundle/s")));
    assert!(by_option.is_read_only());
    let by_type = mount("bind", &[]);
    assert!(by_type.is_bind());
    assert!(!by_type.is_read_only());
}

#[test]
fn the_last_word_wins() {
    let writable = mount("bind", &["ro", "nosuid", "rw"]);
    assert_eq!(writable.flags, MountFlags::BIND.union(MountFlags::NO_SUID));
    assert_eq!(writable.cleared, MountFlags::READ_ONLY);
    let recursive = mount("bind", &["rro", "rrw", "rnoatime", "rrelatime"]);
    assert_eq!(recursive.recursive, RecursiveAttrs { set: 0, clear: 1 | 0x70 });
    let read_only = mount("bind", &["rrw", "rro"]);
    assert!(read_only.is_read_only());
}

#[test]
fn every_set_option_has_its_opposite() {
    let opposites = [
        ("noacl", "acl"),
        ("async", "sync"),
        ("atime", "noatime"),
        ("dev", "nodev"),
        ("diratime", "nodiratime"),
        ("exec", "noexec"),
        ("noiversion", "iversion"),
        ("nolazytime", "lazytime"),
        ("loud", "silent"),
        ("nomand", "mand"),
        ("norelatime", "relatime"),
        ("nostrictatime", "strictatime"),
        ("suid", "nosuid"),
        ("symfollow", "nosymfollow"),
        ("rw", "ro"),
    ];
    for (clear, set) in opposites {
        let both = mount("tmpfs", &[set, clear]);
        assert_eq!(both.flags, MountFlags::default(), "{clear} after {set}");
        assert_ne!(both.cleared, MountFlags::default(), "{clear}");
        assert_eq!(mount("tmpfs", &[clear, set]).cleared, MountFlags::default(), "{set}");
        assert_eq!(both.data, "");
    }
}

#[test]
fn words_of_fstab_do_not_reach_the_file_system() {
    let odd = mount("tmpfs", &["defaults", "nofail", "x-systemd.automount", "comment=x", "user"]);
    assert_eq!(odd.data, "");
    assert_eq!(odd.flags.bits(), 2 | 4 | 8);
}

#[test]
fn propagation_and_extensions() {
    for (option, bits) in [
        ("shared", 1 << 20),
        ("rshared", 1 << 20 | 16384),
        ("slave", 1 << 19),
        ("rslave", 1 << 19 | 16384),
        ("private", 1 << 18),
        ("unbindable", 1 << 17),
        ("runbindable", 1 << 17 | 16384),
    ] {
        assert_eq!(mount("bind", &[option]).propagation.unwrap().bits(), bits, "{option}");
    }
    assert!(mount("tmpfs", &["tmpcopyup"]).copy_up);
    assert!(mount("bind", &["ridmap"]).id_map.unwrap().recursive);
}

#[test]
fn bad_mounts_are_refused() {
    let parse = |mount: serde_json::Value| {
        let mount = serde_json::from_value(mount).unwrap();
        Mount::parse(&mount, Path::new("/b")).unwrap_err().to_string()
    };
    let no_source = parse(serde_json::json!({"destination": "/d", "options": ["bind"]}));
    assert!(no_source.contains("needs a source"), "{no_source}");
    let long = "x".repeat(5000);
    let long = parse(serde_json::json!({"destination": "/d", "type": "tmpfs", "options": [long]}));
    assert!(long.contains("4095"), "{long}");
    assert!(long.len() < 400, "{long}");
    let nul = parse(serde_json::json!({"destination": "/d\u{0}x", "type": "tmpfs"}));
    assert!(nul.contains("NUL"), "{nul}");
    let half = parse(serde_json::json!({
        "destination": "/d", "type": "bind", "source": "/s",
        "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
    }));
    assert!(half.contains("together"), "{half}");
}
