//! What memories begin with, as an image holds it: pages that are mapped, and segments.

use super::{ImageBuilder, PAGE, Section};
use crate::module::index::MemoryIndex;
use crate::module::{DataMode, MemoryImage, ModuleInfo};

/// Runs of zero pages up to this are kept inside an image: each run costs a mapping.
pub(crate) const MAX_GAP: u64 = 16;

/// A run of pages of a memory: first byte and length in bytes.
pub(crate) type Run = (u64, u64);

impl ImageBuilder {
    /// Adds contents of a memory from `start` on, the first byte of a page; long stretches of zeros
    /// are left out.
    pub(crate) fn add_contents(
        &mut self,
        info: &mut ModuleInfo,
        memory: MemoryIndex,
        start: u64,
        contents: &[u8],
    ) {
        let section = self.section(Section::Memory);
        for (offset, len) in non_zero_runs(contents) {
            let image_offset = section.len() as u64;
            let guest_offset = start + offset;
            info.memory_images.push(MemoryImage { memory, guest_offset, image_offset, len });
            section.extend_from_slice(&contents[offset as usize..(offset + len) as usize]);
        }
    }

    /// Adds the bytes of the segments that are not part of the contents.
    pub(crate) fn add_data(&mut self, info: &mut ModuleInfo, data: &[&[u8]]) {
        let section = self.section(Section::Data);
        for (segment, bytes) in info.data.values_mut().zip(data) {
            if segment.mode != DataMode::Static {
                segment.offset = section.len() as u64;
                section.extend_from_slice(bytes);
            }
        }
        forget_static(info);
    }
}

/// Leaves the static segments behind the last other one out of the description: nothing of them is
/// left, and a program with ten thousand segments would decode them all at each start.
fn forget_static(info: &mut ModuleInfo) {
    let last = info.data.values().rposition(|segment| segment.mode != DataMode::Static);
    let described = last.map_or(0, |last| last + 1);
    info.data =
        std::mem::take(&mut info.data).into_iter().take(described).map(|(_, s)| s).collect();
}

/// The parts that must be stored.
fn non_zero_runs(contents: &[u8]) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::new();
    for (n, page) in contents.chunks(PAGE as usize).enumerate() {
        if page.iter().all(|&byte| byte == 0) {
            continue;
        }
        let start = n as u64 * PAGE;
        match out.last_mut() {
            Some((first, len)) if start <= *first + *len + MAX_GAP * PAGE => {
                *len = start + PAGE - *first;
            }
            _ => out.push((start, PAGE)),
        }
    }
    out
}
