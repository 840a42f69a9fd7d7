use super::*;
use crate::testing::{BLOCK_SIZE, Fixture, assert_expectation, decode_all, fixture, placement, reseal};
use crate::{BlockAddress, dump_block};

#[test]
fn expectations() {
    for kind in BlockKind::ALL {
        let name = format!("v1-block-{}", kind.to_string().replace(' ', "-"));
        assert_expectation(&name, &dump_block(&fixture(kind).block));
    }
}

#[test]
fn a_sealed_block_verifies_under_both_addresses() {
    for kind in BlockKind::ALL {
        let Fixture { block, expect } = fixture(kind);
        assert_eq!(verify(&block, &expect), Ok(()), "{kind}");
        assert_eq!(decode_all(&block, kind), Ok(()), "{kind}");
        assert_eq!(reference(&block), Ok(expect.reference));
        assert_eq!(header(&block).unwrap().placement(), Ok(placement(kind)));
        let mut at_twin = expect;
        at_twin.reference.address = BlockAddress::new(18).unwrap();
        assert_eq!(verify(&block, &at_twin).is_ok(), kind.is_twin(), "{kind}");
        let mut elsewhere = expect;
        elsewhere.reference.address = BlockAddress::new(19).unwrap();
        assert_eq!(verify(&block, &elsewhere).unwrap_err().field, "address");
        let other_kind = BlockKind::ALL.into_iter().find(|other| *other != kind).unwrap();
        assert_eq!(verify(&block, &Expect { kind: other_kind, ..expect }).unwrap_err().field, "kind");
    }
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    fn check(offset: usize, value: u8, expected: &str) {
        let Fixture { mut block, expect } = fixture(BlockKind::Manifest);
        block[offset] = value;
        let resealed = reseal(&mut block, expect.kind);
        assert_eq!(verify(&block, &resealed).unwrap_err().to_string(), expected);
    }
    check(52, 2, "block b17: version is 2, expected 1");
    check(54, 0, "block b17: kind is 0, expected a block kind of this version, 1 to 6");
    check(54, 7, "block b17: kind is 7, expected a block kind of this version, 1 to 6");
    check(54, 1, "block b17: tree_id is 0, expected at least 1");
    check(55, 2, "block b17: checksum_kind is 2, expected 1");
    check(58, 1, "block b17: reserved_ids is 1, expected zero");
    check(127, 9, "block b17: reserved is 9, expected zero");
    check(40, 0, "block b17: twin is 0, expected at least 1");
    check(40, 17, "block b17: twin is 17, expected another address than the first");
    check(32, 16, "block b17: address is 16, expected 17");
    check(49, 0x20, "block b17: size is 8416, expected at most 4096");
    check(49, 0, "block b17: size is 224, expected at least 256");
    check(1000, 1, "block b17: padding is 1, expected zero");
    let Fixture { mut block, expect } = fixture(BlockKind::Manifest);
    block[300] ^= 1;
    assert_eq!(verify(&block, &expect).unwrap_err().field, "checksum_body");
    block[100] ^= 1;
    assert_eq!(verify(&block, &expect).unwrap_err().field, "checksum");
}

/// Only what is behind the last written sector may change without being found.
#[test]
fn every_flip_of_a_byte_is_found_or_without_effect() {
    for kind in BlockKind::ALL {
        let Fixture { mut block, expect } = fixture(kind);
        let written = write_len(&block);
        let text = dump_block(&block);
        for at in 0..BLOCK_SIZE {
            for mask in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
                block[at] ^= mask;
                match verify(&block, &expect) {
                    Ok(()) => {
                        assert!(at >= written && (mask < 0xff || text == dump_block(&block)), "{kind} {at}")
                    }
                    Err(error) => assert_eq!(error.place, Place::Block(expect.reference.address)),
                }
                block[at] ^= mask;
            }
        }
        assert_eq!(verify(&block, &expect), Ok(()));
    }
}

/// A writer with a fault can put good checksums on anything: decoding gives an error or a value, never a panic.
#[test]
fn no_flip_under_good_checksums_panics() {
    let mut accepted = 0;
    for kind in BlockKind::ALL {
        let fixture = fixture(kind);
        let size = usize_of(header(&fixture.block).unwrap().size.get()).min(1500);
        for at in (0..size).chain(BLOCK_SIZE - 400..BLOCK_SIZE) {
            for mask in [0x01, 0x02, 0x08, 0x80, 0xff] {
                let mut block = fixture.block.clone();
                block[at] ^= mask;
                accepted += check_anything(&mut block, kind);
            }
        }
    }
    assert!(accepted > 0, "some flips give another valid block");
}

#[test]
fn no_random_damage_under_good_checksums_panics() {
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..4000 {
        let kind = BlockKind::ALL[rng.usize(..BlockKind::ALL.len())];
        let mut block = fixture(kind).block;
        for _ in 0..=rng.usize(..4) {
            let metadata = 128..200;
            let at = if rng.bool() { rng.usize(metadata) } else { rng.usize(..800) };
            block[at] = [0, 1, 2, 0x7f, 0x80, 0xff, rng.u8(..)][rng.usize(..7)];
        }
        if round % 2 == 0 {
            block[54] = rng.u8(..8);
        }
        check_anything(&mut block, kind);
    }
}

#[test]
fn no_random_bytes_panic() {
    let mut rng = fastrand::Rng::with_seed(2);
    for round in 0..2000 {
        let mut block = vec![0; if round % 2 == 0 { BLOCK_SIZE } else { rng.usize(256..=BLOCK_SIZE) }];
        rng.fill(&mut block);
        if round % 3 == 0 {
            let head = fixture(BlockKind::ALL[rng.usize(..BlockKind::ALL.len())]).block;
            block[..200].copy_from_slice(&head[..200]);
        }
        check_anything(&mut block, BlockKind::ALL[rng.usize(..BlockKind::ALL.len())]);
    }
}

#[test]
fn no_length_panics() {
    for kind in BlockKind::ALL {
        let Fixture { block, expect } = fixture(kind);
        for length in (0..600).chain(BLOCK_SIZE - 3..BLOCK_SIZE) {
            let short = &block[..length];
            let _text = dump_block(short);
            let (decoded, verified) = (decode_all(short, kind), verify(short, &expect));
            if length < HEADER_SIZE {
                assert_eq!(decoded.unwrap_err().field, "length");
                assert_eq!(verified.unwrap_err().field, "length");
            }
        }
    }
}

/// Decodes after resealing and without; counts what is accepted.
fn check_anything(block: &mut [u8], kind: BlockKind) -> u32 {
    for kind in BlockKind::ALL {
        let _decoded = decode_all(block, kind);
    }
    let _text = dump_block(block);
    let expect = reseal(block, kind);
    let verified = verify(block, &expect);
    u32::from(verified.is_ok() && decode_all(block, kind).is_ok())
}

#[test]
fn written_bytes_end_with_a_sector_of_zeros() {
    let mut block = vec![0xee; 64 * 1024];
    let chunk = crate::trailer::Chunk { previous: None, index: 0, count: 1, total_size: 5000 };
    crate::trailer::encode(&mut block, &placement(BlockKind::FreeSet), &chunk, &[7; 5000]);
    assert_eq!(write_len(&block), 8192);
    assert!(block[5256..8192].iter().all(|&byte| byte == 0));
    assert!(block[8192..].iter().all(|&byte| byte == 0xee));
}
