//! A control group of cgroup v2 as a unit of systemd: the unit's name, and limits as its properties.
//!
//! systemd writes the files of its units whenever it looks at them (`daemon-reload`, `set-property`), with what it knows.
//! So what is written to a unit's files has to be told to systemd too.
//!
//! Source: `systemd.resource-control(5)`, `org.freedesktop.systemd1(5)`.

use super::limits::Setting;
use super::{Cgroup, CgroupError, v2};
use crate::spec::Resources;

/// A scope: a unit of processes that somebody else has started.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unit {
    /// Like `cri-containerd-ID.scope`.
    pub name: String,
    /// The slice that it lies in.
    pub slice: String,
}

/// A property's value, by its type on D-Bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `t`
    Number(u64),
    /// `s`
    Text(String),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
}

/// A property of a unit.
pub type Property = (&'static str, Value);

/// What no limit is called.
const INFINITY: u64 = u64::MAX;
/// Microseconds of a second, and of the kernel's own period.
const SECOND: u64 = 1_000_000;
const PERIOD: u64 = 100_000;

impl Cgroup {
    /// Limits as properties of the group's unit, as far as systemd has one: of the others it knows nothing, and does not
    /// touch their files.
    ///
    /// # Errors
    /// As [`Cgroup::apply`], for a limit that contradicts another.
    pub fn properties(&self, resources: &Resources) -> Result<Vec<Property>, CgroupError> {
        let mut resources = self.completed(resources).into_owned();
        // The kernel keeps the period that it has, and systemd wants to know a second's part.
        if resources.cpu.quota.is_some() && resources.cpu.period.is_none() {
            resources.cpu.period = self.period();
        }
        let settings = v2::plan(&resources)?;
        Ok(settings.iter().flat_map(properties).collect())
    }

    fn period(&self) -> Option<u64> {
        let text = crate::file::read_text(&self.folder("cpu")?.join("cpu.max")).ok()?;
        text.split_whitespace().nth(1)?.parse().ok()
    }
}

/// What a file and its value are called. A text that is none of the file's goes to the kernel alone, which refuses it.
fn properties(setting: &Setting) -> Vec<Property> {
    let number = |name| limit(&setting.value).map(|value| (name, Value::Number(value)));
    let bits = |name| bitmap(&setting.value).map(|bits| (name, Value::Bytes(bits)));
    match setting.file.as_str() {
        "memory.max" => number("MemoryMax").into_iter().collect(),
        "memory.high" => number("MemoryHigh").into_iter().collect(),
        "memory.low" => number("MemoryLow").into_iter().collect(),
        "memory.min" => number("MemoryMin").into_iter().collect(),
        "memory.swap.max" => number("MemorySwapMax").into_iter().collect(),
        "pids.max" => number("TasksMax").into_iter().collect(),
        "cpu.weight" => number("CPUWeight").into_iter().collect(),
        "cpuset.cpus" => bits("AllowedCPUs").into_iter().collect(),
        "cpuset.mems" => bits("AllowedMemoryNodes").into_iter().collect(),
        "cpu.max" => quota(&setting.value),
        // The weight of a group that has none is 0, which is how systemd writes `idle`.
        "cpu.idle" if setting.value == "1" => vec![("CPUWeight", Value::Number(0))],
        _ => Vec::new(),
    }
}

fn limit(text: &str) -> Option<u64> {
    if text == "max" { Some(INFINITY) } else { text.parse().ok() }
}

/// `QUOTA [PERIOD]` as time for each second, and the period.
fn quota(text: &str) -> Vec<Property> {
    let mut words = text.split_whitespace();
    let quota = words.next().and_then(limit);
    let period = words.next().and_then(|word| word.parse::<u64>().ok()).filter(|time| *time > 0);
    let each_second = match quota {
        Some(INFINITY) => Some(INFINITY),
        // Rounded up: the container shall not get less than it was promised.
        Some(quota) => {
            quota.checked_mul(SECOND).map(|time| time.div_ceil(period.unwrap_or(PERIOD)))
        }
        None => None,
    };
    let time = each_second.map(|time| ("CPUQuotaPerSecUSec", Value::Number(time)));
    let period = period.map(|period| ("CPUQuotaPeriodUSec", Value::Number(period)));
    time.into_iter().chain(period).collect()
}

/// A list like `0-3,8` with a bit for each number, the lowest first.
fn bitmap(list: &str) -> Option<Vec<u8>> {
    // Far above what kernels are built for.
    const MOST: usize = 1 << 16;
    let mut bits = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST {
            return None;
        }
        for bit in first..=last {
            if bits.len() <= bit / 8 {
                bits.resize(bit / 8 + 1, 0);
            }
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{CgroupPath, Host};

    fn group(path: &str) -> Cgroup {
        let mounts = "1 1 0:1 / /nowhere rw - cgroup2 cgroup2 rw\n";
        let host = Host::parse(mounts, "0::/\n").unwrap();
        Cgroup::new(&host, &CgroupPath::parse(Some(path), "c").unwrap())
    }

    fn properties(text: &str) -> Vec<Property> {
        let resources = Resources::from_json(text.as_bytes()).unwrap();
        group("a.slice:x:c").properties(&resources).unwrap()
    }

    #[test]
    fn limits_are_named_and_counted_as_systemd_does() {
        let number = |name, value| (name, Value::Number(value));
        assert_eq!(
            properties(
                r#"{"memory": {"limit": 67108864, "swap": 100663296, "reservation": 1048576},
                    "pids": {"limit": 7}}"#
            ),
            [
                number("MemorySwapMax", 32 << 20),
                number("MemoryMax", 64 << 20),
                number("MemoryLow", 1 << 20),
                number("TasksMax", 7),
            ]
        );
        assert_eq!(
            properties(r#"{"memory": {"limit": -1}, "pids": {"limit": -1}}"#),
            ["MemorySwapMax", "MemoryMax", "TasksMax"].map(|name| number(name, INFINITY))
        );
        assert_eq!(
            properties(r#"{"cpu": {"shares": 512, "quota": 50001, "period": 30000}}"#),
            [
                number("CPUWeight", 59),
                number("CPUQuotaPerSecUSec", 1_666_700),
                number("CPUQuotaPeriodUSec", 30_000),
            ]
        );
        assert_eq!(
            properties(r#"{"cpu": {"quota": 25000, "idle": 1, "shares": 2}}"#),
            [number("CPUQuotaPerSecUSec", 250_000), number("CPUWeight", 0)]
        );
        assert_eq!(
            properties(r#"{"cpu": {"quota": -1}}"#),
            [number("CPUQuotaPerSecUSec", INFINITY)]
        );
        assert_eq!(
            properties(r#"{"unified": {"memory.high": "1000", "memory.oom.group": "1"}}"#),
            [number("MemoryHigh", 1000)]
        );
    }

    #[test]
    fn a_quota_alone_is_of_the_period_that_is_there() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("c")).unwrap();
        std::fs::write(root.path().join("c/cpu.max"), "max 50000\n").unwrap();
        let dirs = [root.path().join("c")];
        let group = Cgroup::from_dirs(crate::cgroup::Version::V2, dirs);
        let quota = Resources::from_json(br#"{"cpu": {"quota": 25000}}"#).unwrap();
        let wanted = [("CPUQuotaPerSecUSec", 500_000), ("CPUQuotaPeriodUSec", 50_000)]
            .map(|(name, value)| (name, Value::Number(value)));
        assert_eq!(group.properties(&quota).unwrap(), wanted);
    }

    #[test]
    fn places_are_bits() {
        let bits = |name, bits: &[u8]| (name, Value::Bytes(bits.to_vec()));
        assert_eq!(
            properties(r#"{"cpu": {"cpus": "0-2,9", "mems": "0"}}"#),
            [bits("AllowedCPUs", &[7, 2]), bits("AllowedMemoryNodes", &[1])]
        );
        assert_eq!(bitmap("0-4000000000"), None);
        assert_eq!(bitmap("x"), None);
    }

    #[test]
    fn only_a_scope_of_v2_is_a_unit() {
        let unit = |path: &str| group(path).unit().cloned();
        let wanted = Unit { name: "x-c.scope".into(), slice: "a-b.slice".into() };
        assert_eq!(unit("a-b.slice:x:c"), Some(wanted));
        assert_eq!(unit("a.slice:x:b.slice"), None);
        assert_eq!(unit("/a.slice/x-c.scope"), None);
        let v1 = Host::parse("1 1 0:1 / /m rw - cgroup c rw,memory", "4:memory:/\n").unwrap();
        let path = CgroupPath::parse(Some("a.slice:x:c"), "c").unwrap();
        assert_eq!(Cgroup::new(&v1, &path).unit(), None);
    }
}
