//! The name section. It is never trusted: what is wrong with it only shortens backtraces.

use std::collections::HashMap;

use wasmparser::{Name, NameSectionReader};

use crate::module::index::FuncIndex;
use crate::module::limits;

/// Names that the module gives to itself and to its functions.
#[derive(Clone, Debug, Default)]
pub struct Names<'a> {
    /// The module's name.
    pub module: Option<&'a str>,
    functions: HashMap<u32, &'a str>,
    bytes: usize,
}

impl<'a> Names<'a> {
    /// The name of a function.
    #[must_use]
    pub fn function(&self, func: FuncIndex) -> Option<&'a str> {
        self.functions.get(&func.as_u32()).copied()
    }

    /// Takes over what can be read; stops at the first fault.
    pub(super) fn read(&mut self, reader: NameSectionReader<'a>) {
        for subsection in reader {
            let Ok(subsection) = subsection else { return };
            match subsection {
                Name::Module { name, .. } => self.module = non_empty(name),
                Name::Function(map) => {
                    for naming in map {
                        let Ok(naming) = naming else { return };
                        self.add(naming.index, naming.name);
                    }
                }
                _ => {}
            }
        }
    }

    fn add(&mut self, index: u32, name: &'a str) {
        let Some(name) = non_empty(name) else { return };
        if index < limits::FUNCTIONS && self.bytes + name.len() <= limits::NAMES_BYTES {
            self.bytes += name.len();
            self.functions.insert(index, name);
        }
    }
}

/// The name within the limit, `None` if nothing is left.
fn non_empty(name: &str) -> Option<&str> {
    let end = name.floor_char_boundary(limits::NAME_BYTES);
    Some(&name[..end]).filter(|name| !name.is_empty())
}
