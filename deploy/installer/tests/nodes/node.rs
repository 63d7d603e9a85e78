//! A node of some distribution: its files, and what starts containerd there as the distribution does.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use coracle_installer::Units;

use crate::fixtures::{Fixture, How};
use crate::scratch::{link, write};

const LOG: &str = "/run/containerd.log";

/// Debian suites that containerd is from, oldest first: 1.6, 1.7, 2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Suite {
    Bookworm,
    Trixie,
    Sid,
}

impl Suite {
    pub(crate) const ALL: [Self; 3] = [Self::Bookworm, Self::Trixie, Self::Sid];

    /// containerd's program, where the test bed's `fetch.sh` has put it.
    pub(crate) fn containerd(self) -> PathBuf {
        let name = format!("{self:?}").to_lowercase();
        let cache = std::env::var_os("CORACLE_CACHE")
            .expect("CORACLE_CACHE names the cache folder: use make");
        let program = Path::new(&cache).join("testbed/suite").join(name).join("usr/bin/containerd");
        assert!(program.is_file(), "{} is missing: run deploy/testbed/fetch.sh", program.display());
        program
    }
}

/// Who starts containerd.
pub(crate) struct Node {
    pub(crate) fixture: &'static Fixture,
    pub(crate) program: PathBuf,
    child: RefCell<Option<Child>>,
    /// How often it was restarted.
    pub(crate) restarts: Cell<u32>,
    /// How many restarts from now on fail.
    pub(crate) failing: Cell<u32>,
    seen: RefCell<String>,
}

impl Node {
    /// A node with a running containerd.
    pub(crate) fn start(fixture: &'static Fixture, suite: Suite) -> Self {
        let node = Self::stopped(fixture, suite);
        node.launch();
        node.wait();
        node
    }

    /// A node whose containerd does not run.
    pub(crate) fn stopped(fixture: &'static Fixture, suite: Suite) -> Self {
        let program = suite.containerd();
        link(&program, fixture.how.program());
        fixture.write_files(&program);
        let node = Self {
            fixture,
            program,
            child: RefCell::new(None),
            restarts: Cell::new(0),
            failing: Cell::new(0),
            seen: RefCell::new(String::new()),
        };
        node.render();
        node
    }

    /// Writes what the distribution makes of the user's files.
    fn render(&self) {
        match self.fixture.how {
            How::Plain => {}
            How::Rancher { folder, .. } => {
                let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).ok();
                let template = read("config-v3.toml.tmpl").or_else(|| read("config.toml.tmpl"));
                let text = template.map_or(self.fixture.base.to_owned(), |text| {
                    let (start, end) = (text.find("{{/*"), text.find("-}}\n"));
                    let text = match (start, end) {
                        (Some(start), Some(end)) => {
                            format!("{}{}", &text[..start], &text[end + 4..])
                        }
                        _ => text,
                    };
                    text.replace("{{ template \"base\" . }}", self.fixture.base)
                });
                write(&format!("{folder}/config.toml"), &text);
            }
            How::Microk8s => {
                let folder = "/var/snap/microk8s/current/args";
                let text =
                    fs::read_to_string(format!("{folder}/containerd-template.toml")).unwrap();
                let text =
                    text.replace("${SNAPSHOTTER}", "overlayfs").replace("${RUNTIME}", "runc");
                let text = text.replace("${SNAP_DATA}", "/var/snap/microk8s/current");
                write(&format!("{folder}/containerd.toml"), &text);
            }
            How::K0s => {
                let mut table: toml::Table = self.fixture.base.parse().unwrap();
                for text in k0s_files() {
                    join(&mut table, text.parse().unwrap());
                }
                write("/run/k0s/containerd-cri.toml", &toml::to_string(&table).unwrap());
                *self.seen.borrow_mut() = k0s_files().concat();
            }
        }
    }

    /// Starts containerd, as the distribution's unit does.
    pub(crate) fn launch(&self) {
        self.render();
        self.stop();
        let log = File::options().append(true).create(true).open(LOG).unwrap();
        let child = Command::new(&self.program)
            .args(self.fixture.how.arguments())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.child.borrow_mut() = Some(child);
    }

    /// Ends containerd.
    pub(crate) fn stop(&self) {
        if let Some(mut child) = self.child.borrow_mut().take() {
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(3);
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until containerd answers, CRI included; asked by its own client.
    pub(crate) fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.answers() {
            assert!(self.runs(), "containerd ended:\n{}", fs::read_to_string(LOG).unwrap());
            assert!(
                Instant::now() < deadline,
                "containerd does not answer:\n{}",
                fs::read_to_string(LOG).unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let listed = Command::new(self.program.with_file_name("ctr"))
            .args(["--address", self.fixture.how.socket(), "plugins", "ls"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&listed.stdout);
        let mut cri = text.lines().filter(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("io.containerd.grpc.v1") && words.next() == Some("cri")
        });
        cri.next().is_some_and(|line| line.split_whitespace().last() == Some("ok"))
    }

    fn runs(&self) -> bool {
        self.child.borrow_mut().as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// What containerd makes of its configuration, without the list of files.
    pub(crate) fn dump(&self) -> toml::Table {
        let config = self.fixture.how.config();
        // `config dump` of a file that is not there fails; all is by default then.
        let version = if self.program == Suite::Sid.containerd() { 3 } else { 2 };
        write("/tmp/default.toml", &format!("version = {version}\n"));
        let config = if Path::new(config).exists() { config } else { "/tmp/default.toml" };
        let dumped = Command::new(&self.program)
            .args(["--config", config, "config", "dump"])
            .output()
            .unwrap();
        assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
        let mut table: toml::Table = String::from_utf8(dumped.stdout).unwrap().parse().unwrap();
        table.remove("imports");
        table
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Units for Node {
    fn exists(&self, unit: &str) -> bool {
        unit == self.fixture.how.unit()
    }

    fn is_active(&self, unit: &str) -> bool {
        // k0s watches its folder.
        if matches!(self.fixture.how, How::K0s)
            && self.runs()
            && *self.seen.borrow() != k0s_files().concat()
        {
            self.launch();
        }
        self.exists(unit) && self.runs()
    }

    fn restart(&self, unit: &str) -> Result<()> {
        assert!(self.exists(unit));
        self.restarts.set(self.restarts.get() + 1);
        if self.failing.get() > 0 {
            self.failing.set(self.failing.get() - 1);
            self.stop();
            bail!("restarting {unit}: it is not to be");
        }
        self.launch();
        Ok(())
    }

    fn log(&self, _: &str, lines: usize) -> String {
        let text = fs::read_to_string(LOG).unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

fn k0s_files() -> Vec<String> {
    let Ok(files) = fs::read_dir("/etc/k0s/containerd.d") else { return Vec::new() };
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "toml"));
    files.sort();
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect()
}

fn join(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => join(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
