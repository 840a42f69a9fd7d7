use super::*;
use crate::testing::{placement, twin_ref};
use zerocopy::FromBytes;

/// Cuts `total` bytes into blocks and puts them together again.
fn check_chain(total: usize) {
    let bytes: Vec<u8> = (0..total).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let count = u32::try_from(chunk_count(4096, u64_of(total))).unwrap();
    let mut together = Vec::new();
    for (index, chunk_bytes) in (0..).zip(bytes.chunks(usize_of(capacity(4096)))) {
        let previous = (index > 0).then(|| twin_ref(u64::from(index)));
        let chunk = Chunk { previous, index, count, total_size: u64_of(total) };
        let mut block = vec![0xee; 4096];
        encode(&mut block, &placement(BlockKind::FreeSet), &chunk, chunk_bytes);
        let view = TrailerView::new(&block).unwrap();
        assert_eq!(*view.chunk(), chunk);
        together.extend_from_slice(view.bytes());
    }
    assert_eq!(together, bytes);
}

#[test]
fn chunks_together_are_the_whole() {
    for total in [0, 1, 3839, 3840, 3841, 7680, 7681, 10_000] {
        check_chain(total);
    }
    assert_eq!([0, 1, 3840, 3841].map(|total| chunk_count(4096, total)), [0, 1, 1, 2]);
}

#[test]
fn numbers_and_sizes_go_together() {
    fn check(damage: impl Fn(&mut TrailerMetadata), expected: &str) {
        let mut block = vec![0; 4096];
        let chunk = Chunk { previous: Some(twin_ref(50)), index: 1, count: 2, total_size: 3940 };
        encode(&mut block, &placement(BlockKind::FreeSet), &chunk, &[7; 100]);
        assert!(TrailerView::new(&block).is_ok());
        damage(TrailerMetadata::mut_from_prefix(&mut block[128..]).unwrap().0);
        let error = TrailerView::new(&block).unwrap_err();
        assert_eq!(error.to_string(), format!("bytes: {expected}"));
    }
    check(|m| m.chunk_index = 2.into(), "chunk_index is 2, expected at most 1");
    check(|m| m.chunk_count = 3.into(), "chunk_count is 3, expected what `total_size` takes");
    check(|m| m.total_size = u64::MAX.into(), "chunk_count is 2, expected what `total_size` takes");
    check(|m| m.total_size = 3941.into(), "size is 356, expected 357");
    check(|m| m.previous = TwinRefWire::NONE, "previous is 1, expected none exactly in the first chunk");
    check(|m| m.reserved[79] = 1, "reserved is 1, expected zero");
}
