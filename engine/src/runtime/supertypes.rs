//! The table by which compiled code tells whether a type is below another.
//!
//! A row for each type number of the engine holds the type's supertypes from the top down and then
//! itself. A type is at or below one of depth `d` if that is what stands at place `d` of its row:
//! one load, and a comparison.

use super::registry::{TypeId, TypeRegistry};
use super::vmcontext::Stable;
use crate::abi::layout::{NO_TYPE, SUPERTYPES};

/// A row of the table.
pub(super) type Row = [u32; SUPERTYPES as usize];

/// A store's table. It covers all types that objects and functions of the store have, and grows
/// when new ones come; what was given out before stays where it is.
#[derive(Debug, Default)]
pub(super) struct Supertypes {
    /// The current table and those that were too small. Compiled code may still hold the address of
    /// one of them for objects that it had before.
    tables: Vec<Stable<[Row]>>,
    /// Rows of the current table that are filled in.
    filled: u32,
}

impl Supertypes {
    /// The address that contexts hold; null before the first growth.
    pub(super) fn as_ptr(&self) -> *const Row {
        self.tables.last().map_or(std::ptr::null(), |table| table.pointer().as_ptr().cast())
    }

    /// Takes all types of the registry in. Returns whether the address changed.
    pub(super) fn cover(&mut self, registry: &TypeRegistry) -> bool {
        let needed = registry.len();
        let capacity = self.tables.last().map_or(0, |table| table.get().len());
        let moved = needed as usize > capacity;
        if moved {
            let mut rows =
                vec![[NO_TYPE; SUPERTYPES as usize]; (needed.next_power_of_two()) as usize];
            if let Some(old) = self.tables.last() {
                rows[..capacity].copy_from_slice(old.get());
            }
            self.tables.push(Stable::new(rows.into()));
        }
        if let Some(table) = self.tables.last_mut() {
            for number in self.filled..needed {
                table.get_mut()[number as usize] = row(registry, TypeId::from_number(number));
            }
            self.filled = needed;
        }
        moved
    }
}

fn row(registry: &TypeRegistry, ty: TypeId) -> Row {
    let mut row = [NO_TYPE; SUPERTYPES as usize];
    let line = registry.supertypes(ty).iter().chain([&ty]);
    row.iter_mut().zip(line).for_each(|(place, ty)| *place = ty.number());
    row
}
