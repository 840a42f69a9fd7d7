use super::*;
use crate::dump_group;
use crate::geometry::{Geometry, OP_HEADER_SIZE, charge, effect_size};
use crate::testing::assert_expectation;
use crate::units::TreeId;

/// A part as a test thinks of it: values and whether they are tombstones.
type Effects = Vec<(Vec<u8>, bool)>;

/// A record: its kind, and the tree and effects of each part.
type Contents = (RecordKind, Vec<(u16, Effects)>);

fn tree(id: u16) -> TreeId {
    TreeId::new(id).unwrap()
}

fn header(op_count: u32) -> GroupHeader {
    GroupHeader {
        position: 8192,
        size: 4096,
        parent: Checksum::of(b"parent"),
        checkpoint: Checksum::of(b"checkpoint"),
        incarnation: 3,
        op_first: Op::new(991),
        op_count,
        witness_op: Op::new(990),
        witness_hash: Checksum::of(b"witness"),
    }
}

fn encode_parts(body: &mut [u8], parts: &[(u16, Effects)]) -> usize {
    let total = body.len();
    let mut rest = body;
    for (id, effects) in parts {
        let header = PartHeader {
            tree: tree(*id),
            value_size: u32_of(effects[0].0.len()),
            count: u32_of(effects.len()),
            has_tombstones: effects.iter().any(|(_, tombstone)| *tombstone),
        };
        let (mut slots, behind) = header.start(rest);
        for ((value, tombstone), index) in effects.iter().zip(0..) {
            slots.value(index).copy_from_slice(value);
            if *tombstone {
                slots.set_tombstone(index);
            }
        }
        rest = behind;
    }
    total - rest.len()
}

/// A group of records, each of a kind and its parts, and its chain hash.
fn encode(records: &[Contents]) -> (Vec<u8>, Checksum) {
    let mut bytes = vec![0xee; 1 << 16];
    let mut used = GROUP_HEADER_SIZE;
    let mut header = header(u32_of(records.len()));
    for ((kind, parts), op) in records.iter().zip(header.op_first.get()..) {
        let body = used + RECORD_HEADER_SIZE;
        let size = encode_parts(&mut bytes[body..], parts);
        let record = RecordHeader {
            op: Op::new(op),
            kind: *kind,
            part_count: u32_of(parts.len()),
            size: u32_of(size),
        };
        record.encode(&mut bytes[used..body]);
        used = body + size;
    }
    header.size = group_size(used);
    bytes.truncate(usize_of(header.size));
    bytes[used..].fill(0);
    let hash = header.seal(&mut bytes);
    (bytes, hash)
}

fn effects(value_size: usize, tombstones: &[bool]) -> Effects {
    let value = |index: usize| {
        (0..value_size).map(|byte| u8::try_from((16 * index + byte + 1) % 256).unwrap()).collect()
    };
    tombstones.iter().enumerate().map(|(index, &tombstone)| (value(index), tombstone)).collect()
}

fn records() -> Vec<Contents> {
    let mixed = effects(5, &[false, true, false, false, false, false, false, false, true]);
    vec![
        (RecordKind::Batch, vec![(3, effects(8, &[false, false])), (1, mixed)]),
        (RecordKind::Close, vec![]),
        (RecordKind::Batch, vec![]),
        (RecordKind::Drain, vec![]),
        (RecordKind::Batch, vec![(3, effects(8, &[true]))]),
        (RecordKind::Settle, vec![]),
    ]
}

/// What a group holds, through all that reads it.
fn decode(group: &[u8]) -> Result<Vec<Contents>, Corruption> {
    let (header, _) = GroupHeader::verify(group)?;
    let mut found = Vec::new();
    for (record, op) in header.records(group).zip(header.op_first.get()..) {
        let record = record.expect("verified");
        assert_eq!(record.op.get(), op);
        let mut parts = Vec::new();
        for part in record.parts() {
            let part = part.expect("verified");
            let effects: Effects =
                part.effects().map(|(value, tombstone)| (value.to_vec(), tombstone)).collect();
            assert_eq!(
                part.values(),
                effects.iter().flat_map(|(value, _)| value.clone()).collect::<Vec<u8>>()
            );
            assert_eq!(part.has_tombstones(), effects.iter().any(|(_, tombstone)| *tombstone));
            assert_eq!(part.tombstones().is_some(), part.has_tombstones());
            assert_eq!(usize_of(part.count()), effects.len());
            parts.push((part.tree().get(), effects));
        }
        found.push((record.kind, parts));
    }
    Ok(found)
}

#[test]
fn expectation() {
    assert_expectation("v1-journal-group", &dump_group(&encode(&records()).0));
    let mut witness = vec![0; 4096];
    header(0).seal(&mut witness);
    assert_expectation("v1-journal-witness", &dump_group(&witness));
}

#[test]
fn what_is_encoded_is_decoded() {
    let check = |records: &[Contents]| {
        let (group, hash) = encode(records);
        assert_eq!(decode(&group).as_deref(), Ok(records));
        let (header, found) = GroupHeader::decode(&group).unwrap();
        assert_eq!((found, header.op_next().get()), (hash, 991 + u64_of(records.len())));
        assert_eq!(header.end(), 8192 + u64_of(group.len()));
        assert_eq!(GroupHeader::verify(&group), Ok((header, hash)));
    };
    check(&records());
    for record in records() {
        check(&[record]);
    }
    // Up to the last byte of a sector, and one byte into the next.
    let left = 4096 - GROUP_HEADER_SIZE - RECORD_HEADER_SIZE - PART_HEADER_SIZE;
    check(&[(RecordKind::Batch, vec![(1, effects(left, &[false]))])]);
    check(&[(RecordKind::Batch, vec![(1, effects(left + 1, &[false]))])]);
    for count in 1..=17 {
        for tombstone in 0..=count {
            let flags: Vec<bool> = (1..=count).map(|index| index == tombstone).collect();
            check(&[(RecordKind::Batch, vec![(7, effects(3, &flags)), (9, effects(1, &[true]))])]);
        }
    }
}

#[test]
fn a_lone_witness_is_a_sector_without_records() {
    let mut witness = vec![0; 4096];
    let hash = header(0).seal(&mut witness);
    assert_eq!(GroupHeader::verify(&witness), Ok((header(0), hash)));
    assert_eq!(header(0).op_next(), Op::new(991));
    assert_eq!(decode(&witness), Ok(vec![]));
}

/// What a batch is charged covers header, record, parts and bitmaps, however its effects are split.
#[test]
fn a_record_fits_its_charge() {
    let headers = u64_of(GROUP_HEADER_SIZE + RECORD_HEADER_SIZE);
    assert_eq!(headers, OP_HEADER_SIZE);
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..20_000 {
        let (mut body, mut size) = (0, 0);
        for _ in 0..random.u64(0..4) {
            let (value_size, count) = (random.u32(1..200), random.u32(1..100));
            body += part_size(value_size, count, random.bool());
            size += effect_size(value_size) * u64::from(count);
        }
        assert!(body <= size);
        assert!(headers + body <= charge(size));
    }
    // The worst: parts of one tombstone each.
    assert!(part_size(1, 1, true) <= effect_size(1));
    assert_eq!(part_size(1, 1, true), 12 + 1 + 1);
    assert!(charge(Geometry::default().batch_size_max.into()) <= Geometry::default().ring_share());
}

#[test]
fn every_flip_of_a_byte_is_found() {
    let (mut group, _) = encode(&records());
    for at in 0..group.len() {
        for mask in [0x01, 0x10, 0x80, 0xff] {
            group[at] ^= mask;
            assert!(GroupHeader::verify(&group).is_err(), "byte {at}");
            if at < GROUP_HEADER_SIZE {
                assert!(GroupHeader::decode(&group).is_err(), "byte {at}");
            }
            let _text = dump_group(&group);
            group[at] ^= mask;
        }
    }
    assert_eq!(decode(&group).as_ref(), Ok(&records()));
    for length in 0..group.len() {
        assert!(GroupHeader::verify(&group[..length]).is_err());
    }
}

/// Gives a damaged group good checksums again.
fn reseal(group: &mut [u8]) {
    let (header, body) = group.split_at_mut(GROUP_HEADER_SIZE);
    let wire = JournalGroupWire::mut_from_bytes(header).unwrap();
    wire.body_checksum = Checksum::of(body).get().into();
    wire.checksum = wire.compute_checksum().get().into();
}

#[test]
fn no_flip_under_good_checksums_panics() {
    let (good, _) = encode(&records());
    let mut accepted = 0;
    for at in 0..good.len() {
        for mask in [0x01, 0x02, 0x10, 0x80, 0xff] {
            let mut group = good.clone();
            group[at] ^= mask;
            reseal(&mut group);
            let _text = dump_group(&group);
            let Ok(found) = decode(&group) else { continue };
            // What is accepted has one encoding.
            accepted += 1;
            let (header, hash) = GroupHeader::verify(&group).unwrap();
            let mut again = encode(&found).0;
            assert_eq!(again[GROUP_HEADER_SIZE..], group[GROUP_HEADER_SIZE..], "byte {at}");
            assert_eq!(header.seal(&mut again), hash);
            assert_eq!(again, group, "byte {at}");
        }
    }
    assert!(accepted > 500, "{accepted}");
}

#[test]
fn no_random_bytes_panic() {
    let mut random = fastrand::Rng::with_seed(3);
    let (good, _) = encode(&records());
    for round in 0..5000 {
        let mut group = vec![0; if round % 2 == 0 { 4096 } else { random.usize(..=9000) }];
        random.fill(&mut group);
        let kept = random.usize(..400).min(group.len());
        group[..kept].copy_from_slice(&good[..kept]);
        if group.len() >= GROUP_HEADER_SIZE {
            reseal(&mut group);
        }
        let _text = dump_group(&group);
        assert!(decode(&group).is_err());
    }
}

#[test]
fn errors_of_a_header_say_what_is_wrong() {
    fn check(damage: impl Fn(&mut JournalGroupWire), expected: &str) {
        let (mut group, _) = encode(&records());
        damage(JournalGroupWire::mut_from_prefix(&mut group).unwrap().0);
        reseal(&mut group);
        let error = GroupHeader::verify(&group).unwrap_err();
        assert_eq!(error.to_string(), format!("bytes: {expected}"));
    }
    let most = "2305843009213693952";
    check(|w| w.position = 4095.into(), "position is 4095, expected a multiple of 4096");
    check(
        |w| w.position = (2 * COUNTER_MAX + 4096).into(),
        &format!("position is 2305843009213698048, expected at most {most}"),
    );
    check(|w| w.size = 0.into(), "size is 0, expected at least 4096");
    check(|w| w.size = 4097.into(), "size is 4097, expected a multiple of 4096");
    check(|w| w.size = 0xffff_f000.into(), "size is 4096, expected 4294963200");
    check(|w| w.incarnation = 0.into(), "incarnation is 0, expected at least 1");
    check(
        |w| w.incarnation = u64::MAX.into(),
        &format!("incarnation is 18446744073709551615, expected at most {most}"),
    );
    check(|w| w.op_first = 0.into(), "op_first is 0, expected at least 1");
    check(
        |w| w.op_first = u64::MAX.into(),
        &format!("op_first is 18446744073709551615, expected at most {most}"),
    );
    check(|w| w.op_first = (2 * COUNTER_MAX).into(), "op is 991, expected 2305843009213693952");
    check(|w| w.witness_op = 991.into(), "witness_op is 991, expected at most 990");
    check(|w| w.witness_op = u64::MAX.into(), "witness_op is 18446744073709551615, expected at most 990");
    check(|w| w.op_count = 0.into(), "op_count is 0, expected at least 1");
    check(|w| w.op_count = 5.into(), "padding is 228, expected zero");
    check(|w| w.op_count = u32::MAX.into(), "op_count is 4294967295, expected at most 61");
    check(|w| w.kind = 0, "kind is 0, expected ops (1) or a lone witness (2)");
    check(|w| w.kind = 2, "op_count is 6, expected 0");
    check(|w| w.reserved[70] = 1, "reserved is 1, expected zero");
}

#[test]
fn errors_of_a_lone_witness_say_what_is_wrong() {
    fn check(damage: impl Fn(&mut JournalGroupWire), expected: &str) {
        let mut witness = vec![0; 4096];
        header(0).seal(&mut witness);
        damage(JournalGroupWire::mut_from_prefix(&mut witness).unwrap().0);
        reseal(&mut witness);
        let error = GroupHeader::verify(&witness).unwrap_err();
        assert_eq!(error.to_string(), format!("bytes: {expected}"));
    }
    check(|w| w.op_count = 1.into(), "op_count is 1, expected 0");
    check(|w| w.kind = 1, "op_count is 0, expected at least 1");
    check(|w| w.size = 8192.into(), "size is 8192, expected 4096");
    check(|w| w.witness_op = 989.into(), "witness_op is 989, expected 990");
}

/// Offset of the first record's first part in the group of [`records`].
const PART: usize = GROUP_HEADER_SIZE + RECORD_HEADER_SIZE;

#[test]
fn errors_of_records_say_what_is_wrong() {
    fn check(record: usize, damage: impl Fn(&mut JournalRecordWire), expected: &str) {
        let (mut group, _) = encode(&records());
        let starts = [GROUP_HEADER_SIZE, PART + 87];
        damage(JournalRecordWire::mut_from_prefix(&mut group[starts[record]..]).unwrap().0);
        reseal(&mut group);
        let error = GroupHeader::verify(&group).unwrap_err();
        assert_eq!(error.to_string(), format!("bytes: {expected}"));
    }
    check(0, |r| r.op = 990.into(), "op is 990, expected 991");
    check(1, |r| r.op = 991.into(), "op is 991, expected 992");
    check(0, |r| r.kind = 0, "kind is 0, expected a kind of op, 1 to 4");
    check(0, |r| r.kind = 5, "kind is 5, expected a kind of op, 1 to 4");
    check(0, |r| r.kind = 2, "size is 87, expected 0");
    check(1, |r| r.part_count = 1.into(), "part_count is 1, expected 0");
    check(0, |r| r.part_count = 3.into(), "part is 0, expected at least 12");
    check(
        0,
        |r| r.part_count = 1.into(),
        "size is 59, expected the parts of the record and nothing behind them",
    );
    check(0, |r| r.part_count = u32::MAX.into(), "part is 0, expected at least 12");
    check(0, |r| r.size = 86.into(), "count is 9, expected effects that lie within the record");
    check(0, |r| r.size = u32::MAX.into(), "size is 4294967295, expected at most 3840");
    check(1, |r| r.reserved[46] = 1, "reserved is 1, expected zero");
}

#[test]
fn errors_of_parts_say_what_is_wrong() {
    fn check(damage: impl Fn(&mut [u8]), expected: &str) {
        let (mut group, _) = encode(&records());
        damage(&mut group[PART + 12 + 16..]);
        reseal(&mut group);
        let error = GroupHeader::verify(&group).unwrap_err();
        assert_eq!(error.to_string(), format!("bytes: {expected}"));
    }
    check(|p| p[0] = 0, "tree_id is 0, expected at least 1");
    check(|p| p[2] = 2, "flags is 2, expected at most 1");
    check(|p| p[2] = 0, "size is 2, expected the parts of the record and nothing behind them");
    check(|p| p[4] = 0, "value_size is 0, expected at least 1");
    check(|p| p[4..8].fill(0xff), "value_size is 4294967295, expected at most 16000");
    check(|p| p[4] = 6, "count is 9, expected effects that lie within the record");
    check(|p| p[8] = 0, "count is 0, expected at least 1");
    check(|p| p[8] = 10, "count is 10, expected effects that lie within the record");
    check(|p| p[8..12].fill(0xff), "count is 4294967295, expected effects that lie within the record");
    check(|p| p[12..14].fill(0), "tombstones is 0, expected at least one, as it is flagged");
    check(|p| p[13] = 3, "tombstones is 3, expected zero behind the last effect");
}

#[test]
fn parts_are_checked_against_the_schema() {
    let (group, _) = encode(&records());
    let (header, _) = GroupHeader::verify(&group).unwrap();
    let part = header.records(&group).next().unwrap().unwrap().parts().next().unwrap().unwrap();
    assert_eq!(part.check(Some(8)), Ok(()));
    let check = |size, expected: &str| assert_eq!(part.check(size).unwrap_err().to_string(), expected);
    check(None, "bytes: tree_id is 3, expected a tree of the schema");
    check(Some(16), "bytes: value_size is 8, expected 16");
}

#[test]
#[should_panic(expected = "a header that nobody could read back")]
fn a_header_that_is_refused_is_not_sealed() {
    let mut group = vec![0; 4096];
    GroupHeader { incarnation: 0, ..header(0) }.seal(&mut group);
}

#[test]
#[should_panic(expected = "only batches have parts")]
fn only_batches_have_bodies() {
    RecordHeader { op: Op::new(1), kind: RecordKind::Close, part_count: 1, size: 20 }.encode(&mut [0; 64]);
}
