use super::*;
use crate::key::Key;
use crate::record::Record;
use crate::testing::{Reading, placement, reading, value_block};
use crate::verify;
use zerocopy::IntoBytes;

fn geometries() -> impl Iterator<Item = (u32, u32)> {
    [(4096, 4096), (8192, 4096), (16_384, 16_384), (65_536, 16_384), (65_536, 4096), (1 << 20, 16_384)]
        .into_iter()
}

/// What a layout promises, for all sizes of values.
#[test]
fn layouts_are_dense_and_largest() {
    for (block_size, page_size) in geometries() {
        for value_size in
            (1..=page_size + 1).filter(|size| *size < 300 || size % 61 < 2 || size + 300 > page_size)
        {
            let Some(layout) = ValueLayout::new(block_size, page_size, value_size) else {
                assert!(value_size + 8 + 4 + 7 > page_size - 256, "{value_size} of {page_size}");
                continue;
            };
            for page in [&layout.first, &layout.rest] {
                check_page_layout(page, value_size);
            }
            assert_eq!(layout.first.size + 256, layout.rest.size);
            check_locate(&layout);
        }
    }
}

fn check_page_layout(page: &PageLayout, value_size: u32) {
    let count = page.value_count_max;
    let ends = |count: u32| {
        let bitmap = (count * value_size).next_multiple_of(8);
        let slots = bitmap + count.div_ceil(64) * 8;
        (bitmap, slots, slots + 2 * (4 * count).div_ceil(3))
    };
    assert!(count >= 1);
    assert_eq!((page.bitmap_offset, page.slots_offset), (ends(count).0, ends(count).1));
    assert!(ends(count).2 <= page.size);
    assert!(ends(count + 1).2 > page.size, "one more fits: {page:?}");
    assert!(4 * count <= 3 * page.slot_count, "load over 0.75");
    assert!(u32::from(page.index_mask()) >= count);
    assert!(page.index_bits() <= 13, "three bits of tag at least");
}

fn check_locate(layout: &ValueLayout) {
    let counts = |page: u32| layout.page(page).value_count_max;
    let total: u32 = (0..layout.page_count).map(counts).sum();
    assert_eq!(total, layout.value_count_max);
    let mut start = 0;
    for page in (0..layout.page_count).filter(|page| *page < 3 || page + 2 > layout.page_count) {
        if page >= 3 {
            start = layout.page_value_start(page);
        }
        assert_eq!(layout.page_value_start(page), start);
        let (first, last) = (start, start + counts(page) - 1);
        assert_eq!(layout.locate(first), (page, 0));
        assert_eq!(layout.locate(last), (page, counts(page) - 1));
        assert_eq!(layout.pages_used(first + 1), page + 1);
        assert_eq!(layout.page_value_count(last + 1, page), counts(page));
        assert_eq!(layout.page_value_count(first + 1, page), 1);
        assert_eq!(layout.page_value_count(first, page), 0);
        assert_eq!(layout.block_bytes(first + 1), layout.page_bytes(page).end);
        assert_eq!(layout.value_offset(first), layout.page_bytes(page).start);
        assert_eq!(layout.page_bytes(page).len(), usize_of(layout.page(page).size));
        start += counts(page);
    }
    assert_eq!((layout.pages_used(0), layout.block_bytes(0)), (0, 256));
}

#[test]
fn layouts_of_impossible_sizes_are_none() {
    let check = |block, page, value| assert_eq!(ValueLayout::new(block, page, value), None);
    check(4096, 4096, 0);
    check(4096, 4096, 3840);
    check(4096, 8192, 16);
    check(6144, 4096, 16);
    check(8192, 3072, 16);
    check(2048, 2048, 16);
    check(65_536, 32_768, 16);
    check(2 << 20, 16_384, 16);
    check(0, 0, 0);
    check(u32::MAX, u32::MAX, u32::MAX);
    assert_eq!(ValueLayout::new(4096, 4096, 3824).unwrap().value_count_max, 1);
}

/// The figures of ADR 1.
#[test]
fn layout_of_the_default_geometry() {
    let layout = ValueLayout::new(65_536, 16_384, 144).unwrap();
    assert_eq!((layout.first.value_count_max, layout.rest.value_count_max), (109, 111));
    assert_eq!(layout.value_count_max, 442);
    let pairs = ValueLayout::new(65_536, 16_384, 16).unwrap();
    assert_eq!((pairs.first.value_count_max, pairs.rest.value_count_max), (858, 871));
}

/// Counts at and around the ends of pages.
#[test]
fn what_is_built_validates_and_is_found() {
    let layout = ValueLayout::new(16_384, 4096, 16).unwrap();
    let first = layout.first.value_count_max;
    let second = first + layout.rest.value_count_max;
    for count in [1, 2, first - 1, first, first + 1, second, second + 1, layout.value_count_max] {
        let sensors: Vec<u32> = (1..=count).map(|number| number * 2).collect();
        let mut block = vec![0xee; 16_384];
        let checksum = value_block(&mut block, &layout, &sensors);
        assert_eq!(validate(&block, &layout, &Reading::KEY), Ok(()), "{count}");
        let reference = crate::BlockRef { address: crate::testing::address(17), checksum };
        assert_eq!(verify(&block, &crate::Expect { reference, kind: BlockKind::Value }), Ok(()));
        let view = ValueBlockView::new(&block).unwrap();
        assert_eq!((view.value_count(), view.tombstone_count()), (count, count / 4));
        assert_eq!(crate::write_len(&block), layout.block_bytes(count));
        for sensor in 0..=2 * count + 1 {
            let expected = (sensor % 2 == 0 && sensor > 0).then(|| sensor / 2 - 1);
            assert_eq!(find(&view, sensor), expected, "{sensor} of {count}");
        }
        assert!(block[crate::write_len(&block)..].iter().all(|&byte| byte == 0xee));
    }
}

/// Index of a sensor's reading by hash slots, page by page.
fn find(view: &ValueBlockView<'_>, sensor: u32) -> Option<u32> {
    let key = reading(sensor).key();
    (0..view.page_count()).find_map(|number| {
        let page = view.page(number).unwrap();
        let index =
            page.probe(key.hash()).find(|&index| Reading::KEY.extract(page.value(index)) == key.encode())?;
        let in_block = view.layout().page_value_start(number) + u32_of(index);
        assert_eq!(page.is_tombstone(index), in_block % 4 == 3);
        let offset = view.layout().value_offset(in_block);
        assert_eq!(page.value(index), &view.block[offset..offset + 16]);
        Some(in_block)
    })
}

#[test]
fn halving_finds_the_first_value_not_before() {
    let values: Vec<u8> =
        [2_u32, 4, 6].iter().flat_map(|&sensor| reading(sensor).as_bytes().to_vec()).collect();
    let check = |sensor: u32, expected: u32| {
        let key = reading(sensor).key().encode();
        let found = partition_point(&values, 16, |value| {
            Reading::KEY.compare(&Reading::KEY.extract(value).0, &key.0).is_lt()
        });
        assert_eq!(found, expected, "{sensor}");
    };
    (0..=2).for_each(|sensor| check(sensor, 0));
    check(3, 1);
    check(4, 1);
    check(6, 2);
    check(7, 3);
}

/// Full pages whose hashes all fall into the same few slots: probing wraps around and still ends.
#[test]
fn probing_survives_the_worst_hashes() {
    let layout = PageLayout::new(4096, 16).unwrap();
    for hash_of in [|_| u64::MAX, |_| 0, |index: u64| index << 48 | 0xffff_ffff] {
        let mut bytes = vec![0xee; 4096];
        let mut builder = PageBuilder::new(&mut bytes, &layout);
        for index in 0..u64::from(layout.value_count_max) {
            builder.push(&mut bytes, &[1; 16], false, hash_of(index));
        }
        assert!(builder.is_full());
        builder.finish(&mut bytes);
        let view = PageView::new(&bytes, &layout, layout.value_count_max).unwrap();
        assert_eq!(view.validate_slots((0..u64::from(view.count())).map(hash_of)), Ok(()));
        for index in 0..u64::from(view.count()) {
            assert!(view.probe(hash_of(index)).any(|found| u64_of(found) == index));
        }
    }
    let all_set = vec![0xff; 4096];
    let view = PageView::unchecked(&all_set, &layout, layout.value_count_max).unwrap();
    assert_eq!(view.probe(u64::MAX).count(), 0);
    let ones: Vec<u8> = [1, 0].repeat(2048);
    let view = PageView::unchecked(&ones, &layout, 1).unwrap();
    assert_eq!(view.probe(0).count(), usize_of(layout.slot_count));
}

/// Each damage under a good checksum, and what `validate` says to it.
#[test]
fn validation_names_what_no_builder_writes() {
    fn check(damage: impl Fn(&mut [u8], &PageLayout), expected: &str) {
        let layout = crate::testing::layout();
        let mut block = vec![0; 4096];
        value_block(&mut block, &layout, &[5, 6, 8, 9, 20]);
        damage(&mut block, &layout.first);
        let error = validate(&block, &layout, &Reading::KEY).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let at = |offset: u32| 256 + usize_of(offset);
    check(|b, _| b[256 + 8] = 7, "block b17 page 0: key is 1, expected keys that ascend strictly");
    check(|b, _| b[256 + 24] = 5, "block b17 page 0: key is 1, expected keys that ascend strictly");
    check(|b, _| b[256 + 48] = 1, "block b17 page 0: tombstone is 3, expected a key and zeros");
    check(|b, _| b[256 + 80] = 1, "block b17 page 0: unused values is 1, expected zero");
    check(|b, l| b[at(l.bitmap_offset)] = 0x28, "block b17 page 0: tombstone bitmap is 1, expected 0");
    check(|b, l| b[at(l.bitmap_offset)] = 0, "bytes: tombstone_count is 1, expected 0");
    check(|b, _| b[128 + 16] = 9, "bytes: key_min is 0, expected the first key");
    check(|b, _| b[128 + 48] = 9, "bytes: key_max is 0, expected the last key");
    check(|b, _| b[128 + 80] = 9, "bytes: reserved is 9, expected zero");
    check(|b, _| b[128] = 0, "bytes: value_count is 0, expected at least 1");
    check(
        |b, _| b[128 + 8] = 0,
        "bytes: value_size is 0, expected sizes that give a layout, with `page_size`",
    );
    let used_slot = |block: &[u8], layout: &PageLayout| {
        let slots = at(layout.slots_offset)..at(layout.size);
        slots.step_by(2).find(|&at| block[at] != 0).unwrap()
    };
    check(
        |b, l| {
            let slot = used_slot(b, l);
            b[slot] = 0;
            b[slot + 1] = 0;
        },
        "block b17 page 0: hash slots is 4, expected 5",
    );
    check(
        |b, l| {
            let slot = used_slot(b, l);
            b[slot] = 6;
        },
        "block b17 page 0: hash slot is 6, expected at most 5",
    );
    let layout = crate::testing::layout();
    let mut block = vec![0; 4096];
    value_block(&mut block, &layout, &[5, 6, 8, 9, 20]);
    let slot = used_slot(&block, &layout.first);
    block[slot + 1] ^= 1;
    assert_eq!(validate(&block, &layout, &Reading::KEY).unwrap_err().field, "hash slot");
}

/// A page read alone is verified by the checksum that was handed out; the block by its header.
#[test]
fn page_checksums_are_handed_out() {
    let layout = ValueLayout::new(16_384, 4096, 16).unwrap();
    let sensors: Vec<u32> = (1..=layout.first.value_count_max + 3).collect();
    let mut block = vec![0; 16_384];
    let checksum = value_block(&mut block, &layout, &sensors);
    let mut pages = Vec::new();
    assert_eq!(seal(&mut block, |page, checksum| pages.push((page, checksum))), checksum);
    assert_eq!(crate::seal(&mut block), checksum);
    let expected = [(0, page_checksum(&block[256..4096])), (1, page_checksum(&block[4096..8192]))];
    assert_eq!(pages, expected);
    let concatenated: Vec<u8> = pages.iter().flat_map(|(_, checksum)| checksum.get().to_le_bytes()).collect();
    assert_eq!(crate::header(&block).unwrap().checksum_body.get(), Checksum::of(&concatenated).get());
}

#[test]
fn a_builder_tells_when_a_page_and_the_block_are_full() {
    let layout = ValueLayout::new(8192, 4096, 16).unwrap();
    let mut block = vec![0; 8192];
    let mut builder = ValueBlockBuilder::new(&mut block, &layout);
    let mut page_ends = Vec::new();
    for sensor in 1..=layout.value_count_max {
        assert!(!builder.is_full());
        let record = reading(sensor);
        if builder.push(&mut block, record.as_bytes(), false, record.key().hash()) {
            page_ends.push(sensor);
        }
    }
    assert!(builder.is_full());
    assert_eq!(page_ends, [layout.first.value_count_max, layout.value_count_max]);
    assert_eq!(
        (builder.page_count(), builder.value_count(), builder.tombstone_count()),
        (2, layout.value_count_max, 0)
    );
    let (key_min, key_max) = (reading(1).key().encode(), reading(layout.value_count_max).key().encode());
    builder.finish(&mut block, &placement(BlockKind::Value), key_min, key_max, |_, _| ());
    assert_eq!(validate(&block, &layout, &Reading::KEY), Ok(()));
}
