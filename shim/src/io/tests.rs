//! Streams over real FIFOs, with a client on the other side.

use super::*;
use std::io::{Read, Write};

fn fifo(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path
}

fn plan(stdin: Stream, stdout: Stream) -> StdioPlan {
    StdioPlan { stdin, stdout, stderr: Stream::Null, terminal: false, texts: Default::default() }
}

const OWNER: Owner<'_> = Owner { container: "c", namespace: "n" };

async fn open(plan: &StdioPlan) -> Result<(GuestEnds, KeptEnds), StdioError> {
    super::open(plan, OWNER, Duration::from_secs(10)).await
}

#[tokio::test]
async fn output_opens_without_a_client_and_is_kept_for_a_late_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "out");
    let (ends, kept) = open(&plan(Stream::Null, Stream::Path(path.clone()))).await.unwrap();
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
async fn the_last_words_are_waited_for_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "out");
    let (ends, kept) = open(&plan(Stream::Null, Stream::Path(path.clone()))).await.unwrap();
    kept.drained(Duration::from_secs(60)).await;
    File::from(ends.stdout.unwrap()).write_all(b"last words").unwrap();
    let start = Instant::now();
    kept.drained(Duration::from_millis(30)).await;
    assert!(start.elapsed() >= Duration::from_millis(30));
    let client = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        open_reader(&path).unwrap().read_to_end(&mut Vec::new()).unwrap()
    });
    kept.drained(Duration::from_secs(60)).await;
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(client.join().unwrap(), 10);
}

#[tokio::test]
async fn a_reader_that_leaves_does_not_break_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "out");
    let (ends, _kept) = open(&plan(Stream::Null, Stream::Path(path.clone()))).await.unwrap();
    let client = open_reader(&path).unwrap();
    drop(client);
    File::from(ends.stdout.unwrap()).write_all(b"still here").unwrap();
}

#[tokio::test]
async fn input_ends_when_the_client_closes_even_one_that_is_late() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "in");
    let (ends, kept) = open(&plan(Stream::Path(path.clone()), Stream::Null)).await.unwrap();
    kept.release_input();
    let mut client = open_client(&path).unwrap();
    let mut guest = File::from(ends.stdin.unwrap());
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = [0; 5];
        guest.read_exact(&mut text).unwrap();
        text
    });
    // Only a moment later: the guest waits for it meanwhile.
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.write_all(b"hello").unwrap();
    assert_eq!(&reading.await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_client_that_came_and_went_leaves_its_words_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "in");
    // The test's own patience is over long after its end: nothing may wait for it.
    let (ends, kept) = open(&plan(Stream::Path(path.clone()), Stream::Null)).await.unwrap();
    open_client(&path).unwrap().write_all(b"brief").unwrap();
    kept.release_input();
    let mut text = String::new();
    File::from(ends.stdin.unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "brief");
}

#[tokio::test]
async fn a_silent_client_s_end_is_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "in");
    let (ends, kept) = open(&plan(Stream::Path(path.clone()), Stream::Null)).await.unwrap();
    let silent = open_client(&path).unwrap();
    kept.release_input();
    drop(silent);
    assert_eq!(File::from(ends.stdin.unwrap()).read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_never_comes_is_the_end_after_the_patience() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "in");
    let patience = Duration::from_millis(30);
    let begun = Instant::now();
    let plan = plan(Stream::Path(path), Stream::Null);
    let (ends, kept) = super::open(&plan, OWNER, patience).await.unwrap();
    kept.release_input();
    let mut guest = File::from(ends.stdin.unwrap());
    let end = tokio::task::spawn_blocking(move || guest.read(&mut [0]).unwrap()).await.unwrap();
    assert_eq!(end, 0);
    assert!(begun.elapsed() >= patience);
}

#[tokio::test]
async fn files_are_appended_to_and_missing_paths_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("new.log");
    std::fs::write(&log, "1").unwrap();
    let (ends, _) = open(&plan(Stream::Null, Stream::LogFile(log.clone()))).await.unwrap();
    File::from(ends.stdout.unwrap()).write_all(b"2").unwrap();
    assert_eq!(std::fs::read(&log).unwrap(), b"12");
    let gone = open(&plan(Stream::Path("/nonexistent/in".into()), Stream::Null)).await.unwrap_err();
    assert!(gone.to_string().starts_with("open stdin /nonexistent/in: "), "{gone}");
}

fn open_client(path: &Path) -> io::Result<File> {
    File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path)
}
