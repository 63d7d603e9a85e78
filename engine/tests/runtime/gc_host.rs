//! Objects in the hands of the host: handles are roots as long as they are good, and no longer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use coracle_engine::runtime::{
    AnyRef, ArrayRef, Caller, ExternRef, Func, HeapType, Instance, ObjectError, RefType,
    StoreConfig, StructRef, TypeId, Val, ValType,
};

use crate::World;
use crate::gc::{COMMON, stress};

impl World {
    fn with_objects(&mut self, imports: &str, wat: &str) -> Instance {
        self.instance(&format!("(module {imports} {COMMON} {wat})"))
    }

    /// The type that a function's first parameter refers to.
    fn param_type(&self, instance: Instance, name: &str) -> TypeId {
        let func = instance.func(&self.store, name).unwrap();
        func.ty(&self.store).params[0].as_defined().unwrap()
    }

    fn any(&mut self, instance: Instance, name: &str, args: &[Val]) -> AnyRef {
        match self.call(instance, name, args).unwrap()[..] {
            [Val::AnyRef(Some(value))] => value,
            ref other => panic!("{other:?}"),
        }
    }
}

const BOXES: &str = r#"
    (func (export "box") (param i32) (result (ref $box)) (call $box (local.get 0)))
    (func (export "unbox") (param (ref $box)) (result i32) (call $unbox (local.get 0)))
    (func (export "take bytes") (param (ref $bytes)))
    (func (export "take refs") (param (ref $refs)))
    (func (export "litter") (call $litter))"#;

#[test]
fn objects_that_the_host_holds_survive_and_released_ones_do_not() {
    for config in [stress(), StoreConfig::default()] {
        let mut world = World::with_config(config);
        let instance = world.with_objects("", BOXES);
        let boxes: Vec<AnyRef> =
            (0..100).map(|n| world.any(instance, "box", &[Val::I32(n)])).collect();
        world.call(instance, "litter", &[]).unwrap();
        world.store.gc();
        for (n, &value) in (0..).zip(&boxes) {
            let args = [Val::AnyRef(Some(value))];
            assert_eq!(world.call_i32(instance, "unbox", &args), n);
        }
        assert!(world.store.gc_heap_bytes() > 0);
        boxes.iter().for_each(|value| value.release(&mut world.store));
        world.store.gc();
        assert_eq!(world.store.gc_heap_bytes(), 0);
    }
}

#[test]
fn a_scope_lets_go_of_what_came_up_in_it() {
    let mut world = World::new();
    let instance = world.with_objects("", BOXES);
    let outer = world.any(instance, "box", &[Val::I32(7)]);
    let func = instance.func(&world.store, "box").unwrap();
    let inner = world.store.ref_scope(|store| {
        let mut results = Vec::new();
        for n in 0..100_000 {
            func.call(store, &[Val::I32(n)], &mut results).unwrap();
        }
        results[0]
    });
    world.store.gc();
    assert_eq!(world.store.gc_heap_bytes(), 64 << 10, "one block for one object");
    assert_eq!(world.call_i32(instance, "unbox", &[outer.into_val()]), 7);
    let stale = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.call_i32(instance, "unbox", &[inner])
    }));
    assert!(stale.is_err(), "a handle of a scope that ended");
}

trait IntoVal {
    fn into_val(self) -> Val;
}

impl IntoVal for AnyRef {
    fn into_val(self) -> Val {
        Val::AnyRef(Some(self))
    }
}

#[test]
#[should_panic(expected = "released, or with another store")]
fn a_released_handle_is_refused() {
    let mut world = World::new();
    let instance = world.with_objects("", BOXES);
    let value = world.any(instance, "box", &[Val::I32(1)]);
    value.release(&mut world.store);
    let _ = world.call(instance, "unbox", &[value.into_val()]);
}

#[test]
#[should_panic(expected = "released, or with another store")]
fn an_object_of_another_store_is_refused() {
    let (mut ours, mut theirs) = (World::new(), World::new());
    let instance = ours.with_objects("", BOXES);
    let other = theirs.with_objects("", BOXES);
    ours.any(instance, "box", &[Val::I32(1)]);
    let value = theirs.any(other, "box", &[Val::I32(1)]);
    let _ = ours.call(instance, "unbox", &[value.into_val()]);
}

#[test]
#[should_panic(expected = "released, or with another store")]
fn a_handle_does_not_outlive_the_host_function_that_got_it() {
    let mut world = World::new();
    let kept: Rc<Cell<Option<AnyRef>>> = Rc::default();
    let keep = Rc::clone(&kept);
    world.linker.func_wrap("h", "keep", move |_: Caller<'_>, value: Option<AnyRef>| {
        keep.set(value);
    });
    let instance = world.with_objects(
        r#"(import "h" "keep" (func $keep (param anyref)))"#,
        r#"(func (export "run") (call $keep (call $box (i32.const 1))))"#,
    );
    world.call(instance, "run", &[]).unwrap();
    let _ = kept.get().unwrap().as_struct(&world.store);
}

#[test]
fn objects_pass_through_host_functions() {
    for config in [stress(), StoreConfig::default()] {
        let mut world = World::with_config(config);
        world.linker.func_wrap("h", "same", |_: Caller<'_>, value: Option<AnyRef>| value);
        world.linker.func_wrap("h", "extern", |_: Caller<'_>, value: Option<ExternRef>| value);
        let instance = world.with_objects(
            r#"(import "h" "same" (func $same (param anyref) (result anyref)))
               (import "h" "extern" (func $extern (param externref) (result externref)))"#,
            r#"(func (export "run") (result i32)
                (local $a anyref) (local $x externref)
                (local.set $a (call $same (call $box (i32.const 1))))
                (local.set $x (call $extern (extern.convert_any (call $box (i32.const 20)))))
                (call $litter)
                (call $unbox (ref.cast (ref $box) (local.get $a)))
                (i32.add (call $unbox (ref.cast (ref $box) (any.convert_extern (local.get $x)))))
                (i32.add (ref.is_null (call $same (ref.null any))))
                (i32.add (i31.get_s (ref.cast (ref i31) (call $same (ref.i31 (i32.const 100)))))))"#,
        );
        assert_eq!(world.call_i32(instance, "run", &[]), 122);
    }
}

/// The guest's frames below a host function that calls the guest again are searched, too.
#[test]
fn objects_survive_below_frames_of_the_host() {
    for config in [stress(), StoreConfig::default()] {
        let mut world = World::with_config(config);
        let callback: Rc<Cell<Option<Func>>> = Rc::default();
        let inner = Rc::clone(&callback);
        world.linker.func_wrap("h", "nested", move |mut caller: Caller<'_>, depth: i32| {
            let mut results = Vec::new();
            inner.get().unwrap().call(&mut caller, &[Val::I32(depth)], &mut results)
        });
        let instance = world.with_objects(
            r#"(import "h" "nested" (func $nested (param i32)))"#,
            r#"(func (export "run") (param $depth i32)
                (local $b (ref null $box))
                (local.set $b (call $box (local.get $depth)))
                (call $litter)
                (if (local.get $depth)
                    (then (call $nested (i32.sub (local.get $depth) (i32.const 1)))))
                (if (i32.ne (call $unbox (local.get $b)) (local.get $depth))
                    (then (unreachable))))"#,
        );
        callback.set(instance.func(&world.store, "run"));
        world.call(instance, "run", &[Val::I32(8)]).unwrap();
    }
}

/// What a host function makes and holds is safe from collections that it causes itself.
#[test]
fn a_host_function_builds_objects_of_several_parts() {
    for config in [stress(), StoreConfig::default()] {
        let mut world = World::with_config(config);
        let types: Rc<RefCell<Option<(TypeId, TypeId)>>> = Rc::default();
        let known = Rc::clone(&types);
        world.linker.func_wrap("h", "make", move |mut caller: Caller<'_>| {
            let (boxes, refs) = known.borrow().unwrap();
            let parts: Vec<StructRef> = (0..10)
                .map(|n| StructRef::new(&mut caller, boxes, &[Val::I32(n)]).unwrap())
                .collect();
            let array = ArrayRef::new(&mut caller, refs, Val::AnyRef(None), 10).unwrap();
            for (n, &part) in (0..).zip(&parts) {
                array.set(&mut caller, n, part.into()).unwrap();
            }
            Some(array.to_any())
        });
        let instance = world.with_objects(
            r#"(import "h" "make" (func $make (result anyref)))"#,
            &format!(
                r#"{BOXES} (func (export "run") (result i32)
                    (local $a (ref null $refs)) (local $n i32) (local $sum i32)
                    (local.set $a (ref.cast (ref $refs) (call $make)))
                    (call $litter)
                    (loop $next
                        (local.set $sum (i32.add (local.get $sum)
                            (call $unbox (array.get $refs (local.get $a) (local.get $n)))))
                        (local.set $n (i32.add (local.get $n) (i32.const 1)))
                        (br_if $next (i32.lt_u (local.get $n) (i32.const 10))))
                    (local.get $sum))"#
            ),
        );
        let boxes = world.param_type(instance, "unbox");
        let refs = world.param_type(instance, "take refs");
        *types.borrow_mut() = Some((boxes, refs));
        assert_eq!(world.call_i32(instance, "run", &[]), 45);
    }
}

#[test]
fn fields_and_elements_are_checked_as_the_guest_s_are() {
    let mut world = World::new();
    let instance = world.with_objects(
        "",
        &format!(
            r#"{BOXES} (type $all (struct (field i8) (field (mut i16)) (field (mut f64))
                (field (mut (ref $box))) (field (mut funcref)) (field (mut externref))))
            (func (export "take all") (param (ref $all)))"#
        ),
    );
    let all = world.param_type(instance, "take all");
    let boxes = world.param_type(instance, "unbox");
    let store = &mut world.store;
    let value = StructRef::new(store, boxes, &[Val::I32(3)]).unwrap();
    let func = instance.func(store, "litter").unwrap();
    let host = ExternRef::new(9);
    let fields = [
        Val::I32(-1),
        Val::I32(-1),
        Val::F64(0.5),
        value.into(),
        Val::FuncRef(Some(func)),
        Val::ExternRef(host),
    ];
    let object = StructRef::new(store, all, &fields).unwrap();
    assert_eq!(object.ty(store), all);
    store.gc();
    assert!(matches!(object.field(store, 0), Ok(Val::I32(0xff))));
    assert!(matches!(object.field(store, 1), Ok(Val::I32(0xffff))));
    assert!(matches!(object.field(store, 2), Ok(Val::F64(0.5))));
    assert!(matches!(object.field(store, 3), Ok(Val::AnyRef(Some(b))) if b == value.to_any()));
    assert!(matches!(object.field(store, 4), Ok(Val::FuncRef(Some(f))) if f == func));
    assert!(matches!(object.field(store, 5), Ok(Val::ExternRef(h)) if h == host));
    let outside = ObjectError::OutOfBounds { index: 6, size: 6 };
    assert_eq!(object.field(store, 6).unwrap_err(), outside);
    assert_eq!(object.set_field(store, 0, Val::I32(1)), Err(ObjectError::Immutable));
    assert_eq!(object.set_field(store, 2, Val::I32(1)), Err(ObjectError::Type));
    assert_eq!(object.set_field(store, 3, Val::AnyRef(None)), Err(ObjectError::Type));
    let other = Val::AnyRef(Some(AnyRef::i31(1)));
    assert_eq!(object.set_field(store, 3, other), Err(ObjectError::Type));
    object.set_field(store, 1, Val::I32(0x12345)).unwrap();
    assert!(matches!(object.field(store, 1), Ok(Val::I32(0x2345))));
    let few = ObjectError::FieldCount { fields: 6, values: 1 };
    assert_eq!(StructRef::new(store, all, &fields[..1]), Err(few));
    assert_eq!(ArrayRef::new(store, all, Val::I32(0), 1), Err(ObjectError::NotArray(all)));
}

#[test]
fn values_tell_their_types() {
    let mut world = World::new();
    let instance = world.with_objects("", BOXES);
    let boxes = world.param_type(instance, "unbox");
    let bytes = world.param_type(instance, "take bytes");
    let store = &mut world.store;
    let structure = StructRef::new(store, boxes, &[Val::I32(3)]).unwrap();
    let array = ArrayRef::new(store, bytes, Val::I32(0x1ff), 5).unwrap();
    assert_eq!((array.len(store), array.is_empty(store)), (5, false));
    assert!(matches!(array.get(store, 4), Ok(Val::I32(0xff))));
    let outside = ObjectError::OutOfBounds { index: 5, size: 5 };
    assert_eq!(array.get(store, 5).unwrap_err(), outside);
    let not_null = |heap| ValType::Ref(RefType { nullable: false, heap });
    assert_eq!(Val::from(structure).ty(store), not_null(HeapType::ConcreteStruct(boxes)));
    assert_eq!(Val::from(array).ty(store), not_null(HeapType::ConcreteArray(bytes)));
    let any = structure.to_any();
    assert_eq!((any.as_struct(store), any.as_array(store)), (Some(structure), None));
    assert_eq!(AnyRef::i31(5).as_struct(store), None);
    let full = ArrayRef::new(store, bytes, Val::I32(1), u32::MAX);
    assert_eq!(full, Err(ObjectError::OutOfMemory));
}
