//! Images that do not fit: other machines, damage, the file they come from.

use std::io::Write;

use coracle_engine::image::{CodeImage, ImageBuilder, ImageError, Meta, Section};
use coracle_engine::module::index::{SigIndex, TypeIndex};
use coracle_engine::module::types::{
    ArrayType, CompositeType, FieldType, HeapType, MemoryType, RefType, StorageType, SubType,
    ValType,
};
use coracle_engine::module::{ConstOp, ImportType, ModuleInfo};
use coracle_engine::runtime::{Engine, Linker, LoadError, Module, Store};

use crate::{image_of, image_with};

const WAT: &str = r#"(module (import "env" "f" (func (param i32)))
    (memory (export "m") 2) (table 2 funcref) (global (mut i64) (i64.const 3))
    (data (i32.const 5000) "hello") (data "passive") (elem (i32.const 0) $a $b)
    (func $a (result i32) (i32.load (i32.const 4))) (func $b (export "b") (call 0 (i32.const 1))))"#;

/// Types of all kinds, with recursion and supertypes.
const TYPES: &str = r#"(module
    (rec (type $f (sub (func (param (ref null $s)) (result (ref $g)))))
        (type $g (sub $f (func (param (ref null $s)) (result (ref $g)))))
        (type $s (struct (field i8) (field (mut (ref null $g))))))
    (type $a (array (mut (ref null $f)))) (type $c (func (param (ref $f))))
    (import "env" "g" (global (ref null $g))) (import "env" "t" (table 1 (ref null $f)))
    (table 2 (ref null $g)) (global (ref null $s) (ref.null $s))
    (func $h (type $g) (unreachable)) (elem (ref null $g) (ref.func $h) (ref.null $g))
    (func (export "c") (type $c) (drop (call_ref $f (ref.null $s) (local.get 0)))))"#;

const SECTIONS: [Section; 10] = [
    Section::Text,
    Section::Memory,
    Section::Funcs,
    Section::TrapOffsets,
    Section::TrapCodes,
    Section::AddressOffsets,
    Section::AddressPositions,
    Section::Data,
    Section::NameEnds,
    Section::Names,
];

/// The image with other metadata.
fn with_meta(blob: &[u8], change: impl FnOnce(&mut Meta)) -> Vec<u8> {
    let image = CodeImage::new(blob).unwrap();
    let mut meta = image.meta().unwrap();
    change(&mut meta);
    let mut builder = ImageBuilder::new();
    for section in SECTIONS {
        builder.section(section).extend_from_slice(image.section(section));
    }
    builder.finish(&meta).unwrap()
}

fn load(blob: &[u8]) -> Result<Module, LoadError> {
    Module::from_bytes(&Engine::new(), blob)
}

#[test]
fn images_for_another_machine_are_refused() {
    let blob = image_of(WAT);
    assert!(load(&with_meta(&blob, |_| ())).is_ok());
    let other = with_meta(&blob, |meta| meta.target = "riscv64-unknown-linux-gnu".into());
    assert!(matches!(load(&other), Err(LoadError::Image(ImageError::Target { .. }))));
    let other = with_meta(&blob, |meta| meta.cpu_features.push("avx1024".into()));
    match load(&other) {
        Err(LoadError::Image(ImageError::Cpu(name))) => assert_eq!(name, "avx1024"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn descriptions_that_leave_their_bounds_are_refused() {
    let blob = image_of(WAT);
    let damaged = |what: &str, change: &dyn Fn(&mut Meta)| {
        let result = load(&with_meta(&blob, |meta| change(meta)));
        assert!(
            matches!(result, Err(LoadError::Image(ImageError::Damaged { .. }))),
            "{what}: {result:?}"
        );
    };
    damaged("imported functions", &|meta| meta.module.imported.functions = 2);
    damaged("imported tags", &|meta| meta.module.imported.tags = 1);
    damaged("imported memories", &|meta| meta.module.imported.memories = 9);
    let memory = |meta: &mut Meta, change: &dyn Fn(&mut MemoryType)| {
        meta.module.memories.values_mut().for_each(change);
    };
    damaged("pages", &|meta| memory(meta, &|ty| ty.page_size_log2 = 64));
    damaged("a shared memory", &|meta| memory(meta, &|ty| (ty.shared, ty.max) = (true, None)));
    damaged("references", &|meta| meta.module.escaped_funcs = 0);
    damaged("initial values", &|meta| meta.module.global_inits.clear());
    damaged("operators", &|meta| meta.module.global_inits[0].ops.clear());
    for log2 in [1, 15, 17, 64, 255] {
        damaged("page size", &|meta| {
            meta.module.memories.values_mut().for_each(|ty| ty.page_size_log2 = log2);
        });
    }
    damaged("memory image", &|meta| meta.module.memory_images[0].guest_offset = 1 << 20);
    damaged("alignment", &|meta| meta.module.memory_images[0].image_offset = 1);
    damaged("image length", &|meta| meta.module.memory_images[0].len = 1 << 40);
    damaged("data", &|meta| meta.module.data.values_mut().for_each(|data| data.offset = u64::MAX));
}

#[test]
fn types_that_cannot_be_numbered_are_refused() {
    let blob = image_with(TYPES, |features| features.gc = true);
    assert!(load(&with_meta(&blob, |_| ())).is_ok());
    let ty = TypeIndex::from_u32;
    let damaged = |what: &str, change: &dyn Fn(&mut ModuleInfo)| {
        let result = load(&with_meta(&blob, |meta| change(&mut meta.module)));
        match result {
            Err(LoadError::Image(ImageError::Damaged { what: found })) => {
                assert_eq!(found, what);
            }
            other => panic!("{what}: {other:?}"),
        }
    };
    for groups in [&[3, 1][..], &[3, 1, 2], &[4, 1, u32::MAX], &[2, 3], &[1, 2, 1, 1], &[]] {
        damaged("types", &|info| info.rec_groups = groups.to_vec());
    }
    assert!(load(&with_meta(&blob, |meta| meta.module.rec_groups = vec![5])).is_ok());
    damaged("types", &|info| info.types[ty(1)].supertype = Some(ty(1)));
    damaged("types", &|info| info.types[ty(0)].supertype = Some(ty(1)));
    damaged("types", &|info| info.types[ty(1)].supertype = Some(ty(77)));
    damaged("types", &|info| info.types[ty(3)].supertype = Some(ty(0)));
    damaged("types", &|info| info.types[ty(0)].is_final = true);
    damaged("types", &|info| {
        info.types = info.types.values().take(3).cloned().collect();
    });
    damaged("types", &|info| {
        info.type_signatures = info.type_signatures.values().take(3).copied().collect();
    });
    damaged("types", &|info| info.type_signatures[ty(0)] = None);
    damaged("types", &|info| info.type_signatures[ty(2)] = info.type_signatures[ty(0)]);
    damaged("number of functions", &|info| info.signatures.clear());
    damaged("types", &|info| info.signatures.values_mut().for_each(|s| s.params.clear()));
    damaged("types", &|info| {
        let element = FieldType { storage: StorageType::Val(to(ty(4))), mutable: true };
        info.types[ty(3)].composite = CompositeType::Array(ArrayType { element });
    });
    damaged("types", &|info| {
        // A structure type as a function type.
        let element = FieldType { storage: StorageType::Val(to(ty(2))), mutable: true };
        info.types[ty(3)].composite = CompositeType::Array(ArrayType { element });
    });
    let reference = |n| RefType { nullable: true, heap: HeapType::ConcreteFunc(ty(n)) };
    for n in [2, 5, u32::MAX - 1] {
        damaged("types of tables and globals", &|info| {
            info.tables.values_mut().for_each(|table| table.element = reference(n));
        });
        damaged("types of tables and globals", &|info| {
            info.globals.values_mut().for_each(|global| global.content = to(ty(n)));
        });
        damaged("element segments", &|info| {
            info.elements.values_mut().for_each(|segment| segment.ty = reference(n));
        });
    }
    damaged("imports", &|info| {
        let ImportType::Global(global) = &mut info.imports[0].ty else { panic!("a global") };
        global.content = to(ty(2));
    });
    damaged("functions", &|info| info.functions.values_mut().for_each(|f| f.ty = ty(2)));
    damaged("functions", &|info| {
        info.functions.values_mut().for_each(|f| f.signature = SigIndex::from_u32(1));
    });
}

/// A nullable reference to a type that is said to be a function type.
fn to(ty: TypeIndex) -> ValType {
    ValType::Ref(RefType { nullable: true, heap: HeapType::ConcreteFunc(ty) })
}

#[test]
fn constant_expressions_that_make_no_object_of_their_type_are_refused() {
    let wat = r#"(module (type $s (struct (field i32 i32))) (type $a (array i32)) (type $f (func))
        (global (ref $s) (struct.new $s (i32.const 1) (i32.const 2))))"#;
    let blob = image_of(wat);
    let ty = TypeIndex::from_u32;
    let load_with = |op: ConstOp| {
        load(&with_meta(&blob, |meta| {
            if let Some(last) = meta.module.global_inits[0].ops.last_mut() {
                *last = op;
            }
        }))
    };
    for fits in [ConstOp::StructNew(ty(0)), ConstOp::ArrayNewFixed(ty(1), 2)] {
        assert!(load_with(fits).is_ok(), "{fits:?}");
    }
    for op in [
        ConstOp::StructNew(ty(1)),
        ConstOp::StructNewDefault(ty(2)),
        ConstOp::ArrayNew(ty(0)),
        ConstOp::ArrayNewDefault(ty(77)),
        ConstOp::ArrayNewFixed(ty(1), 3),
        ConstOp::ArrayNewFixed(ty(1), u32::MAX),
    ] {
        let found = load_with(op);
        let damaged = LoadError::Image(ImageError::Damaged { what: "initial values" });
        assert!(matches!(&found, Err(e) if e.to_string() == damaged.to_string()), "{op:?}");
    }
}

#[test]
fn a_chain_of_supertypes_over_the_limit_is_refused() {
    let blob = image_of(WAT);
    let chain = |len: usize| {
        load(&with_meta(&blob, |meta| {
            let info = &mut meta.module;
            for _ in 0..len {
                let (last, ty) = info.types.last_mut().unwrap();
                ty.is_final = false;
                let next = SubType { supertype: Some(last), ..ty.clone() };
                let signature = info.type_signatures[last];
                info.types.push(next);
                info.type_signatures.push(signature);
                info.rec_groups.push(1);
            }
        }))
    };
    assert!(chain(63).is_ok());
    assert!(matches!(chain(64), Err(LoadError::Image(ImageError::Damaged { what: "types" }))));
}

#[test]
fn no_flipped_bit_of_the_metadata_panics() {
    for blob in [image_of(WAT), image_with(TYPES, |features| features.gc = true)] {
        flip_metadata(&blob);
    }
}

fn flip_metadata(blob: &[u8]) {
    let image = CodeImage::new(blob).unwrap();
    let range = image.header().range(Section::Meta);
    let engine = Engine::new();
    for at in range.start as usize..range.end as usize {
        for bit in 0..8 {
            let mut bad = blob.to_vec();
            bad[at] ^= 1 << bit;
            // Loaded or refused; the code of a damaged image is not run.
            let _ = Module::from_bytes(&engine, &bad);
        }
    }
}

#[test]
fn no_flipped_bit_of_the_tables_panics() {
    let blob = image_of(WAT);
    let image = CodeImage::new(&blob).unwrap();
    let engine = Engine::new();
    for section in [Section::Funcs, Section::NameEnds, Section::Names] {
        let range = image.header().range(section);
        for at in range.start as usize..range.end as usize {
            let mut bad = blob.clone();
            bad[at] ^= 0x80;
            let _ = Module::from_bytes(&engine, &bad);
        }
    }
}

#[test]
fn a_file_is_mapped_shared_and_its_memory_copied_on_write() {
    let blob = image_of(r#"(module (memory (export "m") 1) (data (i32.const 4096) "hello"))"#);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&blob).unwrap();
    let engine = Engine::new();
    let module = Module::from_file(&engine, &file).unwrap();
    for _ in 0..2 {
        let mut store = Store::new(&engine).unwrap();
        let instance = Linker::new(&engine).instantiate(&mut store, &module).unwrap();
        let memory = instance.memory(&store, "m").unwrap();
        assert_eq!(&memory.data(&store)[4096..4102], b"hello\0");
        memory.data_mut(&mut store)[4096..].fill(7);
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let writable_code = maps.lines().filter(|line| line.contains(" rwx")).count();
    assert_eq!(writable_code, 0, "no page is writable and executable:\n{maps}");
}
