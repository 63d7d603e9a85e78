//! Tests of the type registry.

use super::*;
use crate::config::Features;
use crate::module::decode::{decode, to_binary};
use crate::module::limits;
use crate::module::types::{ArrayType, RefType, StructType};

/// The numbers of a text module's types.
fn ids(registry: &TypeRegistry, wat: &str) -> Vec<TypeId> {
    let features = Features { gc: true, ..Features::default() };
    let binary = to_binary(wat.as_bytes()).unwrap();
    registry.register(&decode(&binary, features).unwrap().info).into()
}

/// A type without supertype.
fn alone(is_final: bool, composite: CompositeType) -> SubType {
    SubType { is_final, supertype: None, composite }
}

fn func(params: &[ValType], results: &[ValType]) -> CompositeType {
    CompositeType::Func(FuncType { params: params.to_vec(), results: results.to_vec() })
}

fn structure(fields: &[(StorageType, bool)]) -> CompositeType {
    let field = |&(storage, mutable)| FieldType { storage, mutable };
    CompositeType::Struct(StructType { fields: fields.iter().map(field).collect() })
}

fn array(storage: StorageType, mutable: bool) -> CompositeType {
    CompositeType::Array(ArrayType { element: FieldType { storage, mutable } })
}

#[test]
fn equal_types_of_all_modules_share_a_number_and_others_do_not() {
    let registry = TypeRegistry::default();
    let first = ids(
        &registry,
        "(module (type (func (param i32))) (type (func)) (type (func (param i32))))",
    );
    assert_eq!(first[0], first[2]);
    assert_ne!(first[0], first[1]);
    let second = ids(&registry, "(module (type (func)) (type (func (result i32))))");
    assert_eq!(second[0], first[1]);
    assert!(!first.contains(&second[1]));
    let host = FuncType { params: vec![ValType::I32], results: vec![] };
    assert_eq!(registry.register_func(host), first[0]);
}

#[test]
fn everything_that_a_type_is_made_of_counts() {
    use HeapType as H;
    let (i32, val) = (ValType::I32, |ty| StorageType::Val(ty));
    let mut types = vec![
        alone(true, func(&[], &[])),
        alone(false, func(&[], &[])),
        alone(true, func(&[i32], &[])),
        alone(true, func(&[], &[i32])),
        alone(true, func(&[i32, i32], &[])),
        alone(true, func(&[i32], &[i32])),
        alone(true, structure(&[])),
        alone(false, structure(&[])),
        alone(true, structure(&[(val(i32), false)])),
        alone(true, structure(&[(val(i32), true)])),
        alone(true, structure(&[(StorageType::I8, true)])),
        alone(true, structure(&[(StorageType::I16, true)])),
        alone(true, structure(&[(val(i32), false), (val(i32), false)])),
        alone(true, array(StorageType::I8, false)),
        alone(true, array(StorageType::I8, true)),
        alone(true, array(val(i32), false)),
        SubType { supertype: Some(TypeIndex::from_u32(1)), ..alone(true, func(&[], &[])) },
    ];
    let concrete = [2, 3].map(|n| H::ConcreteFunc(TypeIndex::from_u32(n)));
    let heaps = [
        H::Func,
        H::NoFunc,
        H::Extern,
        H::NoExtern,
        H::Any,
        H::Eq,
        H::I31,
        H::Struct,
        H::Array,
        H::None,
        H::Exn,
        H::NoExn,
    ];
    let references = heaps
        .into_iter()
        .chain(concrete)
        .flat_map(|heap| [true, false].map(|nullable| ValType::Ref(RefType { nullable, heap })));
    let values = [ValType::I64, ValType::F32, ValType::F64, ValType::V128];
    types.extend(values.into_iter().chain(references).map(|ty| alone(true, func(&[ty], &[]))));
    let count = types.len();
    let info = ModuleInfo {
        rec_groups: vec![1; count],
        types: types.into_iter().collect(),
        ..ModuleInfo::default()
    };
    let registry = TypeRegistry::default();
    let found = registry.register(&info);
    let distinct: std::collections::HashSet<_> = found.iter().collect();
    assert_eq!(distinct.len(), count);
    assert_eq!(registry.register(&info), found);
    // What is asked for is what was given, with names put into place.
    for (ty, &id) in info.types.values().zip(&found) {
        assert_eq!(*registry.get(id), ty.map(|ty| found[ty.as_u32() as usize]));
    }
}

#[test]
fn groups_are_equal_when_they_look_the_same_from_within() {
    let registry = TypeRegistry::default();
    let pair =
        "(rec (type $a (func (param (ref null $b)))) (type $b (func (result (ref null $a)))))";
    let first = ids(&registry, &format!("(module {pair})"));
    let second =
        ids(&registry, &format!("(module (type (func)) {pair} {})", pair.replace('$', "$other_")));
    assert_eq!(first, second[1..3]);
    assert_eq!(first, second[3..5]);
    // The same two in another order, one more in the group, the group apart: other types.
    let turned = ids(
        &registry,
        "(module (rec (type $b (func (result (ref null $a)))) (type $a (func (param (ref null $b))))))",
    );
    let more = ids(
        &registry,
        "(module (rec (type $a (func (param (ref null $b)))) (type $b (func (result (ref null $a))))
            (type (func))))",
    );
    for other in turned.iter().chain(&more) {
        assert!(!first.contains(other));
    }
    // A type of its own group is not the equal type outside of it.
    let own = ids(&registry, "(module (type $t (func (param (ref null $t)))))");
    let outer = ids(
        &registry,
        "(module (type $t (func (param (ref null $t)))) (type (func (param (ref null $t)))))",
    );
    assert_eq!(own[0], outer[0]);
    assert_ne!(outer[0], outer[1]);
    // A group of one is that type alone; equal types of groups of different lengths are different.
    let (one, two) = (
        ids(&registry, "(module (type (struct)) (rec (type (struct))))"),
        ids(&registry, "(module (rec (type (struct)) (type (struct))))"),
    );
    assert_eq!(one[0], one[1]);
    assert!(two[0] != two[1] && !two.contains(&one[0]));
    assert!(registry.is_plain(one[0]) && !registry.is_plain(two[0]) && registry.is_plain(own[0]));
}

#[test]
fn subtyping_follows_declarations_only() {
    let registry = TypeRegistry::default();
    let [a, b, c, other, same, below] = ids(
        &registry,
        "(module (type $a (sub (struct))) (type $b (sub $a (struct (field i32))))
            (type $c (sub $b (struct (field i32 i64)))) (type $other (sub $a (struct (field i32 i64))))
            (type $same (sub $a (struct (field i32)))) (type (sub final $same (struct (field i32)))))",
    )[..] else {
        panic!("six types")
    };
    assert_eq!(b, same);
    let is = |ty, of| registry.is_subtype(ty, of);
    for ty in [a, b, c, other, below] {
        assert!(is(ty, ty) && is(ty, a));
        assert_eq!(is(a, ty), ty == a);
    }
    assert!(is(c, b) && !is(b, c) && !is(other, b) && !is(c, other) && is(below, b));
}

#[test]
fn a_chain_of_supertypes_may_be_as_long_as_the_limit() {
    let registry = TypeRegistry::default();
    let chain = |depth: usize| {
        let above = |n: usize| format!("(type $t{} (sub $t{n} (func)))", n + 1);
        format!("(module (type $t0 (sub (func))) {})", (0..depth).map(above).collect::<String>())
    };
    let found = ids(&registry, &chain(limits::SUPERTYPES));
    let lowest = found[limits::SUPERTYPES];
    for (n, &ty) in found.iter().enumerate() {
        assert!(registry.is_subtype(lowest, ty));
        assert_eq!(registry.is_subtype(ty, lowest), n == limits::SUPERTYPES);
    }
    let features = Features { gc: true, ..Features::default() };
    let longer = chain(limits::SUPERTYPES + 1);
    let binary = to_binary(longer.as_bytes()).unwrap();
    assert!(decode(&binary, features).is_err());
}

#[test]
fn places_of_entries_follow_each_other() {
    let mut next = (0, 0);
    for n in 0..1000 {
        let (bucket, at, size) = place(n);
        assert_eq!((bucket, at), next);
        next = if at + 1 == size { (bucket + 1, 0) } else { (bucket, at + 1) };
    }
    let (bucket, at, size) = place(u32::MAX);
    assert!(bucket < Entries::default().buckets.len() && at < size);
}

#[test]
fn many_threads_agree() {
    let registry = TypeRegistry::default();
    let module = |n: usize| {
        let types =
            (0..50).map(|m| format!("(type (func {}))", "(param i32)".repeat((n * 7 + m) % 61)));
        format!("(module {})", types.collect::<String>())
    };
    let found: Vec<Vec<TypeId>> = std::thread::scope(|scope| {
        let start = |n| {
            let (registry, module) = (&registry, module(n));
            scope.spawn(move || ids(registry, &module))
        };
        let threads: Vec<_> = (0..8).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (n, ids) in found.iter().enumerate() {
        for (m, &id) in ids.iter().enumerate() {
            let params = registry.get(id).as_func().unwrap().params.len();
            assert_eq!(params, (n * 7 + m) % 61);
        }
    }
    assert_eq!(registry.lock().next, 61);
}
