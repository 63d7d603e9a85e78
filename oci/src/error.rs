//! Error families of this room: one enum for reading a spec, one for finding a module, one for
//! what a content store may answer, one for control groups.
//!
//! Messages name the act, the object and the cure, in lower case and without a full stop, since
//! docker and ctr show them to the user as they are.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
pub use crate::image::{EntryFault, LayerFault};

/// Why a bundle's `config.json` gave no [`crate::spec::Workload`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; the bundle must hold a readable config.json", path.display())]
    Read {
        /// The config file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than [`crate::spec::CONFIG_LIMIT`].
    #[error("{} is larger than {limit} bytes; shorten its environment, annotations or mounts", path.display())]
    TooLarge {
        /// The config file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file is not JSON, or not an OCI runtime configuration.
    #[error("cannot parse {}: {source}; it must be an OCI runtime spec 1.x document", path.display())]
    Parse {
        /// The config file.
        path: PathBuf,
        /// Position and reason.
        source: serde_json::Error,
    },
    /// New limits that are not the JSON object of the spec's `linux.resources`.
    #[error(
        "cannot parse the new resources: {0}; they must be the linux.resources of an OCI runtime spec 1.x"
    )]
    Resources(#[source] serde_json::Error),
    /// The process of an exec is not JSON, or no OCI process.
    #[error("cannot parse the process to execute: {source}; it must be an OCI process in JSON")]
    Process {
        /// Position and reason.
        source: serde_json::Error,
    },
    /// A field that a container needs is absent.
    #[error("{} has no `{field}`, which every linux container needs", path.display())]
    Missing {
        /// The config file.
        path: PathBuf,
        /// Dotted name of the field.
        field: &'static str,
    },
    /// A user or group id that the kernel would take for something else.
    #[error(
        "`{field}` is {value}, which is no user or group id; use a number from 0 to 4294967294"
    )]
    Id {
        /// Dotted name of the field.
        field: &'static str,
        /// The value as written.
        value: String,
    },
    /// A value that is well-formed JSON but cannot be carried out.
    #[error("`{field}` is {value:?}: {problem}")]
    Value {
        /// Dotted name of the field.
        field: &'static str,
        /// The value as written, shortened.
        value: String,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
}

/// A string that is no content address, or bytes that do not match one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// Neither `sha256:` nor 64 lower-case hex digits after it.
    #[error("{0:?} is no digest; write `sha256:` and 64 lower-case hex digits")]
    Malformed(String),
    /// A registered algorithm that this project does not verify.
    #[error("digest {0:?} does not use sha256, the only algorithm accepted")]
    Algorithm(String),
    /// The bytes are not those that the digest names.
    #[error("content has digest {found}, but {wanted} was asked for; pull the image again")]
    Mismatch {
        /// The address that was asked for.
        wanted: Digest,
        /// The digest of the bytes that came.
        found: Digest,
    },
}

/// What a [`crate::image::ContentStore`] may answer instead of content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store works, but does not have the object.
    #[error("{0} is not in the content store")]
    NotFound(String),
    /// The object is larger than the reader accepts.
    #[error("{object} is {size} bytes, more than the {limit} accepted")]
    TooLarge {
        /// Digest or name of the object.
        object: String,
        /// Its size in bytes.
        size: u64,
        /// The reader's limit in bytes.
        limit: u64,
    },
    /// The store cannot be reached or failed.
    #[error("the content store failed while reading {object}: {reason}")]
    Failed {
        /// Digest or name of the object.
        object: String,
        /// The store's own words.
        reason: String,
    },
}

/// Why a workload and its image gave no [`crate::image::Module`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Neither the entry point nor the image's layers give a module.
    #[error("no wasm module to run: {entry}; {image}")]
    NothingUsable {
        /// Why the entry point is unusable.
        entry: EntryFault,
        /// Why the image's layers give nothing.
        image: Box<LayerFault>,
    },
    /// What the image says of its containers cannot be had.
    #[error("cannot read the image's configuration: {0}")]
    Config(Box<LayerFault>),
    /// The image's wasm layer was found, but cannot be used.
    #[error("cannot use the image's wasm layer: {0}")]
    Layer(Box<LayerFault>),
    /// Reading or copying the module failed after it was found.
    #[error("cannot read the module {origin}: {source}")]
    Read {
        /// Where the module lies.
        origin: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file changed between finding the module and reading it.
    #[error(
        "the module {origin} changed while it was read; start the container again when nobody writes to it"
    )]
    Changed {
        /// Where the module lies.
        origin: String,
    },
    /// The rootfs folder itself cannot be opened.
    #[error("cannot open the root file system {}: {source}", path.display())]
    Rootfs {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a control group could not be found, made, limited or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// `/proc/self/mountinfo` or `/proc/self/cgroup` cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Proc {
        /// The file in `/proc`.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No control group file system is mounted.
    #[error("no cgroup file system is mounted; mount cgroup2 on /sys/fs/cgroup")]
    NoHierarchy,
    /// The spec's path would leave the hierarchy or does not parse.
    #[error("cgroup path {path:?} is not usable: {problem}")]
    Path {
        /// The path as the spec has it.
        path: String,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// A limit needs a controller that this host does not offer.
    #[error(
        "cannot set {setting}: the {controller} controller is not available in {}; enable it on the host or drop the limit",
        dir.display()
    )]
    NoController {
        /// The limit, by its name in the spec.
        setting: &'static str,
        /// The controller.
        controller: String,
        /// The control group.
        dir: PathBuf,
    },
    /// The group is somebody's already.
    #[error("the cgroup {} already has process {pid}; give the container a cgroup path of its own", dir.display())]
    Busy {
        /// A folder of the group.
        dir: PathBuf,
        /// One of its processes.
        pid: u32,
    },
    /// Raw files of cgroup v2 were asked for on a host of cgroup v1.
    #[error(
        "cannot set {key:?} of linux.resources.unified: this host uses cgroup v1; name the limit in its own field"
    )]
    UnifiedOnV1 {
        /// The file.
        key: String,
    },
    /// A folder of the group cannot be made.
    #[error("cannot create the cgroup {}: {source}", dir.display())]
    Create {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refuses a limit.
    #[error("cannot set {setting}: {} does not take {value:?}: {source}{hint}", file.display())]
    Refused {
        /// The limit, by its name in the spec.
        setting: &'static str,
        /// The control file.
        file: PathBuf,
        /// The value.
        value: String,
        /// What the system said.
        source: io::Error,
        /// What may be the matter and what to do; begins with `; `, or is empty.
        hint: String,
    },
    /// There is nothing that could pause the group.
    #[error(
        "cannot pause the processes of {}: it has no freezer; mount the freezer hierarchy, or use Linux 5.2 with cgroup v2",
        dir.display()
    )]
    NoFreezer {
        /// A folder of the group.
        dir: PathBuf,
    },
    /// A control file refuses a value.
    #[error("cannot write {value:?} to {}: {source}", file.display())]
    Write {
        /// The control file.
        file: PathBuf,
        /// The value.
        value: String,
        /// What the system said.
        source: io::Error,
    },
    /// A control file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The control file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A limit that contradicts itself.
    #[error("{setting} is {value}: {problem}")]
    Limit {
        /// The limit, by its name in the spec.
        setting: &'static str,
        /// The value.
        value: i64,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// A folder of the group cannot be removed.
    #[error("cannot remove the cgroup {}: {source}; a process may still be in it", dir.display())]
    Remove {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
