use super::*;
use crate::testing::{assert_expectation, superblock, twin_ref};
use crate::{Geometry, dump_superblock};

fn encoded() -> Vec<u8> {
    superblock().encode(2).0.as_bytes().to_vec()
}

#[test]
fn expectation() {
    assert_expectation("v1-superblock-copy", &dump_superblock(&encoded()));
}

#[test]
fn what_is_encoded_is_decoded() {
    fn check(superblock: Superblock) {
        for copy in 0..SUPERBLOCK_COPIES {
            let (encoded, checksum) = superblock.encode(copy);
            assert_eq!(Superblock::decode(encoded.as_bytes(), copy), Ok((superblock, checksum)));
            assert_eq!(identify(encoded.as_bytes()), Identity::Known);
        }
    }
    let full = superblock();
    check(full);
    let mut fresh = full;
    fresh.local = LocalState { sequence: 1, ..LocalState::default() };
    check(fresh);
    // A salvage that found nothing good.
    fresh.local.salvage_count = 1;
    fresh.checkpoint.manifest = ManifestRoot::default();
    fresh.checkpoint.free_set = FreeSetRoot::default();
    check(fresh);
    let mut one_block = full;
    one_block.checkpoint.manifest =
        ManifestRoot { oldest: Some(twin_ref(60)), newest: Some(twin_ref(60)), block_count: 1 };
    one_block.checkpoint.geometry = Geometry::default();
    check(one_block);
}

#[test]
fn all_copies_have_one_checksum_and_the_local_part_is_not_in_the_id() {
    let mut superblock = superblock();
    let (checksum, id) = (superblock.encode(0).1, superblock.checkpoint.id());
    assert_eq!(superblock.encode(3).1, checksum);
    superblock.local.sequence += 1;
    assert_ne!(superblock.encode(0).1, checksum);
    assert_eq!(superblock.checkpoint.id(), id);
    superblock.checkpoint.beat = Beat::new(41);
    assert_ne!(superblock.checkpoint.id(), id);
}

#[test]
fn every_flip_of_a_byte_is_found() {
    let mut bytes = encoded();
    for at in 0..SUPERBLOCK_SIZE {
        for mask in [0x01, 0x10, 0x80, 0xff] {
            bytes[at] ^= mask;
            let error = Superblock::decode(&bytes, 2).unwrap_err();
            assert_eq!(error.place, Place::Superblock { copy: 2 }, "byte {at}");
            bytes[at] ^= mask;
        }
    }
    assert!(Superblock::decode(&bytes, 2).is_ok());
}

fn reseal(bytes: &mut [u8]) {
    let (copy, _) = SuperblockCopy::mut_from_prefix(bytes).unwrap();
    copy.checksum = copy.compute_checksum().get().into();
}

#[test]
fn no_flip_under_a_good_checksum_panics() {
    let good = encoded();
    for at in 0..SUPERBLOCK_SIZE {
        for mask in [0x01, 0x02, 0x10, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= mask;
            reseal(&mut bytes);
            let decoded = Superblock::decode(&bytes, 2);
            if let Ok((superblock, _)) = decoded {
                assert_eq!(superblock.encode(2).0.as_bytes(), bytes, "byte {at}");
            }
        }
    }
}

#[test]
fn no_random_bytes_panic() {
    let mut rng = fastrand::Rng::with_seed(3);
    for round in 0..3000 {
        let mut bytes = vec![0; if round % 2 == 0 { SUPERBLOCK_SIZE } else { rng.usize(..=SUPERBLOCK_SIZE) }];
        rng.fill(&mut bytes);
        if bytes.len() == SUPERBLOCK_SIZE {
            let valid = encoded();
            let kept = rng.usize(..SUPERBLOCK_SIZE);
            bytes[..kept].copy_from_slice(&valid[..kept]);
            reseal(&mut bytes);
        }
        assert!(Superblock::decode(&bytes, 2).is_err());
        let _identity = identify(&bytes);
    }
}

#[test]
fn errors_say_what_is_wrong() {
    fn check(offset: usize, value: u8, expected: &str) {
        let mut bytes = encoded();
        bytes[offset] = value;
        reseal(&mut bytes);
        let error = Superblock::decode(&bytes, 2).unwrap_err().to_string();
        assert_eq!(error, format!("superblock copy 2: {expected}"));
    }
    check(16, 1, "copy is 1, expected 2");
    check(17, 1, "reserved_copy is 1, expected zero");
    check(32, 0, "magic is 0, expected `understory file` and a line feed");
    check(48, 2, "version is 2, expected 1");
    check(50, 0, "checksum_kind is 0, expected 1");
    check(1024 + 1, 0x18, "block_size is 6144, expected a power of two");
    check(1024 + 68, 2, "runs_max is 1, expected at least 2");
    check(1024 + 70, 33, "filter_bits is 33, expected at most 32");
    check(1024 + 508, 1, "manifest_newest is 62, expected the oldest, as there is one");
    check(1024 + 508, 0, "manifest_block_count is 0, expected 0 exactly if oldest and newest are none");
    check(1024 + 504, 0, "free_set_block_count is 0, expected 0 exactly if size and last are none");
    check(1024 + 600, 5, "reserved is 5, expected zero");
    check(2048 + 48, 0, "sequence is 0, expected at least 1");
    check(2048 + 64, 1, "journal_position is 8193, expected whole sectors");
    check(2048 + 162, 64, "scrub_level is 64, expected at most 63");
    check(2048 + 163, 1, "reserved_scrub is 1, expected zero");
    check(2048 + 176, 0, "salvaged_op is 700, expected at most 0");
    check(2048 + 184, 7, "reserved is 7, expected zero");
}

#[test]
fn counters_that_no_history_reaches_are_refused() {
    let check = |offset: usize, field: &str| {
        for (value, is_good) in [(COUNTER_MAX, true), (COUNTER_MAX + 1, false), (u64::MAX, false)] {
            let mut bytes = encoded();
            bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
            reseal(&mut bytes);
            let error = Superblock::decode(&bytes, 2).err().map(|error| error.field);
            assert_eq!(error, (!is_good).then_some(field));
        }
    };
    check(1024 + 304, "number");
    check(1024 + 320, "op_checkpoint");
    check(1024 + 336, "charge_total");
    check(2048 + 48, "sequence");
    check(2048 + 56, "incarnation");
    check(2048 + 64, "journal_position");
    check(2048 + 72, "head_op");
    check(2048 + 168, "salvaged_op");
    check(2048 + 176, "salvage_count");
}

#[test]
fn foreign_damaged_and_other_versions_are_told_apart() {
    assert_eq!(identify(b"short"), Identity::Foreign);
    assert_eq!(identify(&[0; 4096]), Identity::Foreign);
    let mut bytes = encoded();
    bytes[48] = 2;
    assert_eq!(identify(&bytes), Identity::Damaged);
    reseal(&mut bytes);
    assert_eq!(identify(&bytes), Identity::Version(2));
}
