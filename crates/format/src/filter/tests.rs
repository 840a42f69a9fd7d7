use super::*;
use crate::key::Key;
use crate::record::Record;
use crate::testing::{placement, reading};

/// A filter of these hashes in blocks of this size, folded; its lines back to back.
fn filter(layout: &FilterLayout, hashes: &[u64]) -> (Vec<Vec<u8>>, FilterBuilder) {
    let block_size = usize_of(layout.block_size);
    let mut blocks = vec![vec![0xee; block_size]; usize_of(layout.block_count_max())];
    let mut builder = FilterBuilder::new(layout, &mut blocks);
    hashes.iter().for_each(|&hash| builder.add(&mut blocks, hash));
    let left = builder.fold(&mut blocks);
    blocks.truncate(usize_of(left));
    for (number, block) in (0..).zip(&mut blocks) {
        let _checksum = builder.finish(number, block, &placement(BlockKind::Filter));
    }
    (blocks, builder)
}

fn has(blocks: &[Vec<u8>], line_count: u32, hash: u64) -> bool {
    let per_block = lines_per_block(u32_of(blocks[0].len()));
    let (block, at) = place_of(line_of(hash, line_count), per_block);
    may_have(blocks[block][at..].first_chunk().unwrap(), hash)
}

fn hashes(seed: u64, count: usize) -> Vec<u64> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| rng.u128(..).hash()).collect()
}

/// Every key is found in a filter of any size, folded and not, over one block and several.
#[test]
fn no_key_is_missed() {
    for bits in [1, 2, 9, 10, 32] {
        for capacity in [1, 7, 104, 900, 5000, 20_000] {
            let layout = FilterLayout::new(4096, bits, capacity).unwrap();
            for count in [1, capacity / 33, capacity / 2, capacity / 2 + 1, capacity] {
                let hashes = hashes(capacity + count, usize::try_from(count).unwrap());
                let (blocks, builder) = filter(&layout, &hashes);
                let lines = builder.line_count();
                assert_eq!(lines, layout.line_count(count));
                assert_eq!(blocks.len(), usize_of(layout.block_count(lines)));
                assert!(hashes.iter().all(|&hash| has(&blocks, lines, hash)), "{bits} {capacity} {count}");
            }
        }
    }
}

/// A folded filter has the bits of one that was made with so few lines, whatever the order of the keys.
#[test]
fn a_folded_filter_is_one_of_its_lines() {
    let layout = FilterLayout::new(4096, 10, 20_000).unwrap();
    for count in [300, 1000, 5000, 9999] {
        let mut hashes = hashes(9, count);
        let (folded, builder) = filter(&layout, &hashes);
        let small = FilterLayout { line_count_max: builder.line_count(), ..layout };
        assert!(small.line_count_max < layout.line_count_max);
        hashes.reverse();
        assert_eq!(filter(&small, &hashes).0, folded);
    }
}

/// Lines of the default geometry's tables of 144-byte records, and of the small one's.
#[test]
fn lines_follow_from_the_count() {
    let check = |layout: FilterLayout, count, lines, blocks| {
        assert_eq!((layout.line_count(count), layout.block_count(layout.line_count(count))), (lines, blocks));
    };
    let table = FilterLayout::new(65_536, 10, 113_152).unwrap();
    check(table, 113_152, 2240, 3);
    check(table, 57_345, 2240, 3);
    check(table, 57_344, 1120, 2);
    check(table, 28_672, 560, 1);
    check(table, 1, 35, 1);
    let small = FilterLayout::new(4096, 10, 104).unwrap();
    check(small, 104, 4, 1);
    check(small, 102, 2, 1);
    check(small, 1, 1, 1);
    assert_eq!(FilterLayout::new(4096, 0, 104), None);
}

/// One in 100 of the keys that were not added, at 10 bits for each that was; more with fewer bits.
#[test]
fn false_positives_are_as_rare_as_theory_says() {
    let check = |bits, share: core::ops::Range<f64>| {
        let layout = FilterLayout::new(65_536, bits, 113_152).unwrap();
        let (blocks, builder) = filter(&layout, &hashes(1, 113_152));
        let asked = hashes(2, 200_000);
        let found = asked.iter().filter(|&&hash| has(&blocks, builder.line_count(), hash)).count();
        let found = f64::from(u32_of(found)) / 200_000.0;
        assert!(share.contains(&found), "{bits} bits: {found}");
    };
    check(10, 0.007..0.012);
    check(8, 0.018..0.030);
    check(16, 0.0005..0.002);
}

/// The bits of some keys in a line, which no change of the code may change.
#[test]
fn places_are_fixed() {
    let of =
        |hash| places(hash).map(|(byte, bit)| 8 * byte + usize_of(bit.trailing_zeros())).collect::<Vec<_>>();
    assert_eq!(of(0), [0; 6]);
    assert_eq!(of(1), PLACES_OF_1);
    assert_eq!(of(reading(5).key().hash()), PLACES_OF_READING_5);
    assert_eq!([0, 1 << 63, u64::MAX].map(|hash| line_of(hash, 2240)), [0, 1120, 2239]);
}

const PLACES_OF_1: [usize; 6] = [316, 221, 461, 407, 489, 159];
const PLACES_OF_READING_5: [usize; 6] = [350, 297, 240, 510, 20, 101];

#[test]
fn errors_say_what_is_wrong() {
    let layout = FilterLayout::new(4096, 10, 5000).unwrap();
    let (blocks, _) = filter(&layout, &hashes(3, 5000));
    let check = |number: usize, damage: fn(&mut FilterMetadata), expected: &str| {
        let mut block = blocks[number].clone();
        let (head, _) = block.split_at_mut(HEADER_SIZE);
        let (metadata, _) = zerocopy::FromBytes::mut_from_prefix(&mut head[128..]).unwrap();
        damage(metadata);
        let tree = TreeId::new(3).unwrap();
        let found = FilterView::new(&block).and_then(|view| view.check(tree, u32_of(number), 128));
        assert_eq!(found.map_err(|error| error.to_string()).err(), Some(format!("bytes: {expected}")));
    };
    check(0, |m| m.line_count = 0.into(), "line_count is 0, expected at least 1");
    check(0, |m| m.line_count = 61.into(), "line_count is 61, expected at most 60");
    check(0, |m| m.line_count = 59.into(), "size is 4096, expected 4032");
    check(2, |m| m.line_start = 121.into(), "line_start is 129, expected at most 128");
    check(0, |m| m.table_line_count = 129.into(), "table_line_count is 129, expected 128");
    check(1, |m| m.line_start = 0.into(), "line_start is 0, expected 60");
    check(1, |m| m.reserved[115] = 1, "reserved is 1, expected zero");
    let view = FilterView::new(&blocks[1]).unwrap();
    assert_eq!(view.check(TreeId::new(3).unwrap(), 1, 128), Ok(()));
    assert!(view.check(TreeId::new(4).unwrap(), 1, 128).is_err());
}
