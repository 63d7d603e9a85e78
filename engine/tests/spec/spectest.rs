//! The host module `spectest` that the scripts import from.

use coracle_engine::module::types::MemoryType;
use coracle_engine::runtime::{
    Caller, Global, GlobalType, HeapType, Linker, Memory, RefType, Store, Table, TableType, Val,
};

/// Defines it for a store.
pub(crate) fn define(linker: &mut Linker, store: &mut Store) {
    linker.func_wrap("spectest", "print", |_: Caller<'_>| ());
    linker.func_wrap("spectest", "print_i32", |_: Caller<'_>, _: i32| ());
    linker.func_wrap("spectest", "print_i64", |_: Caller<'_>, _: i64| ());
    linker.func_wrap("spectest", "print_f32", |_: Caller<'_>, _: f32| ());
    linker.func_wrap("spectest", "print_f64", |_: Caller<'_>, _: f64| ());
    linker.func_wrap("spectest", "print_i32_f32", |_: Caller<'_>, _: i32, _: f32| ());
    linker.func_wrap("spectest", "print_f64_f64", |_: Caller<'_>, _: f64, _: f64| ());
    for (name, value) in [
        ("global_i32", Val::I32(666)),
        ("global_i64", Val::I64(666)),
        ("global_f32", Val::F32(666.6)),
        ("global_f64", Val::F64(666.6)),
    ] {
        let ty = GlobalType { content: value.ty(store), mutable: false };
        let global = Global::new(store, ty, value).expect("the value has its own type");
        linker.define("spectest", name, global);
    }
    let element = RefType { nullable: true, heap: HeapType::Func };
    let ty = TableType { element, table64: false, min: 10, max: Some(20) };
    let table = Table::new(store, ty, Val::FuncRef(None)).expect("a small table");
    linker.define("spectest", "table", table);
    let ty = TableType { table64: true, ..ty };
    let table = Table::new(store, ty, Val::FuncRef(None)).expect("a small table");
    linker.define("spectest", "table64", table);
    let ty =
        MemoryType { memory64: false, shared: false, min: 1, max: Some(2), page_size_log2: 16 };
    let memory = Memory::new(store, ty).expect("a small memory");
    linker.define("spectest", "memory", memory);
    let memory = Memory::new(store, MemoryType { shared: true, ..ty }).expect("a small memory");
    linker.define("spectest", "shared_memory", memory);
}
