//! Flags, environment and runtime options become one [`ShimConfig`]; the deadlines live here.
//!
//! Order of precedence, strongest first: runtime options of the Create call, environment, flags.
//! Unknown keys are errors, and every fault is reported, not only the first.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, CodedInputStream, Message as _};
use containerd_shim_protos::shim::oci::Options as RuncOptions;

use coracle_engine::cache::{Bounds, Place};

use crate::cli::Flags;
use crate::request::TaskId;

/// Where containerd listens for events. Set by containerd.
pub const ENV_TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";
/// containerd's main socket, when no `-address` flag came. Set by containerd.
pub const ENV_GRPC_ADDRESS: &str = "GRPC_ADDRESS";
/// The `coracle` executable, when it is neither beside the shim nor in `PATH`.
pub const ENV_CORACLE_BIN: &str = "CORACLE_BIN";
/// Log level of the shim: `error`, `warn` (default), `info`, `debug` or `trace`.
pub const ENV_LOG: &str = "CORACLE_LOG";

/// Type URL of the options CRI and Docker hand to shims other than runc's.
const GENERIC_OPTIONS: &str = "runtimeoptions.v1.Options";
/// Type URL of runc's own options, sent by clients that treat every shim as runc.
const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
/// An options file longer than this is refused.
const MAX_OPTIONS_FILE: u64 = 1 << 20;

/// Everything that can be set, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimConfig {
    /// containerd's namespace that this shim serves.
    pub namespace: String,
    /// The container the shim was started for.
    pub id: TaskId,
    /// containerd's gRPC socket, for the content store; `None` when nobody told.
    pub grpc_address: Option<PathBuf>,
    /// containerd's ttrpc socket, for events.
    pub ttrpc_address: PathBuf,
    /// What gets logged.
    pub log_level: LogLevel,
    /// An explicit place of the `coracle` executable.
    pub coracle_bin: Option<PathBuf>,
    /// How long publishing one event is tried before it is given up.
    pub event_patience: Duration,
    /// How long after Create the client of standard input may still come.
    pub stdin_patience: Duration,
    /// How long an exit is held back for clients to read the last output.
    pub output_patience: Duration,
    /// What a runtime option said about the cgroup driver. The path in `config.json` decides;
    /// this only serves to notice a contradiction.
    pub systemd_cgroup: Option<bool>,
    /// User and group that own the streams: root of the container's user namespace.
    pub io_owner: (u32, u32),
    /// Bounds of one compilation.
    pub compile: CompileLimits,
    /// Modules larger than this, in bytes, start before all of their code is made.
    pub lazy_above: u64,
    /// The node's code cache.
    pub cache: Place,
    /// Whether only containers of the same namespace share code.
    pub cache_by_namespace: bool,
    /// Whether containers may run Linux programs.
    pub linux_programs: bool,
}

/// Smaller modules are compiled in less time than a second process takes to get in step.
const LAZY_ABOVE: u64 = 1 << 20;

/// Bounds of one compile worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Wall-clock time, 1 s to 1 h.
    pub wall: Duration,
    /// Memory in bytes, at least 64 MiB: of its cgroup, and besides what threads reserve of its
    /// address space.
    pub memory: u64,
    /// Size of the code image in bytes (`RLIMIT_FSIZE`).
    pub output: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { wall: Duration::from_secs(120), memory: 2 << 30, output: 512 << 20 }
    }
}

/// Log levels, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed that nobody was told by an answer.
    Error,
    /// A guest failed, or something needs attention. The default.
    Warn,
    /// Life-cycle steps.
    Info,
    /// Everything, as asked for by `-debug`.
    Debug,
    /// Everything, with the detail of dependencies.
    Trace,
}

impl LogLevel {
    fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "error" => Self::Error,
            "warn" | "warning" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }
}

/// All faults of a configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the configuration came from, for the message.
    pub origin: &'static str,
    /// One entry a fault, in the order of appearance.
    pub faults: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.faults.join("; "))
    }
}

/// Reads one environment variable; `None` when unset or empty.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The process environment as a [`Lookup`].
pub fn process_env(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl ShimConfig {
    /// Joins flags and environment.
    ///
    /// # Errors
    /// All faults together: no events address, unreadable values.
    pub fn new(flags: &Flags, env: Lookup<'_>) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let ttrpc_address = env(ENV_TTRPC_ADDRESS).map(socket_path).unwrap_or_else(|| {
            faults.push(format!(
                "{ENV_TTRPC_ADDRESS} is not set: containerd sets it to the socket for events"
            ));
            PathBuf::new()
        });
        let grpc_address = Some(OsString::from(&flags.address))
            .filter(|address| !address.is_empty())
            .or_else(|| env(ENV_GRPC_ADDRESS))
            .map(socket_path);
        let log_level = match env(ENV_LOG) {
            None => {
                if flags.debug {
                    LogLevel::Debug
                } else {
                    LogLevel::Warn
                }
            }
            Some(text) => text.to_str().and_then(LogLevel::parse).unwrap_or_else(|| {
                faults.push(format!("{ENV_LOG}={text:?}: use error, warn, info, debug or trace"));
                LogLevel::Warn
            }),
        };
        let cache = Place::of_the_node(env).unwrap_or_else(|fault| {
            faults.push(fault.to_string());
            Place { dir: PathBuf::new(), run: None, bounds: Bounds::NOTHING }
        });
        let config = Self {
            namespace: flags.namespace.clone(),
            id: flags.id.clone(),
            grpc_address,
            ttrpc_address,
            log_level,
            coracle_bin: env(ENV_CORACLE_BIN).map(PathBuf::from),
            event_patience: Duration::from_secs(120),
            stdin_patience: Duration::from_millis(50),
            output_patience: Duration::from_millis(250),
            systemd_cgroup: None,
            io_owner: (0, 0),
            compile: CompileLimits::default(),
            lazy_above: LAZY_ABOVE,
            cache,
            cache_by_namespace: false,
            linux_programs: true,
        };
        finish("environment of the shim", faults, config)
    }

    /// For a process that serves nobody and has no events to send.
    ///
    /// # Errors
    /// All faults of the environment together.
    pub fn without_events(
        namespace: &str,
        id: TaskId,
        grpc_address: Option<&Path>,
        env: Lookup<'_>,
    ) -> Result<Self, ConfigError> {
        let flags = Flags {
            namespace: namespace.to_owned(),
            id,
            address: grpc_address.map(|path| path.display().to_string()).unwrap_or_default(),
            bundle: None,
            debug: false,
        };
        Self::new(&flags, &|name| match name {
            ENV_TTRPC_ADDRESS => Some("/nonexistent".into()),
            ENV_GRPC_ADDRESS => None,
            other => env(other),
        })
    }

    /// Applies runtime options, given as keys and values.
    ///
    /// # Errors
    /// Every bad key or value.
    pub fn with_pairs(&self, options: &[(String, String)]) -> Result<Self, ConfigError> {
        let (mut config, mut faults) = (self.clone(), Vec::new());
        let text = |value: &String| toml::Value::String(value.clone());
        let pairs = options.iter().map(|(key, value)| (key.clone(), text(value)));
        config.apply_table(&pairs.collect(), &mut faults);
        finish("runtime options", faults, config)
    }

    /// Applies the runtime options of a Create call to a copy.
    ///
    /// # Errors
    /// An option type nobody has heard of, a file that cannot be read, and every bad key or value.
    pub fn with_options(&self, options: Option<&Any>) -> Result<Self, ConfigError> {
        let mut config = self.clone();
        let Some(any) = options.filter(|any| !any.type_url.is_empty()) else { return Ok(config) };
        let mut faults = Vec::new();
        match any.type_url.rsplit('/').next().unwrap_or_default() {
            RUNC_OPTIONS => config.apply_runc(&any.value, &mut faults),
            GENERIC_OPTIONS => match generic_options(&any.value) {
                Ok(text) => config.apply_toml(&text, &mut faults),
                Err(fault) => faults.push(fault),
            },
            other => faults.push(format!(
                "unknown type {other:?}: use {GENERIC_OPTIONS} with the keys of this shim"
            )),
        }
        finish("runtime options", faults, config)
    }

    fn apply_runc(&mut self, bytes: &[u8], faults: &mut Vec<String>) {
        let options = match RuncOptions::parse_from_bytes(bytes) {
            Ok(options) => options,
            Err(error) => return faults.push(format!("decode {RUNC_OPTIONS}: {error}")),
        };
        self.systemd_cgroup = Some(options.systemd_cgroup);
        self.io_owner = (options.io_uid, options.io_gid);
        let foreign = [
            ("NoPivotRoot", options.no_pivot_root),
            ("ShimCgroup", !options.shim_cgroup.is_empty()),
            ("BinaryName", !options.binary_name.is_empty()),
            ("CriuImagePath", !options.criu_image_path.is_empty()),
            ("CriuWorkPath", !options.criu_work_path.is_empty()),
        ];
        for (name, _) in foreign.into_iter().filter(|(_, set)| *set) {
            faults.push(format!("{name} is an option of runc and means nothing here: remove it"));
        }
    }

    fn apply_toml(&mut self, text: &str, faults: &mut Vec<String>) {
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => return faults.push(format!("parse TOML: {}", error.message())),
        };
        self.apply_table(&table, faults);
    }

    fn apply_table(&mut self, table: &toml::Table, faults: &mut Vec<String>) {
        for (key, value) in table {
            let outcome = match key.as_str() {
                "SystemdCgroup" => boolean(value).map(|on| self.systemd_cgroup = Some(on)),
                "CompileTimeoutSeconds" => integer(value, 1, 3600)
                    .map(|seconds| self.compile.wall = Duration::from_secs(seconds)),
                "CompileMemoryMiB" => {
                    integer(value, 64, 1 << 20).map(|mib| self.compile.memory = mib << 20)
                }
                "CodeImageMiB" => {
                    integer(value, 1, 1 << 14).map(|mib| self.compile.output = mib << 20)
                }
                "LazyAboveKiB" => integer(value, 0, 1 << 20).map(|kib| self.lazy_above = kib << 10),
                "CacheByNamespace" => boolean(value).map(|on| self.cache_by_namespace = on),
                "LinuxPrograms" => boolean(value).map(|on| self.linux_programs = on),
                // CRI repeats its own two fields in the body.
                "TypeUrl" | "ConfigPath" => Ok(()),
                _ => Err("unknown key".to_owned()),
            };
            if let Err(reason) = outcome {
                faults.push(format!("{key}: {reason}"));
            }
        }
    }
}

fn finish<T>(origin: &'static str, faults: Vec<String>, value: T) -> Result<T, ConfigError> {
    if faults.is_empty() { Ok(value) } else { Err(ConfigError { origin, faults }) }
}

/// containerd gives addresses as plain paths or as `unix://` URLs.
fn socket_path(address: OsString) -> PathBuf {
    match address.to_str().and_then(|text| text.strip_prefix("unix://")) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(address),
    }
}

/// Operators write `true` and `"true"`; CRI passes on what they wrote.
fn boolean(value: &toml::Value) -> Result<bool, String> {
    match value {
        toml::Value::Boolean(on) => Ok(*on),
        toml::Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        toml::Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        other => Err(format!("{other} is neither true nor false")),
    }
}

fn integer(value: &toml::Value, least: u64, most: u64) -> Result<u64, String> {
    let number = match value {
        toml::Value::Integer(number) => u64::try_from(*number).ok(),
        toml::Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{value} is no number from {least} to {most}"))
}

/// The TOML text of a `runtimeoptions.v1.Options` message: its body, else the file it names.
///
/// The message has three string fields: 1 type URL, 2 path, 3 body.
fn generic_options(bytes: &[u8]) -> Result<String, String> {
    let (path, body) =
        decode_generic(bytes).map_err(|error| format!("decode {GENERIC_OPTIONS}: {error}"))?;
    if path.is_empty() {
        return String::from_utf8(body).map_err(|_| "ConfigBody is not UTF-8".to_owned());
    }
    read_options_file(Path::new(&path)).map_err(|error| format!("read ConfigPath {path}: {error}"))
}

fn decode_generic(bytes: &[u8]) -> protobuf::Result<(String, Vec<u8>)> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let (mut path, mut body) = (String::new(), Vec::new());
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag {
            // (field << 3) | 2: length-delimited.
            0x12 => path = input.read_string()?,
            0x1a => body = input.read_bytes()?,
            other => protobuf::rt::skip_field_for_tag(other, &mut input)?,
        }
    }
    Ok((path, body))
}

fn read_options_file(path: &Path) -> std::io::Result<String> {
    let length = std::fs::metadata(path)?.len();
    if length > MAX_OPTIONS_FILE {
        return Err(std::io::Error::other(format!("{length} bytes are too long for options")));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            namespace: "default".into(),
            id: TaskId::parse("c1").unwrap(),
            address: "/run/containerd/containerd.sock".into(),
            bundle: None,
            debug: false,
        }
    }

    fn config() -> ShimConfig {
        ShimConfig::new(&flags(), &|name| {
            (name == ENV_TTRPC_ADDRESS).then(|| OsString::from("unix:///run/c.ttrpc"))
        })
        .unwrap()
    }

    fn generic(path: &str, body: &str) -> Any {
        let mut value = Vec::new();
        for (tag, text) in [(0x12, path), (0x1a, body)] {
            let mut out = protobuf::CodedOutputStream::vec(&mut value);
            out.write_raw_varint32(tag).unwrap();
            out.write_bytes_no_tag(text.as_bytes()).unwrap();
        }
        Any { type_url: GENERIC_OPTIONS.into(), value, ..Any::default() }
    }

    #[test]
    fn addresses_come_as_paths_or_urls() {
        let config = config();
        assert_eq!(config.ttrpc_address, Path::new("/run/c.ttrpc"));
        assert_eq!(
            config.grpc_address.as_deref(),
            Some(Path::new("/run/containerd/containerd.sock"))
        );
        assert_eq!(config.log_level, LogLevel::Warn);
    }

    #[test]
    fn environment_faults_come_together() {
        let error =
            ShimConfig::new(&flags(), &|name| (name == ENV_LOG).then(|| OsString::from("loud")))
                .unwrap_err();
        assert_eq!(error.faults.len(), 2, "{error}");
        assert!(error.to_string().contains("TTRPC_ADDRESS") && error.to_string().contains("loud"));
    }

    #[test]
    fn systemd_cgroup_as_bool_or_string() {
        for (body, want) in [
            ("SystemdCgroup = true", true),
            ("SystemdCgroup = \"true\"", true),
            ("SystemdCgroup = \"False\"\nTypeUrl = \"x\"", false),
        ] {
            let config = config().with_options(Some(&generic("", body))).unwrap();
            assert_eq!(config.systemd_cgroup, Some(want), "{body}");
        }
    }

    #[test]
    fn limits_are_read_and_bounded() {
        let body = "CompileTimeoutSeconds = 30\nCompileMemoryMiB = \"512\"";
        let config = config().with_options(Some(&generic("", body))).unwrap();
        assert_eq!(config.compile.wall, Duration::from_secs(30));
        assert_eq!(config.compile.memory, 512 << 20);
    }

    #[test]
    fn all_option_faults_at_once() {
        let body = "SystemdCgroup = 3\nBinaryName = \"crun\"\nCompileTimeoutSeconds = 0";
        let error = config().with_options(Some(&generic("", body))).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.faults.len(), 3, "{text}");
        for word in ["SystemdCgroup", "BinaryName: unknown key", "CompileTimeoutSeconds"] {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn options_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wasm.toml");
        std::fs::write(&path, "CodeImageMiB = 64").unwrap();
        let any = generic(path.to_str().unwrap(), "ignored = 1");
        assert_eq!(config().with_options(Some(&any)).unwrap().compile.output, 64 << 20);
        let gone = generic("/nonexistent/x.toml", "");
        assert!(config().with_options(Some(&gone)).unwrap_err().to_string().contains("ConfigPath"));
    }

    #[test]
    fn runc_options_pass_only_what_means_something() {
        let runc = |options: RuncOptions| Any {
            type_url: format!("types.containerd.io/{RUNC_OPTIONS}"),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        };
        let good = RuncOptions { systemd_cgroup: true, io_uid: 5, ..RuncOptions::default() };
        let good = config().with_options(Some(&runc(good))).unwrap();
        assert_eq!((good.systemd_cgroup, good.io_owner), (Some(true), (5, 0)));
        let bad = runc(RuncOptions {
            binary_name: "crun".into(),
            no_pivot_root: true,
            ..RuncOptions::default()
        });
        assert_eq!(config().with_options(Some(&bad)).unwrap_err().faults.len(), 2);
    }

    #[test]
    fn foreign_types_and_garbage_are_refused() {
        let foreign = Any { type_url: "a.b.C".into(), ..Any::default() };
        assert!(config().with_options(Some(&foreign)).is_err());
        let garbage =
            Any { type_url: GENERIC_OPTIONS.into(), value: vec![0x12, 0xff], ..Any::default() };
        assert!(config().with_options(Some(&garbage)).is_err());
        assert_eq!(config().with_options(None).unwrap(), config());
    }
}
