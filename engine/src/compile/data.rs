//! Data segments: laid out as a memory's initial contents where possible, else copied at start.

use cranelift_entity::EntityRef;

use crate::image::{ImageBuilder, PAGE, Section};
use crate::module::index::{DataIndex, MemoryIndex};
use crate::module::{DataMode, MemoryImage, ModuleInfo, limits};

/// Runs of zero pages up to this are kept inside an image: each run costs a mapping.
const MAX_GAP: u64 = 16;

/// Lays out the data of all memories and stores what remains in the data section.
pub(super) fn lay_out(info: &mut ModuleInfo, data: &[&[u8]], image: &mut ImageBuilder) {
    for n in info.imported.memories as usize..info.memories.len() {
        let memory = MemoryIndex::new(n);
        if let Some(segments) = placed_segments(info, memory) {
            lay_out_memory(info, memory, &segments, data, image);
        }
    }
    let section = image.section(Section::Data);
    for (segment, bytes) in info.data.values_mut().zip(data) {
        if segment.mode != DataMode::Static {
            segment.offset = section.len() as u64;
            section.extend_from_slice(bytes);
        }
    }
    forget_static(info);
}

/// Leaves the static segments behind the last other one out of the description: nothing of them is
/// left, and a program with ten thousand segments would decode them all at each start.
fn forget_static(info: &mut ModuleInfo) {
    let last = info.data.values().rposition(|segment| segment.mode != DataMode::Static);
    let described = last.map_or(0, |last| last + 1);
    info.data =
        std::mem::take(&mut info.data).into_iter().take(described).map(|(_, s)| s).collect();
}

/// A segment and where it goes.
struct Placed {
    segment: DataIndex,
    offset: u64,
    len: u64,
}

/// The active segments of a memory in order, if the place of each is known and within it.
fn placed_segments(info: &ModuleInfo, memory: MemoryIndex) -> Option<Vec<Placed>> {
    let ty = info.memories[memory];
    let size = ty.min.checked_mul(1 << ty.page_size_log2)?;
    if !size.is_multiple_of(PAGE) {
        return None;
    }
    let mut out = Vec::new();
    for (segment, data) in info.data.iter() {
        let DataMode::Active { memory: target, offset } = &data.mode else { continue };
        if *target != memory {
            continue;
        }
        let offset = info.const_bits(offset)?;
        let end = offset.checked_add(data.len)?;
        if end > size {
            return None;
        }
        out.push(Placed { segment, offset, len: data.len });
    }
    Some(out)
}

/// A run of pages of a memory: first byte and length in bytes.
type Run = (u64, u64);

fn lay_out_memory(
    info: &mut ModuleInfo,
    memory: MemoryIndex,
    segments: &[Placed],
    data: &[&[u8]],
    image: &mut ImageBuilder,
) {
    let runs = runs(segments);
    let bytes: u64 = segments.iter().map(|placed| placed.len).sum();
    let laid_out: u64 = runs.iter().map(|(_, len)| len).sum();
    if laid_out > bytes + limits::MEMORY_IMAGE_SLACK as u64 {
        return;
    }
    let mut contents: Vec<(u64, Vec<u8>)> =
        runs.iter().map(|&(start, len)| (start, vec![0; len as usize])).collect();
    for placed in segments {
        info.data[placed.segment].mode = DataMode::Static;
        if placed.len == 0 {
            continue;
        }
        let run = contents.partition_point(|(start, _)| *start <= placed.offset) - 1;
        let (start, run) = &mut contents[run];
        let at = (placed.offset - *start) as usize;
        run[at..at + placed.len as usize].copy_from_slice(data[placed.segment.index()]);
    }
    let section = image.section(Section::Memory);
    for (start, contents) in contents {
        for (offset, len) in non_zero_runs(&contents) {
            let image_offset = section.len() as u64;
            let guest_offset = start + offset;
            info.memory_images.push(MemoryImage { memory, guest_offset, image_offset, len });
            section.extend_from_slice(&contents[offset as usize..(offset + len) as usize]);
        }
    }
}

/// The pages that the segments touch, ascending, close ones joined.
fn runs(segments: &[Placed]) -> Vec<Run> {
    let mut pages: Vec<(u64, u64)> = segments
        .iter()
        .filter(|placed| placed.len > 0)
        .map(|placed| (placed.offset / PAGE, (placed.offset + placed.len).div_ceil(PAGE)))
        .collect();
    pages.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, end) in pages {
        match joined.last_mut() {
            Some((_, last)) if start <= *last + MAX_GAP => *last = end.max(*last),
            _ => joined.push((start, end)),
        }
    }
    joined.into_iter().map(|(start, end)| (start * PAGE, (end - start) * PAGE)).collect()
}

/// The parts of a run that must be stored; long stretches of zeros are left out.
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
