//! Names of users and groups, from the image's own files, if it has any.

use std::collections::BTreeMap;

/// Names by their numbers.
pub struct Names(BTreeMap<u32, String>);

impl Names {
    /// Those of users.
    pub fn users() -> Names {
        Names::read("/etc/passwd")
    }

    /// Those of groups.
    pub fn groups() -> Names {
        Names::read("/etc/group")
    }

    /// No names: numbers.
    pub fn none() -> Names {
        Names(BTreeMap::new())
    }

    fn read(path: &str) -> Names {
        let text = std::fs::read(path).unwrap_or_default();
        let mut names = BTreeMap::new();
        for line in String::from_utf8_lossy(&text).lines() {
            let mut fields = line.split(':');
            if let (Some(name), Some(Ok(number))) = (fields.next(), fields.nth(1).map(str::parse)) {
                names.entry(number).or_insert_with(|| name.to_owned());
            }
        }
        Names(names)
    }

    /// A name, else the number.
    pub fn get(&self, number: u32) -> String {
        self.0.get(&number).cloned().unwrap_or_else(|| number.to_string())
    }
}
