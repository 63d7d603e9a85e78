//! Streams over real FIFOs, with a client on the other side.

use super::*;
use std::io::{Read, Write};

fn fifo(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path
}

fn plan(stdin: Stream, stdout: Stream) -> StdioPlan {
    StdioPlan { stdin, stdout, stderr: Stream::Null, texts: Default::default() }
}

fn open(plan: &StdioPlan) -> Result<(GuestEnds, KeptEnds), StdioError> {
    super::open(plan, Duration::from_secs(10))
}

#[tokio::test]
async fn output_opens_without_a_client_and_is_kept_for_a_late_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "out");
    let (ends, kept) = open(&plan(Stream::Null, Stream::Path(path.clone()))).unwrap();
    assert!(ends.stdin.is_none() && ends.stderr.is_none());
    let mut guest = File::from(ends.stdout.unwrap());
    guest.write_all(b"early words").unwrap();
    drop(guest);
    let mut text = String::new();
    open_reader(&path).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "early words", "the client sees the words and then the end");
    drop(kept);
}

#[tokio::test]
async fn a_reader_that_leaves_does_not_break_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "out");
    let (ends, _kept) = open(&plan(Stream::Null, Stream::Path(path.clone()))).unwrap();
    let client = open_reader(&path).unwrap();
    drop(client);
    File::from(ends.stdout.unwrap()).write_all(b"still here").unwrap();
}

#[tokio::test]
async fn input_ends_when_the_client_closes() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "in");
    let (ends, kept) = open(&plan(Stream::Path(path.clone()), Stream::Null)).unwrap();
    let client = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        File::options().write(true).open(path).unwrap().write_all(b"hello").unwrap();
    });
    kept.client_ready().await;
    let mut text = String::new();
    let mut guest = File::from(ends.stdin.unwrap());
    tokio::task::spawn_blocking(move || guest.read_to_string(&mut text).map(|_| text))
        .await
        .unwrap()
        .map(|text| assert_eq!(text, "hello"))
        .unwrap();
    client.join().unwrap();
}

#[tokio::test]
async fn a_client_that_never_comes_is_stood_in_for_until_close_io() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "in");
    let (ends, kept) =
        super::open(&plan(Stream::Path(path), Stream::Null), Duration::from_millis(50)).unwrap();
    kept.client_ready().await;
    let mut guest = File::from(ends.stdin.unwrap());
    rustix::fs::fcntl_setfl(&guest, OFlags::NONBLOCK).unwrap();
    let mut byte = [0];
    assert_eq!(guest.read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    kept.close_stdin();
    assert_eq!(guest.read(&mut byte).unwrap(), 0);
}

#[tokio::test]
async fn dropping_the_ends_lets_the_waiting_thread_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "in");
    for _ in 0..50 {
        let (_ends, kept) = open(&plan(Stream::Path(path.clone()), Stream::Null)).unwrap();
        let mut client = kept.stdin.as_ref().unwrap().client.clone();
        drop(kept);
        // The thread's sender goes away with it; either way it came past its open.
        tokio::time::timeout(Duration::from_secs(5), client.wait_for(|come| *come))
            .await
            .expect("the thread is still waiting")
            .ok();
    }
}

#[tokio::test]
async fn files_are_appended_to_and_missing_paths_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("new.log");
    std::fs::write(&log, "1").unwrap();
    let (ends, _) = open(&plan(Stream::Null, Stream::LogFile(log.clone()))).unwrap();
    File::from(ends.stdout.unwrap()).write_all(b"2").unwrap();
    assert_eq!(std::fs::read(&log).unwrap(), b"12");
    let gone = open(&plan(Stream::Path("/nonexistent/in".into()), Stream::Null)).unwrap_err();
    assert!(gone.to_string().starts_with("open stdin /nonexistent/in: "), "{gone}");
}
