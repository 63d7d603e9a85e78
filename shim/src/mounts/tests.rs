//! Pure parts, and real mounts where the machine lets root make them.

use super::*;
use std::fs;

pub(super) fn overlay(options: &[&str]) -> RootfsMount {
    RootfsMount {
        kind: "overlay".into(),
        source: "overlay".into(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
    }
}

#[test]
fn options_are_sorted() {
    let options =
        sort(&overlay(&["ro", "nosuid", "rprivate", "index=off", "lowerdir=/a"])).unwrap();
    assert_eq!(options.flags, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID);
    assert_eq!(options.propagation, MsFlags::MS_PRIVATE | MsFlags::MS_REC);
    assert_eq!(options.data, "index=off,lowerdir=/a");
    let undone = sort(&overlay(&["ro", "rw"])).unwrap();
    assert_eq!(undone.flags, MsFlags::empty());
    assert!(matches!(sort(&overlay(&["loop"])), Err(MountError::Option { .. })));
}

#[test]
fn shortening_keeps_every_other_option() {
    let data = "workdir=/s/9/work,upperdir=/s/9/fs,lowerdir=/s/2/fs:/s/10/fs,index=off";
    let (base, short) = shorten(data).unwrap();
    assert_eq!(base, Path::new("/s"));
    assert_eq!(short, "workdir=/s/9/work,upperdir=/s/9/fs,lowerdir=2/fs:10/fs,index=off");
    assert_eq!(shorten("lowerdir=/a/1/fs").unwrap().1, "lowerdir=fs");
    assert_eq!(shorten("size=1m"), None);
}

#[test]
fn bind_mounts_stack_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "x").unwrap();
    let bind = |options: &[&str]| RootfsMount {
        kind: "bind".into(),
        source: source.to_str().unwrap().into(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
    };
    let mut made =
        RootfsMounts::make(dir.path(), &[bind(&["rbind", "rw"]), bind(&["rbind", "ro"])]).unwrap();
    let file = dir.path().join("rootfs/file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "x");
    assert_eq!(fs::write(&file, "y").unwrap_err().raw_os_error(), Some(libc::EROFS));
    made.remove().unwrap();
    made.remove().unwrap();
    assert!(!file.exists());
}

#[test]
fn an_overlay_of_many_layers_is_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<_> = (0..90)
        .map(|n| {
            let layer = dir.path().join(format!("a-snapshot-folder-with-a-long-name/{n}/fs"));
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join(format!("file{n}")), "").unwrap();
            layer.to_str().unwrap().to_owned()
        })
        .collect();
    let lower = format!("lowerdir={}", layers.join(":"));
    assert!(lower.len() > OPTIONS_LIMIT);
    let before = std::env::current_dir().unwrap();
    let mut made = RootfsMounts::make(dir.path(), &[overlay(&[&lower])]).unwrap();
    assert!(dir.path().join("rootfs/file0").exists());
    assert!(dir.path().join("rootfs/file89").exists());
    assert_eq!(std::env::current_dir().unwrap(), before);
    made.remove().unwrap();
}

#[test]
fn a_failing_mount_leaves_none_behind() {
    let dir = tempfile::tempdir().unwrap();
    let good = RootfsMount { kind: "tmpfs".into(), source: "tmpfs".into(), options: vec![] };
    let bad = overlay(&["lowerdir=/nonexistent-a:/nonexistent-b"]);
    let error = RootfsMounts::make(dir.path(), &[good, bad]).unwrap_err();
    assert!(error.to_string().starts_with("mount overlay overlay on "), "{error}");
    assert!(!unmount_top(&dir.path().join(ROOTFS)).unwrap(), "the first mount was removed");
}
