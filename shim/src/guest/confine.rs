//! The labels of Linux security modules that a spec may ask for.
//!
//! A protection that is asked for and cannot be had makes the start fail; it is never left out.

use std::fs::File;
use std::io::{self, Write};

use super::plan::Identity;
use super::runner::{Act, Failure};

/// AppArmor's name for having no profile.
const UNCONFINED: &str = "unconfined";

/// Labels to change to, with the files of `/proc/self/attr` opened while the host's `/proc` is there.
#[derive(Debug, Default)]
pub(super) struct Confinement(Vec<(File, String)>);

impl Confinement {
    /// Opens what the identity's labels need: to change to them at once, or `on_exec`, when a Linux
    /// program is executed.
    pub(super) fn open(identity: &Identity, on_exec: bool) -> Result<Self, Failure> {
        let mut all = Vec::new();
        if let Some(profile) = identity.apparmor.as_deref().filter(|p| *p != UNCONFINED) {
            let (names, verb) = if on_exec {
                (["apparmor/exec", "exec"], "exec")
            } else {
                (["apparmor/current", "current"], "changeprofile")
            };
            let file = open_first(&names).act("change to the AppArmor profile", profile)?;
            all.push((file, format!("{verb} {profile}")));
        }
        if let Some(label) = &identity.selinux {
            let name = if on_exec { "exec" } else { "current" };
            let file = open_first(&[name]).act("change to the SELinux label", label)?;
            all.push((file, label.clone()));
        }
        Ok(Self(all))
    }

    /// Changes to the labels.
    pub(super) fn enter(self) -> Result<(), Failure> {
        for (mut file, text) in self.0 {
            // The kernel takes such a text in one write.
            file.write_all(text.as_bytes()).act("change the security label:", text)?;
        }
        Ok(())
    }
}

fn open_first(names: &[&str]) -> io::Result<File> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for name in names {
        match File::options().write(true).open(format!("/proc/self/attr/{name}")) {
            Ok(file) => return Ok(file),
            Err(error) => last = error,
        }
    }
    Err(last)
}
