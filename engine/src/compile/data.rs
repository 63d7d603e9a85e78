//! Data segments: laid out as a memory's initial contents where possible, else copied at start.

use cranelift_entity::EntityRef;

use crate::image::{ImageBuilder, MAX_GAP, PAGE, Run};
use crate::module::index::{DataIndex, MemoryIndex};
use crate::module::{DataMode, ModuleInfo, limits};

/// Lays out the data of all memories and stores what remains in the data section.
pub(super) fn lay_out(info: &mut ModuleInfo, data: &[&[u8]], image: &mut ImageBuilder) {
    for n in info.imported.memories as usize..info.memories.len() {
        let memory = MemoryIndex::new(n);
        if let Some(segments) = placed_segments(info, memory) {
            lay_out_memory(info, memory, &segments, data, image);
        }
    }
    image.add_data(info, data);
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
    for (start, contents) in contents {
        image.add_contents(info, memory, start, &contents);
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
