use super::*;
use crate::key::Key;
use crate::record::Record;
use crate::testing::{KEY_SIZE, Reading, address, placement, reading};
use crate::units::{Checksum, usize_of};
use crate::value::ValueLayout;
use zerocopy::FromBytes;

/// A table of value blocks with these counts; sensors ascend by 10, tombstones are a third.
fn table(layout: &ValueLayout, counts: &[u32]) -> (Vec<u8>, IndexEncoder) {
    let mut block = vec![0xee; usize_of(layout.block_size)];
    let mut encoder = IndexEncoder::new(layout, KEY_SIZE);
    let mut sensor = 0;
    for (number, &count) in (0..).zip(counts) {
        let first = sensor + 10;
        for page in 0..layout.pages_used(count) {
            sensor += 10 * layout.page_value_count(count, page);
            encoder.page_key(&mut block, &reading(sensor).key().encode().0);
        }
        for page in 0..layout.pages_used(count) {
            encoder.page_checksum(&mut block, page, Checksum::new(u128::from(1000 * number + page)));
        }
        let reference =
            BlockRef { address: address(100 + u64::from(number)), checksum: Checksum::new(number.into()) };
        let key_min = reading(first).key().encode();
        encoder.value_block(&mut block, reference, count, count / 3, &key_min.0);
    }
    (block, encoder)
}

#[test]
fn what_is_encoded_is_viewed() {
    let layout = ValueLayout::new(16_384, 4096, 16).unwrap();
    let full = layout.value_count_max;
    for counts in [vec![1], vec![full], vec![full, full, 1], vec![1, full, 300, layout.first.value_count_max]]
    {
        let (mut block, encoder) = table(&layout, &counts);
        let _checksum = encoder.finish(&mut block, &placement(BlockKind::Index));
        let view = IndexView::new(&block, KEY_SIZE).unwrap();
        assert_eq!(view.validate_order(&Reading::KEY), Ok(()));
        assert_eq!(usize_of(view.value_block_count()), counts.len());
        assert_eq!(view.value_count(), counts.iter().map(|&count| u64::from(count)).sum());
        assert_eq!(view.tombstone_count(), counts.iter().map(|&count| u64::from(count / 3)).sum());
        assert_eq!((view.value_size(), view.page_size()), (16, 4096));
        let mut page_start = 0;
        for (number, entry) in (0..).zip(view.entries()) {
            let count = counts[usize_of(number)];
            let page_count = layout.pages_used(count);
            assert_eq!(entry.reference.address, address(100 + u64::from(number)));
            assert_eq!((entry.value_count, entry.tombstone_count, entry.is_lost), (count, count / 3, false));
            assert_eq!((entry.page_start, entry.page_count), (page_start, page_count));
            for page in 0..page_count {
                let checksum = Checksum::new(u128::from(1000 * number + page));
                assert_eq!(view.page_checksum(page_start + page), checksum);
                assert_eq!(view.block_of_page(page_start + page), number);
            }
            assert_eq!(view.key_max_bytes(number), view.page_key_max_bytes(page_start + page_count - 1));
            page_start += page_count;
        }
        assert_eq!(view.page_count(), page_start);
        check_search(&view, view.value_count());
    }
}

/// Blocks of any fill, as they are where blocks moved unread.
#[test]
fn pages_find_their_block_whatever_the_fill() {
    let mut rng = fastrand::Rng::with_seed(1);
    let layout = ValueLayout::new(16_384, 4096, 16).unwrap();
    for _ in 0..50 {
        let full_share = rng.u8(..=4);
        let counts: Vec<u32> = (0..rng.usize(1..60))
            .map(|_| {
                if rng.u8(..4) < full_share {
                    layout.value_count_max
                } else {
                    rng.u32(1..=layout.value_count_max)
                }
            })
            .collect();
        let (mut block, encoder) = table(&layout, &counts);
        let _checksum = encoder.finish(&mut block, &placement(BlockKind::Index));
        let view = IndexView::new(&block, KEY_SIZE).unwrap();
        for (number, entry) in (0..).zip(view.entries()) {
            for page in entry.page_start..entry.page_start + entry.page_count {
                assert_eq!(view.block_of_page(page), number);
            }
        }
    }
}

/// Searches for every key and its neighbours, against a plain pass over the pages.
fn check_search(view: &IndexView<'_>, values: u64) {
    let last = u32::try_from(10 * values).unwrap();
    for sensor in
        (0..=last + 10).step_by(10).flat_map(|sensor| [sensor.saturating_sub(1), sensor, sensor + 1])
    {
        let key = reading(sensor).key();
        let expected = (0..view.page_count())
            .find(|&page| <Reading as Record>::Key::decode(view.page_key_max_bytes(page)) >= key);
        assert_eq!(view.page_of(key), expected);
        assert_eq!(view.page_of_bytes(&Reading::KEY, &key.encode().0), expected);
    }
    assert_eq!(view.key_min(), reading(10).key().encode());
    assert_eq!(view.key_max(), reading(last).key().encode());
}

/// The figures of ADR 1, and that as many fit as are said to.
#[test]
fn capacities() {
    let check = |block, page, key, expected| assert_eq!(index_capacity(block, page, key), expected);
    check(65_536, 16_384, 8, 453);
    check(65_536, 16_384, 16, 354);
    check(65_536, 16_384, 32, 247);
    check(4096, 4096, 8, 53);
    check(4096, 4096, 32, 32);
    check(1 << 20, 4096, 32, 84);
    let layout = ValueLayout::new(4096, 4096, 16).unwrap();
    let counts = vec![layout.value_count_max; 53];
    let (mut block, encoder) = table(&layout, &counts);
    assert!(encoder.is_full());
    assert_eq!(encoder.counts().value_blocks, encoder.capacity());
    let _checksum = encoder.finish(&mut block, &placement(BlockKind::Index));
    assert_eq!(IndexView::new(&block, KEY_SIZE).unwrap().value_block_count(), 53);
}

#[test]
fn errors_say_what_is_wrong() {
    fn check(damage: impl Fn(&mut IndexMetadata, &mut [u8]), expected: &str) {
        let layout = ValueLayout::new(4096, 4096, 16).unwrap();
        let (mut block, encoder) = table(&layout, &[4, 5, 6]);
        let _checksum = encoder.finish(&mut block, &placement(BlockKind::Index));
        let (head, body) = block.split_at_mut(HEADER_SIZE);
        let (metadata, _) = IndexMetadata::mut_from_prefix(&mut head[128..]).unwrap();
        damage(metadata, body);
        let found = IndexView::new(&block, KEY_SIZE).and_then(|view| view.validate_order(&Reading::KEY));
        assert_eq!(found.unwrap_err().to_string(), format!("bytes: {expected}"));
    }
    check(|m, _| m.key_size = 9.into(), "key_size is 9, expected 8");
    check(|m, _| m.key_size = 0.into(), "key_size is 0, expected at least 1");
    check(|m, _| m.value_block_count = 0.into(), "value_block_count is 0, expected at least 1");
    check(
        |m, _| m.value_block_count = u32::MAX.into(),
        "value_block_count is 4294967295, expected at most 4096",
    );
    check(|m, _| m.page_count = 2.into(), "page_count is 2, expected at least 3");
    check(|m, _| m.page_count = 4.into(), "size is 472, expected 496");
    check(|m, _| m.filter_block_count = 1.into(), "filter_block_count is 1, expected 0");
    check(|m, _| m.filter_line_count = 61.into(), "filter_block_count is 0, expected 2");
    check(|m, _| m.value_count = 16.into(), "value_count is 16, expected 15");
    check(|m, _| m.tombstone_count = 0.into(), "tombstone_count is 0, expected 4");
    check(
        |m, _| m.page_size = 8192.into(),
        "value_size is 16, expected sizes that give a layout, with `page_size`",
    );
    check(|m, _| m.reserved[87] = 1, "reserved is 1, expected zero");
    check(|_, b| b[..8].fill(0), "address is 0, expected at least 1");
    check(|_, b| b[24] = 0, "value_count is 0, expected at least 1");
    check(|_, b| b[25] = 1, "value_count is 260, expected at most 204");
    check(|_, b| b[28] = 5, "tombstone_count is 5, expected at most 4");
    check(|_, b| b[36] = 2, "flags is 2, expected at most 1");
    check(|_, b| b[39] = 2, "reserved is 2, expected zero");
    check(|_, b| b[40 + 32] = 2, "page_start is 2, expected 1");
    check(|_, b| b[120 + 4] = 200, "page key_max is 0, expected a key greater than the page before");
    check(|_, b| b[128 + 4] = 1, "key_min is 1, expected a key greater than the block before");
}

#[test]
fn a_lost_block_is_told() {
    let layout = ValueLayout::new(4096, 4096, 16).unwrap();
    let (mut block, encoder) = table(&layout, &[4, 5]);
    let _checksum = encoder.finish(&mut block, &placement(BlockKind::Index));
    block[HEADER_SIZE + 40 + 36] = FLAG_LOST;
    let view = IndexView::new(&block, KEY_SIZE).unwrap();
    assert_eq!([0, 1].map(|index| view.entry(index).is_lost), [false, true]);
}
