//! Headers, records and superblocks that nobody wrote, under good checksums: errors or ops, never a panic.

use understory_format::superblock::COUNTER_MAX;

use super::*;

/// Gives a group good checksums again.
fn reseal(group: &mut [u8], size: usize) {
    let body = Checksum::of(group.get(192..size.max(192)).unwrap_or_default());
    group[16..32].copy_from_slice(&body.get().to_le_bytes());
    let checksum = Checksum::of(&group[16..192]);
    group[..16].copy_from_slice(&checksum.get().to_le_bytes());
}

/// A file of some groups, none of them across the ring's end, and where each starts in it.
fn image() -> (World, Vec<u8>, Vec<(usize, usize)>) {
    let geometry = geometry(60);
    let (machine, storage) = formatted(&geometry, 1);
    let mut world = World::new(geometry);
    let mut random = fastrand::Rng::with_seed(9);
    let never = Habits { sync: 4, witness: 2, checkpoint: 0 };
    for _ in 0..2 {
        drop(world.session(&machine, never, 4, &mut random).unwrap());
    }
    let image = storage.image();
    let mut groups = Vec::new();
    let mut at = usize::try_from(geometry.journal_offset()).unwrap();
    while let Ok((header, _)) = understory_format::GroupHeader::decode(&image[at..]) {
        let size = usize::try_from(header.size).unwrap();
        groups.push((at, size));
        at += size;
    }
    assert!(groups.len() > 6);
    (world, image, groups)
}

/// Recovery of an image ends; what it accepts is replayed.
fn survive(world: &World, image: Vec<u8>) -> bool {
    let (machine, _) = machine_of(image, 1);
    let Ok(head) = scan_quietly(&machine, &world.geometry, &world.superblock) else { return false };
    let mut replay = Replay::new(&machine, &world.geometry, &world.superblock, &head).unwrap();
    let mut op = world.superblock.op_flushed;
    while let Some(group) = replay.next_group().unwrap() {
        for (record, _) in group.records() {
            assert_eq!(record.op, op.next());
            op = record.op;
            for part in record.parts() {
                assert!(part.unwrap().effects().all(|(value, _)| !value.is_empty()));
            }
        }
    }
    assert_eq!(op, head.op);
    true
}

const FIELDS: [(usize, usize); 8] =
    [(80, 8), (88, 8), (96, 8), (104, 8), (112, 4), (116, 4), (120, 1), (121, 1)];

fn values() -> Vec<u64> {
    let mut values = vec![0, 1, 2, 3, 5, 61, 62, 4095, 4096, 8192, 16384, 20480, 60 * 4096, 61 * 4096];
    for high in [1 << 31, 1 << 32, COUNTER_MAX, 2 * COUNTER_MAX, u64::MAX] {
        values.extend([high - 4096, high - 1, high, high.wrapping_add(1), high.wrapping_add(4096)]);
    }
    values
}

#[test]
fn forged_headers() {
    let (world, image, groups) = image();
    let mut accepted = 0;
    for &(start, size) in &groups {
        for (at, width) in FIELDS {
            for value in values() {
                let mut image = image.clone();
                let place = start + at..start + at + width;
                image[place].copy_from_slice(&value.to_le_bytes()[..width]);
                let end = image.len().min(start + (1 << 20));
                let claimed = if at == 112 { usize::try_from(value & 0xffff_ffff).unwrap() } else { size };
                reseal(&mut image[start..end], claimed.min(end - start));
                accepted += u32::from(survive(&world, image));
            }
        }
    }
    assert!(accepted > 10, "{accepted}");
}

#[test]
fn forged_bodies() {
    let (world, image, groups) = image();
    for &(start, size) in groups.iter().take(4) {
        for at in (192..size.min(700)).chain(size - 3..size) {
            for mask in [0x01, 0x80, 0xff] {
                let mut image = image.clone();
                image[start + at] ^= mask;
                reseal(&mut image[start..start + size], size);
                survive(&world, image);
            }
        }
    }
}

/// A chain of forged groups, each of whose parents is right: counts and sizes are anything.
#[test]
fn forged_chains() {
    let (world, image, _) = image();
    let mut random = fastrand::Rng::with_seed(4);
    let offset = usize::try_from(world.geometry.journal_offset()).unwrap();
    let values = values();
    let mut far = 0;
    for _ in 0..3000 {
        let mut image = image.clone();
        let (mut world, mut parent) = (world.clone(), Checksum::ZERO);
        world.superblock = Start { incarnation: random.u64(1..3), ..fresh() };
        let (mut position, mut op) = (0, 1);
        for _ in 0..5 {
            let (size, count) = (4096 * random.usize(1..5), random.u32(0..3));
            let size = if count == 0 { 4096 } else { size };
            let start = offset + position;
            let group = &mut image[start..start + size];
            group.fill(0);
            let mut header = understory_format::GroupHeader {
                position: u64::try_from(position).unwrap(),
                size: u32::try_from(size).unwrap(),
                parent,
                checkpoint: Checksum::ZERO,
                incarnation: 1,
                op_first: Op::new(op),
                op_count: count,
                witness_op: Op::new(op - 1),
                witness_hash: Checksum::ZERO,
            };
            for record in 0..u64::from(count) {
                let at = 192 + usize::try_from(record * 64).unwrap();
                understory_format::RecordHeader {
                    op: Op::new(op + record),
                    kind: RecordKind::Close,
                    part_count: 0,
                    size: 0,
                }
                .encode(&mut group[at..at + 64]);
            }
            header.incarnation = random.u64(1..4);
            parent = header.seal(group);
            if random.u8(0..4) == 0 {
                let (at, width) = FIELDS[random.usize(..FIELDS.len())];
                let value = values[random.usize(..values.len())];
                group[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                reseal(group, size);
                parent = Checksum::new(u128::from_le_bytes(group[..16].try_into().unwrap()));
            }
            (position, op) = (position + size, op + u64::from(count));
        }
        far += u32::from(survive(&world, image));
    }
    assert!(far > 100, "{far}");
}

/// Superblocks that name what no journal has, or what is not in this one.
#[test]
fn forged_starts() {
    let (world, image, _) = image();
    let good = world.superblock;
    let set: [fn(&mut Start, u64); 6] = [
        |start, value| start.position = value,
        |start, value| start.op_flushed = Op::new(value),
        |start, value| start.op_checkpoint = Op::new(value),
        |start, value| start.head_op = Op::new(value),
        |start, value| start.incarnation = value,
        |start, value| start.hash = Checksum::new(value.into()),
    ];
    for set in set {
        for value in values() {
            let mut world = world.clone();
            set(&mut world.superblock, value);
            survive(&world, image.clone());
        }
    }
    let mut random = fastrand::Rng::with_seed(4);
    let values = values();
    for _ in 0..2000 {
        let mut world = world.clone();
        world.superblock = good;
        for set in set {
            if random.bool() {
                set(&mut world.superblock, values[random.usize(..values.len())]);
            }
        }
        survive(&world, image.clone());
    }
    let check = |damage: fn(&mut Start), expected: &str| {
        let mut start = good;
        damage(&mut start);
        let (machine, _) = machine_of(image.clone(), 1);
        let error = scan_quietly(&machine, &world.geometry, &start).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(|start| start.position = 100, "bytes: journal_position is 100, expected a multiple of 4096");
    check(
        |start| start.head_op = Op::new(u64::MAX),
        "bytes: head_op is 18446744073709551615, expected at most 1152921504606846976",
    );
}

/// A journal that goes on from the highest numbers a superblock can have.
#[test]
fn the_highest_numbers_are_worked_with() {
    let geometry = geometry(20);
    let (machine, _) = formatted(&geometry, 1);
    let high = Op::new(COUNTER_MAX);
    let start = Start {
        position: COUNTER_MAX - COUNTER_MAX % geometry.journal_size,
        op_flushed: high,
        op_checkpoint: high,
        head_op: high,
        incarnation: COUNTER_MAX,
        ..fresh()
    };
    let head = scan_quietly(&machine, &geometry, &start).unwrap();
    assert_eq!((head.op, head.position), (high, start.position));
    let arena = Arena::new(Journal::arena_size(&geometry).unwrap() + 32768).unwrap();
    let journal =
        Journal::begin(machine.clone(), &arena, &geometry, &head, start.position, COUNTER_MAX + 1).unwrap();
    let pool = arena.pool(16384, 2).unwrap();
    for _ in 0..3 {
        let mut builder = GroupBuilder::new(pool.take().unwrap(), journal.written_op().next());
        push(&mut builder, &[]);
        drop(journal.write(builder, Checksum::ZERO).unwrap());
    }
    journal.witness().unwrap();
    let next = Start { incarnation: COUNTER_MAX + 1, ..start };
    assert!(matches!(scan_quietly(&machine, &geometry, &next), Err(JournalError::Corrupt(_))));
}
