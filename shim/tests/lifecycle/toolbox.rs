//! The built-in toolbox in execs, for containers whose image has no such program; what the log says of
//! programs that fail.

use std::time::Duration;

use crate::harness::{pause_spec, within};
use crate::home::{Home, call, process};

#[tokio::test]
async fn commands_that_the_image_lacks_are_the_toolboxs() {
    let home = Home::with(pause_spec("c")).await;
    std::fs::create_dir(home.bundle.join("rootfs/data")).unwrap();
    std::fs::write(home.bundle.join("rootfs/data/a"), "").unwrap();
    for (exec, args, out, code) in [
        ("e1", &["ls", "/data"][..], "a\n", 0),
        ("e2", &["/bin/ls", "-d", "/data"], "/data\n", 0),
        ("e3", &["coracle-box", "env"], "PATH=/bin\nA=b\n", 0),
        ("e4", &["cat", "/data/none"], "", 1),
        ("e5", &["coracle-box", "none"], "", 127),
        ("e6", &["kill", "-0", "1"], "", 0),
    ] {
        let mut request = call(exec, &process(args));
        let said = home.reads(&mut request);
        home.shim.exec(request).await.unwrap();
        home.shim.start_exec(exec).await.unwrap();
        assert_eq!(within("the end", home.shim.wait_exec(exec)).await, Ok(code), "{args:?}");
        assert_eq!(said.await.unwrap(), out, "{args:?}");
        home.shim.delete_exec(exec).await.unwrap();
    }
    // A pause container is this executable and runs no program; no harm comes to it.
    home.launch("e7", &process(&["backtrace"])).await.unwrap();
    let end = within("the end", home.shim.wait_exec("e7")).await.unwrap();
    assert!(end <= 1, "{end}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(home.shim.pids("c").await, [home.pid]);
    home.leave().await;
}
