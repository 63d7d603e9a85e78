//! What another container of an image takes, besides the linear memory of its program.

use std::fs;

use anyhow::{Context, Result};
use coracle_engine::config::{DEDICATED_BASE, MEMORY_GUARD, MEMORY_RESERVATION};

use crate::subject::{Bed, Subject};

/// Containers that run at the same time.
const CONTAINERS: usize = 4;

/// Bytes that only this container has: of its process without the linear memory, of the linear memory, of
/// its shim.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Private {
    pub(crate) guest: u64,
    pub(crate) linear: u64,
    pub(crate) shim: u64,
}

/// Measures those after the first.
pub(crate) async fn measure(bed: &Bed) -> Result<Vec<Private>> {
    let subject = Subject::idle_ruby(bed)?;
    let mut running = Vec::new();
    for number in 0..CONTAINERS {
        let mut started = subject.start(bed, 9000 + number).await?;
        started.said().await?;
        running.push(started);
    }
    let mut all = Vec::new();
    for started in running.iter().skip(1) {
        let [guest, shim] = started.pids().await?;
        let (guest, linear) = private(guest)?;
        all.push(Private { guest, linear, shim: private(shim)?.0 });
    }
    for started in running {
        started.kill().await?;
    }
    Ok(all)
}

/// Private bytes of a process outside and inside of where linear memory lies: `smaps` of proc(5).
fn private(pid: u32) -> Result<(u64, u64)> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).with_context(|| path)?;
    let linear = DEDICATED_BASE..DEDICATED_BASE + MEMORY_RESERVATION + MEMORY_GUARD;
    let (mut other, mut within, mut inside) = (0, 0, false);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, _)) = first.split_once('-') {
            if let Ok(start) = u64::from_str_radix(start, 16) {
                inside = linear.contains(&start);
            }
        } else if matches!(first, "Private_Clean:" | "Private_Dirty:") {
            let kib: u64 = words.next().unwrap_or_default().parse()?;
            *(if inside { &mut within } else { &mut other }) += kib << 10;
        }
    }
    Ok((other, within))
}
