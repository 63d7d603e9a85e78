//! The heap by itself: roots are given by hand.

use super::heap::Heap;
use super::mark::Marker;
use crate::abi::gc::{BLOCK, FIRST_OBJECT, ObjectKind, SIZE_CLASSES, array_bytes, header};

const LEAF: u32 = ObjectKind::Struct as u32;
const NODE: u32 = ObjectKind::Struct as u32 | header::SCAN;
const ARRAY: u32 = ObjectKind::Array as u32 | header::SCAN;

fn heap(limit: u64) -> Heap {
    Heap::new(limit, false).unwrap()
}

fn allocate(heap: &mut Heap, kind: u32, bytes: u64) -> u32 {
    heap.allocate(kind, 7, bytes).unwrap().get()
}

fn collect(heap: &mut Heap, roots: &[u32]) {
    let mut marker = Marker::new(heap);
    roots.iter().for_each(|&root| marker.reference(root));
    marker.finish();
}

fn is_object(heap: &Heap, offset: u32) -> bool {
    heap.object_at(offset) == Some(offset)
}

fn link(heap: &mut Heap, from: u32, to: u32) {
    heap.space.write(u64::from(from + header::SIZE), to);
}

#[test]
fn objects_of_every_size_are_apart_aligned_and_zero() {
    let mut heap = heap(1 << 30);
    let mut objects: Vec<(u32, u32)> = Vec::new();
    for round in 0..3 {
        for bytes in (8..70_000).step_by(211) {
            let object = allocate(&mut heap, LEAF, bytes);
            assert!(object.is_multiple_of(16) && object >= FIRST_OBJECT);
            assert_eq!(heap.space.read(object.into()), LEAF);
            assert_eq!(heap.space.read(u64::from(object + 4)), 7);
            for place in (8..bytes as u32 & !3).step_by(4) {
                assert_eq!(heap.space.read(u64::from(object + place)), 0, "{bytes} at {place}");
                heap.space.write(u64::from(object + place), 0xdead_beef);
            }
            objects.push((object, bytes as u32));
        }
        if round == 1 {
            // The third round allocates in what the first two left dirty.
            collect(&mut heap, &[]);
            objects.clear();
        }
    }
    objects.sort_unstable();
    assert!(objects.is_sorted_by(|a, b| a.0 + a.1 <= b.0));
}

#[test]
fn what_is_reachable_stays_and_the_rest_goes() {
    let mut heap = heap(1 << 30);
    let nodes: Vec<u32> = (0..10).map(|_| allocate(&mut heap, NODE, 16)).collect();
    link(&mut heap, nodes[0], nodes[1]);
    link(&mut heap, nodes[1], nodes[0]);
    link(&mut heap, nodes[2], nodes[3]);
    collect(&mut heap, &[nodes[0]]);
    let left: Vec<bool> = nodes.iter().map(|&node| is_object(&heap, node)).collect();
    assert_eq!(left, [true, true, false, false, false, false, false, false, false, false]);
    // The freed cells are used again, and no live one.
    let again: Vec<u32> = (0..8).map(|_| allocate(&mut heap, NODE, 16)).collect();
    assert!(again.iter().all(|node| !nodes[..2].contains(node)));
    assert!(nodes[2..].iter().all(|node| again.contains(node)));
}

#[test]
fn leaves_are_not_searched() {
    let mut heap = heap(1 << 30);
    let (leaf, hidden) = (allocate(&mut heap, LEAF, 16), allocate(&mut heap, LEAF, 16));
    link(&mut heap, leaf, hidden);
    collect(&mut heap, &[leaf]);
    assert!(is_object(&heap, leaf) && !is_object(&heap, hidden));
}

#[test]
fn a_list_of_a_million_nodes_needs_no_recursion() {
    let mut heap = heap(1 << 30);
    let mut head = 0;
    for _ in 0..1_000_000 {
        let node = allocate(&mut heap, NODE, 16);
        link(&mut heap, node, head);
        head = node;
    }
    let used = heap.used_bytes();
    collect(&mut heap, &[head]);
    assert_eq!(heap.used_bytes(), used);
    let mut length = 0;
    let mut node = head;
    while node != 0 {
        assert!(is_object(&heap, node));
        node = heap.space.read(u64::from(node + 8));
        length += 1;
    }
    assert_eq!(length, 1_000_000);
    collect(&mut heap, &[]);
    assert_eq!(heap.used_bytes(), 0);
}

#[test]
fn every_address_within_an_object_leads_to_it_and_no_other_does() {
    let mut heap = heap(1 << 30);
    for bytes in [16, 48, 3000, 20_000, 200_000] {
        let object = allocate(&mut heap, LEAF, bytes);
        for offset in [0, 1, 7, bytes as u32 / 2, bytes as u32 - 1] {
            assert_eq!(heap.object_at(object + offset), Some(object), "{bytes} + {offset}");
        }
        let mut marker = Marker::new(&mut heap);
        marker.ambiguous(object + bytes as u32 - 1);
        marker.finish();
        assert!(is_object(&heap, object));
        let mut marker = Marker::new(&mut heap);
        marker.reference(object + 16 * (bytes as u32 / 32));
        if bytes >= 32 {
            marker.finish();
            assert!(!is_object(&heap, object), "a reference inside of an object is none");
        }
    }
    for word in [0, 1, 2, FIRST_OBJECT - 1, FIRST_OBJECT + (100 << 20), u32::MAX, u32::MAX - 15] {
        assert_eq!(heap.object_at(word), None, "{word:#x}");
    }
}

#[test]
fn free_cells_behind_a_cursor_are_no_objects() {
    let mut heap = heap(1 << 30);
    let object = allocate(&mut heap, LEAF, 64);
    let mut marker = Marker::new(&mut heap);
    marker.ambiguous(object);
    marker.ambiguous(object + 64);
    marker.finish();
    assert!(is_object(&heap, object) && !is_object(&heap, object + 64));
}

#[test]
fn a_wide_array_keeps_all_its_elements() {
    let mut heap = heap(1 << 30);
    let count = 100_000;
    let array = allocate(&mut heap, ARRAY, array_bytes(4, count));
    heap.space.write(u64::from(array + header::ARRAY_LENGTH), count);
    let elements: Vec<u32> = (0..count).map(|_| allocate(&mut heap, LEAF, 16)).collect();
    for (n, &element) in (0..).zip(&elements) {
        heap.space.write(u64::from(array) + 12 + 4 * n, element);
    }
    collect(&mut heap, &[array]);
    assert!(elements.iter().all(|&element| is_object(&heap, element)));
    collect(&mut heap, &[elements[5]]);
    assert!(!is_object(&heap, array) && is_object(&heap, elements[5]));
    assert!(!is_object(&heap, elements[6]));
}

#[test]
fn the_limit_holds_and_hostile_sizes_touch_nothing() {
    let mut heap = heap(1 << 20);
    assert!(heap.allocate(LEAF, 7, array_bytes(16, u32::MAX)).is_none());
    assert!(heap.allocate(LEAF, 7, u64::MAX).is_none());
    assert!(heap.allocate(LEAF, 7, (1 << 20) + 1).is_none());
    assert_eq!(heap.used_bytes(), 0);
    let object = allocate(&mut heap, LEAF, 1 << 20);
    assert!(heap.allocate(LEAF, 7, 16).is_none());
    collect(&mut heap, &[object]);
    assert!(heap.allocate(LEAF, 7, 16).is_none());
    collect(&mut heap, &[]);
    assert_eq!(allocate(&mut heap, LEAF, 16), object);
}

#[test]
fn freed_blocks_serve_other_sizes_and_large_objects() {
    let mut heap = heap(8 << 20);
    for round in 0..50 {
        let size = SIZE_CLASSES[round % SIZE_CLASSES.len()];
        let count = (4 << 20) / size;
        let kept: Vec<u32> =
            (0..count).map(|_| allocate(&mut heap, LEAF, size.into())).step_by(1000).collect();
        collect(&mut heap, &[]);
        assert_eq!(heap.used_bytes(), 0);
        assert!(kept.iter().all(|&object| heap.object_at(object).is_none()));
        let large = allocate(&mut heap, LEAF, 6 << 20);
        assert_eq!(heap.space.read(u64::from(large) + (6 << 20) - 4), 0);
        heap.space.write(u64::from(large) + (6 << 20) - 4, 1);
        collect(&mut heap, &[]);
    }
}

#[test]
fn large_objects_lie_between_others() {
    let mut heap = heap(64 * u64::from(BLOCK));
    let sizes = [3, 1, 5, 2, 8];
    let mut objects: Vec<u32> =
        sizes.iter().map(|n| allocate(&mut heap, LEAF, n * u64::from(BLOCK))).collect();
    collect(&mut heap, &[objects[0], objects[2], objects[4]]);
    assert_eq!(heap.used_bytes(), 16 * u64::from(BLOCK));
    // One fits in the gap of one block, one in that of two, one only behind all.
    let small = allocate(&mut heap, LEAF, 40_000);
    let medium = allocate(&mut heap, LEAF, 2 * u64::from(BLOCK));
    let large = allocate(&mut heap, LEAF, 3 * u64::from(BLOCK));
    assert_eq!((small, medium), (objects[1], objects[3]));
    assert!(large > objects[4]);
    objects.extend([large]);
    collect(&mut heap, &objects);
    assert_eq!(heap.used_bytes(), 22 * u64::from(BLOCK));
}
