//! A containerd without root: it and the shim are root in a user namespace, and may make no cgroups.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use containerd_shim_protos::bootstrap_api::BootstrapResult;
use containerd_shim_protos::protobuf::Message;
use serde_json::Value;

use crate::harness::{Containerd, Shim, feed, request, spec, within};
use crate::linux::{busybox, busybox_spec};
use crate::programs::{echo, hello};

/// User and group of the host that is root in the namespace.
const ROOT: u32 = 100_000;

/// A user namespace and a mount namespace, as long as a process that sleeps.
struct Rootless {
    holder: Child,
    containerd: Containerd,
    shim: PathBuf,
}

impl Rootless {
    async fn new() -> Self {
        let mut sleeper = Command::new("unshare");
        let holder =
            sleeper.args(["--user", "--mount", "sleep", "1000"]).stdin(Stdio::null()).spawn();
        let containerd = Containerd::new().await;
        // The checkout may be where only root can go.
        let programs = containerd.dir.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-wasm-v1"));
        let [own_shim, compiler] =
            [shim, &shim.with_file_name("coracle")].map(|from| copy(from, &programs));
        assert!(compiler.exists());
        let this = Self { holder: holder.unwrap(), containerd, shim: own_shim };
        within("the namespaces", async {
            let own = std::fs::read_link("/proc/self/ns/user").unwrap();
            while std::fs::read_link(this.proc("ns/user")).unwrap() == own {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        for map in ["uid_map", "gid_map"] {
            std::fs::write(this.proc(map), format!("0 {ROOT} 65536")).unwrap();
        }
        this
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.holder.id())
    }

    /// A bundle that names no cgroup.
    fn bundle(&self, id: &str, spec: &Value) -> PathBuf {
        let bundle = self.containerd.bundle(id, spec);
        std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        bundle
    }

    async fn start(&self, id: &str, bundle: &Path) -> Shim {
        let all = self.containerd.dir.path();
        let owned = Command::new("chown").args(["-R", &format!("{ROOT}:{ROOT}")]).arg(all).status();
        assert!(owned.unwrap().success());
        let outside = self.containerd.shim(id, bundle, "start");
        let mut inside = Command::new("nsenter");
        inside.args(["-t", &self.holder.id().to_string(), "-U", "-m", "-S", "0", "-G", "0"]);
        inside.arg(format!("--wdns={}", bundle.display())).arg(&self.shim).args(outside.get_args());
        inside.envs(outside.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = feed(inside, &self.containerd.params(id)).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let result = BootstrapResult::parse_from_bytes(&output.stdout).unwrap();
        Shim::connect(&result.address).await
    }

    /// Runs a container to its end; gives its exit code and what it said.
    async fn run(&self, id: &str, bundle: &Path) -> (u32, String) {
        let shim = self.start(id, bundle).await;
        let out = bundle.join("out");
        let mut request = request(id, bundle);
        request.stdout = format!("file://{}", out.display());
        let pid = shim.create_with(request).await.unwrap();
        assert_eq!(shim.pids(id).await, [pid]);
        shim.start(id).await.unwrap();
        let code = within("the end", shim.wait(id)).await.unwrap().exit_status;
        shim.delete(id).await.unwrap();
        shim.shut_down().await;
        (code, std::fs::read_to_string(out).unwrap())
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn copy(from: &Path, folder: &Path) -> PathBuf {
    let to = folder.join(from.file_name().unwrap());
    std::fs::copy(from, &to).unwrap();
    to
}

#[tokio::test]
async fn wasm_and_linux_programs_run_without_root() {
    let node = Rootless::new().await;
    for (id, program, wanted) in [("c", hello(), (0, "hello\n")), ("d", echo(), (7, ""))] {
        let bundle = node.bundle(id, &spec(&["/a.wat"]));
        std::fs::write(bundle.join("rootfs/a.wat"), program).unwrap();
        let (code, said) = node.run(id, &bundle).await;
        assert_eq!((code, said.as_str()), wanted);
    }
    let script = "echo x > /dev/null && head -c 2 /dev/zero | wc -c && cat /proc/self/uid_map";
    let bundle = node.bundle("e", &busybox_spec(&["sh", "-c", script]));
    busybox(&bundle);
    let (code, said) = node.run("e", &bundle).await;
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!((code, words.as_slice()), (0, ["2", "0", "100000", "65536"].as_slice()));
}

#[tokio::test]
async fn a_cgroup_that_is_named_must_be_had() {
    let node = Rootless::new().await;
    let mut spec = spec(&["/a.wat"]);
    spec["linux"]["cgroupsPath"] = node.containerd.cgroup("c").into();
    let bundle = node.bundle("c", &spec);
    std::fs::write(bundle.join("rootfs/a.wat"), hello()).unwrap();
    let shim = node.start("c", &bundle).await;
    let (_, error) = shim.create("c", &bundle).await.unwrap_err();
    assert!(error.contains("cannot create the cgroup"), "{error}");
    shim.shut_down().await;
}
