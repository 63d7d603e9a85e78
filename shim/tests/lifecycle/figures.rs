//! What the shim tells the node daemon, and that it does without one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use coracle_shim::figures::{Code, End, Happening, MAX_LENGTH, Program, SOCKET};
use tokio::net::UnixDatagram;

use crate::cache::{Node, Start};
use crate::harness::within;
use crate::programs::hello;

/// The daemon's socket on a node.
fn ear(node: &Path) -> UnixDatagram {
    let run = node.join("run");
    fs::create_dir_all(&run).unwrap();
    fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    UnixDatagram::bind(run.join(SOCKET)).unwrap()
}

async fn hear(ear: &UnixDatagram) -> Happening {
    let mut datagram = [0; MAX_LENGTH];
    let length = within("a happening", ear.recv(&mut datagram)).await.unwrap();
    Happening::decode(&datagram[..length]).unwrap()
}

/// All that a shim has told that is gone, the compilation apart: it is told beside the others.
async fn hear_all(ear: &UnixDatagram) -> (Vec<Happening>, usize) {
    let (mut life, mut compiled) = (Vec::new(), 0);
    while let Ok(happening) = tokio::time::timeout(Duration::from_millis(100), hear(ear)).await {
        match happening {
            Happening::Compiled { time } => {
                assert!(time > 0);
                compiled += 1;
            }
            other => life.push(other),
        }
    }
    (life, compiled)
}

fn assert_started(happening: Happening, wanted: Program) {
    let Happening::Started { program, create, start } = happening else {
        panic!("{happening:?}");
    };
    assert_eq!(program, wanted);
    for time in [create, start] {
        assert!((1..30_000_000).contains(&time), "{time} \u{b5}s");
    }
}

#[tokio::test]
async fn a_life_is_told_in_order_with_where_its_code_came_from() {
    let node = Node::new();
    let ear = ear(node.dir.path());
    for (code, compilations) in [(Code::Compiled, 1), (Code::Hit, 0)] {
        assert_eq!(Start::on(node.dir.path(), &hello()).await.run().await, compilations);
        let (life, compiled) = hear_all(&ear).await;
        assert_eq!((life.len(), compiled), (2, compilations), "{life:?}");
        assert_started(life[0], Program::Wasm(code));
        assert_eq!(life[1], Happening::Ended(End::Code(0)));
    }
}

#[tokio::test]
async fn a_trap_is_told_by_its_number_and_a_kill_by_its_signal() {
    let node = Node::new();
    let ear = ear(node.dir.path());
    let trap = "(module (func (export \"_start\") (drop (i32.div_u (i32.const 1) (i32.const 0)))))";
    let start = Start::on(node.dir.path(), trap).await;
    start.shim.create("c", &start.bundle).await.unwrap();
    start.shim.start("c").await.unwrap();
    assert_eq!(start.shim.wait("c").await.unwrap().exit_status, 134);
    start.leave().await;
    assert_eq!(hear_all(&ear).await.0[1], Happening::Ended(End::Trap(8)));

    let endless = "(module (func (export \"_start\") (loop (br 0))))";
    let start = Start::on(node.dir.path(), endless).await;
    start.shim.create("c", &start.bundle).await.unwrap();
    start.shim.start("c").await.unwrap();
    // A program that goes on is told of without its end.
    loop {
        if let told @ Happening::Started { .. } = hear(&ear).await {
            assert_started(told, Program::Wasm(Code::Compiled));
            break;
        }
    }
    start.shim.kill("c", libc::SIGKILL).await.unwrap();
    start.shim.wait("c").await.unwrap();
    start.leave().await;
    assert_eq!(hear_all(&ear).await.0, [Happening::Ended(End::Signal(9))]);
}

#[tokio::test]
async fn what_does_not_start_is_told_once() {
    let node = Node::new();
    let ear = ear(node.dir.path());
    let start = Start::on(node.dir.path(), "(module (func (result i32)))").await;
    start.shim.create("c", &start.bundle).await.unwrap();
    start.shim.start("c").await.unwrap_err();
    start.leave().await;
    let mut told = vec![hear(&ear).await, hear(&ear).await];
    told.sort_by_key(|happening| *happening == Happening::NotStarted);
    assert_eq!(told, [Happening::NotCompiled, Happening::NotStarted]);
    let start = Start::on(node.dir.path(), "no module").await;
    start.shim.create("c", &start.bundle).await.unwrap_err();
    assert_eq!(hear(&ear).await, Happening::NotStarted);
    start.shim.shut_down().await;
}

/// The queue of the socket is full, and nobody reads.
#[tokio::test]
async fn a_daemon_that_does_not_hear_stops_nobody() {
    let node = Node::new();
    let deaf = ear(node.dir.path());
    let filler = std::os::unix::net::UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    let socket = node.dir.path().join("run").join(SOCKET);
    let sent = (0..100_000).take_while(|_| filler.send_to(b"x", &socket).is_ok()).count();
    assert!((1..100_000).contains(&sent), "{sent} fit in");
    assert_eq!(Start::on(node.dir.path(), &hello()).await.run().await, 1);
    let mut one = [0; MAX_LENGTH];
    for _ in 0..sent {
        let length = within("what filled it", deaf.recv(&mut one)).await.unwrap();
        assert_eq!(length, 1, "nothing but what filled it");
    }
    let more = tokio::time::timeout(Duration::from_millis(100), deaf.recv(&mut one)).await;
    assert!(more.is_err(), "{more:?}");
}
