//! Which devices the processes of a container may use.
//!
//! Source: OCI runtime spec, `config-linux.md`, section "Allowed Device list".

use oci_spec::runtime as json;

use super::check;
use crate::error::SpecError;

/// One rule of `linux.resources.devices`; the later of two counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether it allows or forbids.
    pub allow: bool,
    /// Block or character devices; `None` is both.
    pub kind: Option<DeviceClass>,
    /// Major number; `None` is any.
    pub major: Option<u32>,
    /// Minor number; `None` is any.
    pub minor: Option<u32>,
    /// What is allowed or forbidden; never empty.
    pub access: DeviceAccess,
}

/// Kinds of devices that rules tell apart, valued as `BPF_DEVCG_DEV_*` of `linux/bpf.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum DeviceClass {
    /// Block devices.
    Block = 1,
    /// Character devices.
    Char = 2,
}

/// A set of kinds of access; the bits are `BPF_DEVCG_ACC_*` of `linux/bpf.h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceAccess(u32);

impl DeviceAccess {
    /// Making a node.
    pub const MKNOD: Self = Self(1);
    /// Opening for reading.
    pub const READ: Self = Self(2);
    /// Opening for writing.
    pub const WRITE: Self = Self(4);
    /// All three.
    pub const ALL: Self = Self(7);

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without another.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn parse(text: &str) -> Result<Self, SpecError> {
        let mut all = Self::default();
        for letter in text.chars() {
            all = all.with(match letter {
                'r' => Self::READ,
                'w' => Self::WRITE,
                'm' => Self::MKNOD,
                _ => {
                    let problem = "write letters of rwm: read, write, make a node";
                    return Err(check::value("linux.resources.devices.access", text, problem));
                }
            });
        }
        Ok(all)
    }
}

/// The letters of cgroup v1.
impl std::fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letters = [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")];
        letters.iter().filter(|(one, _)| self.0 & one.0 != 0).try_for_each(|(_, l)| f.write_str(l))
    }
}

pub(super) fn parse(
    list: Option<&[json::LinuxDeviceCgroup]>,
) -> Result<Vec<DeviceRule>, SpecError> {
    let rules = list.unwrap_or_default().iter().map(rule);
    rules.filter_map(Result::transpose).collect()
}

/// `None` for a rule about no access at all.
fn rule(rule: &json::LinuxDeviceCgroup) -> Result<Option<DeviceRule>, SpecError> {
    use json::LinuxDeviceType as J;
    let kind = match rule.typ() {
        None | Some(J::A) => None,
        Some(J::B) => Some(DeviceClass::Block),
        Some(J::C | J::U) => Some(DeviceClass::Char),
        Some(J::P) => {
            let problem = "a rule is about devices of type a, b or c";
            return Err(check::value("linux.resources.devices.type", "p", problem));
        }
    };
    let number = |value: Option<i64>| match value {
        // -1 is any, as engines write it.
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| {
            let problem = "a device number must lie between 0 and 4294967295, or be -1 for any";
            check::value("linux.resources.devices", value, problem)
        }),
    };
    // Without letters, all is meant.
    let access = match rule.access().as_deref() {
        None => DeviceAccess::ALL,
        Some(text) => DeviceAccess::parse(text)?,
    };
    let (major, minor) = (number(rule.major())?, number(rule.minor())?);
    let parsed = DeviceRule { allow: rule.allow(), kind, major, minor, access };
    Ok((!access.is_empty()).then_some(parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_json(text: serde_json::Value) -> Result<Vec<DeviceRule>, String> {
        let list: Vec<json::LinuxDeviceCgroup> = serde_json::from_value(text).unwrap();
        parse(Some(&list)).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_as_engines_write_them() {
        let rules = parse_json(serde_json::json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw" },
            { "allow": true, "type": "b", "major": 8, "minor": -1, "access": "m" },
            { "allow": true, "type": "a", "access": "" },
        ]))
        .unwrap();
        let any = DeviceRule {
            allow: false,
            kind: None,
            major: None,
            minor: None,
            access: DeviceAccess::ALL,
        };
        let zero = DeviceRule {
            allow: true,
            kind: Some(DeviceClass::Char),
            major: Some(1),
            minor: Some(5),
            access: DeviceAccess::READ.with(DeviceAccess::WRITE),
        };
        let disks = DeviceRule {
            allow: true,
            kind: Some(DeviceClass::Block),
            major: Some(8),
            minor: None,
            access: DeviceAccess::MKNOD,
        };
        assert_eq!(rules, [any, zero, disks]);
        let letters: Vec<String> = rules.iter().map(|rule| rule.access.to_string()).collect();
        assert_eq!(letters, ["rwm", "rw", "m"]);
    }

    #[test]
    fn nonsense_is_named() {
        for (rule, word) in [
            (serde_json::json!([{ "allow": true, "type": "p" }]), "a, b or c"),
            (serde_json::json!([{ "allow": true, "major": -2 }]), "-1 for any"),
            (serde_json::json!([{ "allow": true, "access": "rx" }]), "rwm"),
        ] {
            let error = parse_json(rule).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
