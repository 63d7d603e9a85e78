//! The engine's registry of defined types: one number for each, the same for equal types of all
//! modules.
//!
//! Two defined types are equal if their recursion groups are, and they have the same place in them
//! (core specification, "Type Equivalence": iso-recursive types that are rolled up). A group is
//! looked up by a description in words in which types of the group stand by their place and all
//! others by their number, so that equality of groups is equality of words.
//!
//! Numbers are given out under a lock, once for each module that is loaded. What is behind a number
//! is read without one: also while compiled code waits for the answer to a cast.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::module::ModuleInfo;
use crate::module::index::TypeIndex;
use crate::module::types::{
    CompositeType, FieldType, FuncType, HeapType, StorageType, SubType, ValType,
};

/// A defined type of an engine: equal numbers mean equal types, in whatever modules they are
/// defined. It lives as long as the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct TypeId(u32);

impl TypeId {
    /// The number, as contexts and function reference records hold it.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// The type behind a number that compiled code holds.
    pub(super) fn from_number(number: u32) -> TypeId {
        TypeId(number)
    }
}

impl fmt::Display for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type#{}", self.0)
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct TypeRegistry {
    groups: Mutex<Groups>,
    entries: Entries,
}

#[derive(Debug, Default)]
struct Groups {
    /// Descriptions of groups, with the number of their first type.
    first: HashMap<Box<[u32]>, u32>,
    next: u32,
    /// The description that is being made.
    words: Vec<u32>,
}

/// What is known of a type.
#[derive(Debug)]
struct Entry {
    ty: SubType<TypeId>,
    /// Its supertypes from the one that has none down to its own: a type is a subtype of another
    /// one if that is found here, at the place that its own depth says.
    supertypes: Box<[TypeId]>,
    /// Whether it is a recursion group of its own.
    alone: bool,
}

/// Where a description finds a type that it names.
#[derive(Clone, Copy)]
enum Name {
    /// In the group itself, at this place.
    Own(u32),
    Known(TypeId),
}

impl TypeRegistry {
    /// The numbers of a module's types, in order. The module's description must have been checked:
    /// a type names earlier ones and those of its own group only, a supertype stands before its
    /// subtypes, and the groups have as many types as there are.
    pub(super) fn register(&self, info: &ModuleInfo) -> Box<[TypeId]> {
        let types = info.types.values().as_slice();
        let mut groups = self.lock();
        groups.first.reserve(info.rec_groups.len());
        let mut ids: Vec<TypeId> = Vec::with_capacity(types.len());
        for &len in &info.rec_groups {
            let start = ids.len();
            let group = &types[start..start + len as usize];
            let name = |ty: TypeIndex| match ids.get(ty.as_u32() as usize) {
                Some(&id) => Name::Known(id),
                None => Name::Own(ty.as_u32() - start as u32),
            };
            let first = self.number(&mut groups, group, name);
            ids.extend((first..).take(group.len()).map(TypeId));
        }
        ids.into()
    }

    /// The number of a function type that is final, has no supertype and is a group of its own.
    pub(super) fn register_func(&self, ty: FuncType<TypeId>) -> TypeId {
        let group = [SubType::plain_func(ty)];
        TypeId(self.number(&mut self.lock(), &group, Name::Known))
    }

    /// The number of a group's first type.
    fn number<C: Copy>(
        &self,
        groups: &mut Groups,
        group: &[SubType<C>],
        name: impl Fn(C) -> Name,
    ) -> u32 {
        groups.words.clear();
        group.iter().for_each(|ty| describe(&mut groups.words, ty, &name));
        if let Some(&first) = groups.first.get(&groups.words[..]) {
            return first;
        }
        let first = groups.next;
        groups.next += group.len() as u32;
        for (id, ty) in (first..).zip(group) {
            let ty = ty.map(|ty| match name(ty) {
                Name::Own(place) => TypeId(first + place),
                Name::Known(id) => id,
            });
            let supertypes = ty.supertype.map(|supertype| {
                let above = &self.entry(supertype).supertypes;
                above.iter().copied().chain([supertype]).collect()
            });
            let supertypes = supertypes.unwrap_or_default();
            self.entries.set(id, Entry { ty, supertypes, alone: group.len() == 1 });
        }
        groups.first.insert(groups.words.as_slice().into(), first);
        first
    }

    /// The definition of a type.
    pub(super) fn get(&self, id: TypeId) -> &SubType<TypeId> {
        &self.entry(id).ty
    }

    /// Whether a type is final, without supertype and a group of its own: what it is made of tells
    /// all about it then.
    pub(super) fn is_plain(&self, id: TypeId) -> bool {
        let entry = self.entry(id);
        entry.alone && entry.ty.is_final && entry.ty.supertype.is_none()
    }

    /// Whether the first type is the second or declares itself, directly or not, a subtype of it.
    pub(super) fn is_subtype(&self, ty: TypeId, of: TypeId) -> bool {
        ty == of || {
            let depth = self.entry(of).supertypes.len();
            self.entry(ty).supertypes.get(depth) == Some(&of)
        }
    }

    /// A type's supertypes from the top down, without itself.
    pub(super) fn supertypes(&self, id: TypeId) -> &[TypeId] {
        &self.entry(id).supertypes
    }

    /// How many numbers were given out; all below have an entry.
    pub(super) fn len(&self) -> u32 {
        self.lock().next
    }

    fn entry(&self, id: TypeId) -> &Entry {
        match self.entries.get(id.0) {
            Some(entry) => entry,
            None => unreachable!("{id} is a type of another engine"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Groups> {
        // A panic in between can only leave numbers behind that nobody was told.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binary logarithm of the first bucket's size.
const FIRST_BUCKET: u32 = 6;

type Bucket = Box<[OnceLock<Box<Entry>>]>;

/// A growing array that is read without a lock: buckets of doubling size never move.
#[derive(Debug, Default)]
struct Entries {
    buckets: [OnceLock<Bucket>; 33 - FIRST_BUCKET as usize],
}

/// The bucket of an entry, its place in it and the bucket's size.
fn place(n: u32) -> (usize, usize, usize) {
    let n = u64::from(n) + (1 << FIRST_BUCKET);
    let log2 = n.ilog2();
    ((log2 - FIRST_BUCKET) as usize, (n - (1 << log2)) as usize, 1 << log2)
}

impl Entries {
    fn get(&self, n: u32) -> Option<&Entry> {
        let (bucket, at, _) = place(n);
        self.buckets[bucket].get()?[at].get().map(|entry| &**entry)
    }

    fn set(&self, n: u32, entry: Entry) {
        let (bucket, at, size) = place(n);
        let bucket = self.buckets[bucket]
            .get_or_init(|| std::iter::repeat_with(OnceLock::new).take(size).collect());
        // Every number is given out once, under the lock.
        let _ = bucket[at].set(Box::new(entry));
    }
}

/// Appends the description of a type.
fn describe<C: Copy>(words: &mut Vec<u32>, ty: &SubType<C>, name: &impl Fn(C) -> Name) {
    words.push(
        ty.kind() as u32 | u32::from(ty.is_final) << 2 | u32::from(ty.supertype.is_some()) << 3,
    );
    if let Some(supertype) = ty.supertype {
        describe_name(words, 0, name(supertype));
    }
    match &ty.composite {
        CompositeType::Func(ty) => {
            words.extend([ty.params.len() as u32, ty.results.len() as u32]);
            let values = ty.params.iter().chain(&ty.results);
            values.for_each(|&ty| describe_value(words, ty, name));
        }
        CompositeType::Struct(ty) => {
            words.push(ty.fields.len() as u32);
            ty.fields.iter().for_each(|&ty| describe_field(words, ty, name));
        }
        CompositeType::Array(ty) => describe_field(words, ty.element, name),
    }
}

fn describe_field<C>(words: &mut Vec<u32>, ty: FieldType<C>, name: &impl Fn(C) -> Name) {
    words.push(u32::from(ty.mutable));
    match ty.storage {
        StorageType::I8 => words.push(1),
        StorageType::I16 => words.push(2),
        StorageType::Val(ty) => describe_value(words, ty, name),
    }
}

/// Appends a word below 256 that differs for all types, and one more if it names a type.
fn describe_value<C>(words: &mut Vec<u32>, ty: ValType<C>, name: &impl Fn(C) -> Name) {
    let ty = match ty {
        // 1 and 2 are packed fields.
        ValType::I32 => return words.push(3),
        ValType::I64 => return words.push(4),
        ValType::F32 => return words.push(5),
        ValType::F64 => return words.push(6),
        ValType::V128 => return words.push(7),
        ValType::Ref(ty) => ty,
    };
    let null = 8 + u32::from(ty.nullable);
    match ty.heap {
        HeapType::Func => words.push(null | 1 << 4),
        HeapType::NoFunc => words.push(null | 2 << 4),
        HeapType::Extern => words.push(null | 3 << 4),
        HeapType::NoExtern => words.push(null | 4 << 4),
        HeapType::Any => words.push(null | 5 << 4),
        HeapType::Eq => words.push(null | 6 << 4),
        HeapType::I31 => words.push(null | 7 << 4),
        HeapType::Struct => words.push(null | 8 << 4),
        HeapType::Array => words.push(null | 9 << 4),
        HeapType::None => words.push(null | 10 << 4),
        HeapType::Exn => words.push(null | 11 << 4),
        HeapType::NoExn => words.push(null | 12 << 4),
        // The kind belongs to the type that is named.
        HeapType::ConcreteFunc(ty) | HeapType::ConcreteStruct(ty) | HeapType::ConcreteArray(ty) => {
            describe_name(words, null, name(ty));
        }
    }
}

/// Appends two words: `kind` with how the type is named, and its place or number.
fn describe_name(words: &mut Vec<u32>, kind: u32, name: Name) {
    words.extend(match name {
        Name::Own(place) => [kind | 13 << 4, place],
        Name::Known(id) => [kind | 14 << 4, id.0],
    });
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
