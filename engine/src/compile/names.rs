//! Names for backtraces.

use cranelift_entity::SecondaryMap;

use crate::image::{ImageBuilder, Section};
use crate::module::decode::Names;
use crate::module::index::FuncIndex;
use crate::module::{ExportIndex, ImportType, ModuleInfo, limits};

/// Stores a name for each function that has one: from the name section, else what it is exported
/// or imported as.
pub(super) fn store(info: &ModuleInfo, names: &Names<'_>, image: &mut ImageBuilder) {
    let mut exported: SecondaryMap<FuncIndex, Option<&str>> = SecondaryMap::new();
    for export in info.exports.iter().rev() {
        if let ExportIndex::Func(func) = export.index {
            exported[func] = Some(&export.name);
        }
    }
    let mut imports = info
        .imports
        .iter()
        .filter(|import| matches!(import.ty, ImportType::Func(_)))
        .map(|import| format!("{}.{}", import.module, import.name));
    let mut bytes = Vec::new();
    for func in info.functions.keys() {
        let imported = imports.next();
        let name = names.function(func).or(exported[func]).or(imported.as_deref());
        let name = name.unwrap_or_default();
        let name = &name[..name.floor_char_boundary(limits::NAME_BYTES)];
        if bytes.len() + name.len() <= limits::NAMES_BYTES {
            bytes.extend_from_slice(name.as_bytes());
        }
        let end = bytes.len() as u32;
        image.section(Section::NameEnds).extend_from_slice(&end.to_le_bytes());
    }
    *image.section(Section::Names) = bytes;
}
