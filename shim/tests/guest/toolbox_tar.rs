//! `tar` and `test` of the toolbox, against the machine's own tar.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use coracle_shim::guest::{Exit, Stdio};

use crate::support::*;

/// A run with a stream on either side: exit code, standard output and error.
async fn stream(bundle: &mut Bundle, words: &[&str], input: Vec<u8>) -> (u8, Vec<u8>, String) {
    let ((mut out, stdout), (mut err, stderr)) = (pipe(), pipe());
    let (stdin, feed) = pipe();
    let stdio = Stdio { stdin: Some(stdin.into()), stdout: Some(stdout), stderr: Some(stderr) };
    let mut guest = bundle.run_toolbox(words, stdio).await.unwrap();
    let feeding = tokio::task::spawn_blocking(move || std::fs::File::from(feed).write_all(&input));
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).map(|_| bytes).unwrap()
    });
    let Exit::Code(code) = guest.wait().await.exit else { panic!("killed") };
    guest.cleanup().await.unwrap();
    // Who refuses an archive does not read it to its end.
    let _ = feeding.await.unwrap();
    let mut text = String::new();
    err.read_to_string(&mut text).unwrap();
    (code, reading.await.unwrap(), text)
}

/// What the machine's tar makes of this folder's content.
fn machine_archives(folder: &Path, more: &[&str]) -> Vec<u8> {
    let output =
        Command::new("tar").arg("cf").arg("-").args(more).arg("-C").arg(folder).arg(".").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Files of all sizes that matter, one of them below this path, which is longer than the name in a header may be.
fn files(folder: &Path, long: &str) {
    std::fs::create_dir_all(folder.join("sub/empty")).unwrap();
    std::fs::create_dir_all(folder.join(long)).unwrap();
    std::fs::write(folder.join("one"), "1").unwrap();
    std::fs::write(folder.join("none"), "").unwrap();
    std::fs::write(folder.join("sub/block"), "b".repeat(512)).unwrap();
    std::fs::write(folder.join(long).join("big"), "x".repeat(300_000)).unwrap();
}

/// Every file and folder below, with the files' bytes.
fn tree(folder: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                found.push((name, None));
                folders.push(path);
            } else {
                found.push((name, Some(std::fs::read(&path).unwrap())));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_it_archives_the_machine_s_tar_unpacks() {
    let (mut bundle, place) = (Bundle::new(), tempfile::tempdir().unwrap());
    files(&bundle.rootfs("data"), &"n".repeat(180));
    std::os::unix::fs::symlink("one", bundle.rootfs("data/link")).unwrap();
    let (code, archive, said) =
        block_on(stream(&mut bundle, &["tar", "cf", "-", "/data"], Vec::new()));
    assert!(code == 1 && said.contains("/data/link: neither a file nor a folder"), "{said}");
    std::fs::write(place.path().join("a.tar"), archive).unwrap();
    let output = Command::new("tar").args(["xf", "a.tar"]).current_dir(&place).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    std::fs::remove_file(bundle.rootfs("data/link")).unwrap();
    assert!(tree(&place.path().join("data")) == tree(&bundle.rootfs("data")));
    bundle.assert_clean();
}

#[test]
fn what_the_machine_s_tar_archives_it_unpacks() {
    let (whole, parts) = ("n".repeat(180), ["n", "m"].map(|letter| letter.repeat(60)).join("/"));
    for (format, long) in
        [("--format=gnu", &whole), ("--format=pax", &whole), ("--format=ustar", &parts)]
    {
        let (mut bundle, place) = (Bundle::new(), tempfile::tempdir().unwrap());
        files(place.path(), long);
        std::fs::create_dir(bundle.rootfs("in")).unwrap();
        // As `kubectl cp` calls it.
        let words = ["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-", "-C", "/in"];
        let archive = machine_archives(place.path(), &[format]);
        let (code, _, said) = block_on(stream(&mut bundle, &words, archive.clone()));
        assert_eq!((code, said.as_str()), (0, ""), "{format}");
        assert!(tree(&bundle.rootfs("in")) == tree(place.path()), "{format}");
        let (code, list, _) = block_on(stream(&mut bundle, &["tar", "tf", "-"], archive));
        let list = String::from_utf8(list).unwrap();
        assert!(code == 0 && list.lines().any(|line| line == "./sub/block"), "{list}");
        bundle.assert_clean();
    }
}

#[test]
fn no_entry_leads_out_of_the_folder_and_damage_is_told() {
    let (mut bundle, place) = (Bundle::new(), tempfile::tempdir().unwrap());
    std::fs::write(place.path().join("one"), "1").unwrap();
    std::fs::create_dir(bundle.rootfs("in")).unwrap();
    let evil = machine_archives(place.path(), &["-P", "--transform", "s,^\\./one,../../one,"]);
    let (code, _, said) =
        block_on(stream(&mut bundle, &["tar", "xf", "-", "-C", "/in"], evil.clone()));
    assert!(code == 1 && said.contains("../../one: leads out of the folder"), "{said}");
    assert!(!bundle.rootfs("one").exists());
    for (bytes, words) in [
        (evil[..700].to_vec(), "ends in the middle"),
        (vec![b'x'; 1024], "this is no archive"),
        (evil[..100].to_vec(), "ends in the middle"),
    ] {
        let (code, _, said) = block_on(stream(&mut bundle, &["tar", "xf", "-"], bytes));
        assert!(code == 1 && said.contains(words), "{said}");
    }
    let (code, _, said) = block_on(stream(&mut bundle, &["tar", "xzf", "-"], Vec::new()));
    assert!(code == 1 && said.contains("unknown option"), "{said}");
    bundle.assert_clean();
}

#[test]
fn test_answers_by_its_exit_code() {
    let mut bundle = Bundle::new();
    std::fs::create_dir(bundle.rootfs("data")).unwrap();
    std::fs::write(bundle.rootfs("data/file"), "x").unwrap();
    for (words, wanted) in [
        (&["test", "-d", "/data"][..], 0),
        (&["test", "-d", "/data/file"], 1),
        (&["test", "-f", "/data/file"], 0),
        (&["test", "-e", "/none"], 1),
        (&["test", "-s", "/data/file"], 0),
    ] {
        let (code, out, said) = block_on(stream(&mut bundle, words, Vec::new()));
        assert_eq!((code, out.as_slice(), said.as_str()), (wanted, &b""[..], ""), "{words:?}");
    }
    let (code, _, said) = block_on(stream(&mut bundle, &["test", "-d"], Vec::new()));
    assert!(code == 1 && said.contains("expected one option and one path"), "{said}");
    bundle.assert_clean();
}
