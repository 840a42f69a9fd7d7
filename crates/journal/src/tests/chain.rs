//! Near misses: chains of which one group is wrong in one field, under good checksums, and where that is noticed.

use understory_format::{GroupHeader, RecordHeader};

use super::*;
use crate::Fault;

/// A group of a chain: sectors and ops.
type Shape = (u64, u32);

/// Writes a chain of groups of closes into an image; `change` makes the headers wrong. Gives the headers.
fn forge(
    image: &mut [u8],
    geometry: &Geometry,
    start: &Start,
    shapes: &[Shape],
    change: &dyn Fn(usize, &mut GroupHeader),
) -> Vec<(GroupHeader, Checksum)> {
    let mut headers = Vec::new();
    let (mut position, mut parent, mut op) = (start.position, start.hash, start.op_flushed.next());
    for (index, (sectors, op_count)) in shapes.iter().enumerate() {
        let mut header = GroupHeader {
            position,
            size: u32::try_from(sectors * SECTOR).unwrap(),
            parent,
            checkpoint: Checksum::ZERO,
            incarnation: 2,
            op_first: op,
            op_count: *op_count,
            witness_op: Op::new(op.get() - 1),
            witness_hash: parent,
        };
        change(index, &mut header);
        let mut group = vec![0; usize::try_from(header.size).unwrap()];
        for record in 0..header.op_count {
            let at = 192 + 64 * usize::try_from(record).unwrap();
            let op = Op::new(header.op_first.get() + u64::from(record));
            RecordHeader { op, kind: RecordKind::Close, part_count: 0, size: 0 }
                .encode(&mut group[at..at + 64]);
        }
        // Padding is less than a sector: a part fills the rest.
        if group.len() > 4096 && header.op_count > 0 {
            let count = u32::try_from(group.len() - 256 - 12).unwrap();
            let body = count + 12;
            let op = header.op_first;
            RecordHeader { op, kind: RecordKind::Batch, part_count: 1, size: body }
                .encode(&mut group[192..256]);
            let tree = TreeId::new(1).unwrap();
            PartHeader { tree, value_size: 1, count, has_tombstones: false }.start(&mut group[256..]);
        }
        let hash = header.seal(&mut group);
        for (at, sector) in (0..).zip(group.chunks(4096)) {
            // What goes beyond the lap would write over the first group.
            let at = position + at * SECTOR;
            if at >= start.position + geometry.journal_size {
                continue;
            }
            let in_ring = at % geometry.journal_size;
            let offset = usize::try_from(geometry.journal_offset() + in_ring).unwrap();
            image[offset..offset + 4096].copy_from_slice(sector);
        }
        headers.push((header, hash));
        (position, parent) = (position + sectors * SECTOR, hash);
        op = Op::new(op.get() + u64::from(*op_count));
    }
    headers
}

/// The start of the chains: in the second lap, with five ops to come that a checkpoint counts. The head is op 12.
fn start() -> Start {
    Start {
        position: 26 * SECTOR,
        hash: Checksum::of(b"before"),
        op_flushed: Op::new(10),
        op_checkpoint: Op::new(15),
        head_op: Op::new(12),
        head_hash: Checksum::ZERO,
        incarnation: 3,
    }
}

const SHAPES: [Shape; 5] = [(1, 2), (1, 1), (2, 1), (1, 0), (1, 1)];

/// What is found of the chain with these changes: the last good op, and the field that is wrong in the next group.
fn found(change: &dyn Fn(usize, &mut GroupHeader), with: &dyn Fn(&mut Start)) -> (u64, Option<Fault>) {
    let geometry = geometry(20);
    let mut image = vec![0; usize::try_from(geometry.grid_offset()).unwrap()];
    let mut start = start();
    let headers = forge(&mut image, &geometry, &start, &SHAPES, &|index, header| {
        header.incarnation = if index == 0 { 2 } else { 3 };
        change(index, header);
    });
    start.head_hash = headers[0].1;
    with(&mut start);
    let (machine, _) = machine_of(image, 1);
    match scan_quietly(&machine, &geometry, &start) {
        Ok(head) => (head.op.get(), None),
        Err(JournalError::Damaged { last_good, fault, .. }) => (last_good.op.get(), Some(*fault)),
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn check(at: usize, change: fn(&mut GroupHeader), last_good: u64, field: &str) {
    let (op, fault) = found(
        &|index, header| {
            if index == at {
                change(header)
            }
        },
        &|_| (),
    );
    assert_eq!(op, last_good);
    let Some(Fault::Wrong(corruption)) = fault else { panic!("{fault:?}") };
    assert_eq!(corruption.field, field, "{corruption}");
}

#[test]
fn the_chain_as_it_should_be() {
    assert_eq!(found(&|_, _| (), &|_| ()), (15, None));
}

#[test]
fn links() {
    check(0, |group| group.parent = Checksum::ZERO, 10, "parent");
    check(1, |group| group.parent = Checksum::of(b"before"), 12, "parent");
    check(3, |group| group.parent = Checksum::ZERO, 14, "parent");
    // An earlier lap, and a later one.
    check(0, |group| group.position -= 20 * SECTOR, 10, "position");
    check(2, |group| group.position += 20 * SECTOR, 13, "position");
    check(2, |group| (group.op_first, group.witness_op) = (Op::new(13), Op::new(12)), 13, "op_first");
    check(2, |group| group.op_first = Op::new(15), 13, "op_first");
    check(
        3,
        |group| {
            (group.op_first, group.witness_op) = (Op::new(16), Op::new(15));
        },
        14,
        "op_first",
    );
}

#[test]
fn the_first_group_holds_the_op_after_the_flushed_one() {
    let check = |op_flushed: u64, last_good: u64, field: Option<&str>| {
        let (op, fault) = found(&|_, _| (), &|start| start.op_flushed = Op::new(op_flushed));
        let field_found = fault.as_ref().map(|fault| {
            let Fault::Wrong(corruption) = fault else { panic!("{fault:?}") };
            corruption.field
        });
        assert_eq!((op, field_found), (last_good, field));
    };
    check(10, 15, None);
    check(11, 15, None);
    check(9, 9, Some("op_first"));
    check(12, 12, Some("op_count"));
    check(13, 13, Some("op_count"));
}

/// Up to the head of the last opening any incarnation up to its own, never a lower one behind a higher; behind that
/// head its own.
#[test]
fn incarnations() {
    check(0, |group| group.incarnation = 4, 10, "incarnation");
    check(1, |group| group.incarnation = 2, 12, "incarnation");
    check(1, |group| group.incarnation = 4, 12, "incarnation");
    check(3, |group| group.incarnation = 2, 14, "incarnation");
    let with = |incarnations: [u64; 5], head_op: u64| {
        let change = move |index: usize, header: &mut GroupHeader| header.incarnation = incarnations[index];
        found(&change, &move |start| {
            (start.head_op, start.incarnation) = (Op::new(head_op), 9);
        })
        .0
    };
    // The hash at the head is not what it should be: so the walk ends before it, or gets there.
    assert_eq!(with([1, 2, 5, 5, 9], 14), 13);
    assert_eq!(with([2, 1, 5, 5, 9], 14), 12);
    assert_eq!(with([5, 5, 9, 9, 9], 11), 10, "no group goes across the head");
}

#[test]
fn the_head_that_was_accepted() {
    let (op, fault) = found(&|_, _| (), &|start| start.head_hash = Checksum::of(b"another"));
    let Some(Fault::Wrong(corruption)) = fault else { panic!("{fault:?}") };
    assert_eq!((op, corruption.field), (10, "checksum"));
    // A group across the head.
    let (op, fault) = found(&|_, header| header.incarnation = 3, &|start| start.head_op = Op::new(11));
    let Some(Fault::Wrong(corruption)) = fault else { panic!("{fault:?}") };
    assert_eq!((op, corruption.field), (10, "op_count"));
}

#[test]
fn sizes() {
    let geometry = geometry(20);
    let faults = |shapes: &[Shape]| {
        let mut image = vec![0; usize::try_from(geometry.grid_offset()).unwrap()];
        let start = Start { op_checkpoint: Op::new(100), head_op: Op::ZERO, incarnation: 2, ..start() };
        forge(&mut image, &geometry, &start, shapes, &|_, _| ());
        let (machine, _) = machine_of(image, 1);
        let error = scan_quietly(&machine, &geometry, &start).unwrap_err();
        let JournalError::Damaged { last_good, fault, .. } = error else { panic!("{error}") };
        (last_good.op.get(), *fault)
    };
    let check = |shapes: &[Shape], last_good: u64, field: &str| {
        let (op, Fault::Wrong(corruption)) = faults(shapes) else { panic!("wrong bytes") };
        assert_eq!((op, corruption.field), (last_good, field), "{corruption}");
    };
    check(&[(4, 1), (5, 1)], 11, "size");
    check(&[(4, 1), (4, 1), (4, 1), (4, 1), (3, 1), (2, 1)], 15, "size");
    assert_eq!(faults(&[(4, 1), (4, 1), (4, 1), (4, 1), (4, 1)]), (15, Fault::RingFull));
}
