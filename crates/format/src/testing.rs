//! Fixed inputs for the tests of this crate: one valid block of every kind, tiny, and the helper for expectations.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::*;

/// A record with a key of two fields that do not stand first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Reading {
    pub(crate) value: U64,
    pub(crate) sensor: U32,
    pub(crate) site: [u8; 4],
}
record! { Reading: "readings", key = { site: [u8; 4], sensor: U32 } }

pub(crate) fn reading(sensor: u32) -> Reading {
    Reading { value: U64::new(u64::from(sensor) * 3), sensor: sensor.into(), site: *b"west" }
}

pub(crate) const BLOCK_SIZE: usize = 4096;
pub(crate) const KEY_SIZE: usize = 8;

pub(crate) fn layout() -> ValueLayout {
    ValueLayout::new(4096, 4096, 16).unwrap()
}

pub(crate) fn address(address: u64) -> BlockAddress {
    BlockAddress::new(address).unwrap()
}

pub(crate) fn twin_ref(at: u64) -> TwinRef {
    TwinRef { address: address(at), twin: address(at + 1), checksum: Checksum::of(&at.to_le_bytes()) }
}

pub(crate) fn placement(kind: BlockKind) -> Placement {
    Placement {
        address: address(17),
        twin: kind.is_twin().then(|| address(18)),
        tree: kind.has_tree().then(|| TreeId::new(3).unwrap()),
        beat: Beat::new(40),
    }
}

pub(crate) fn table_info() -> TableInfo {
    TableInfo {
        tree: TreeId::new(3).unwrap(),
        index: twin_ref(70),
        key_min: reading(5).key().encode(),
        key_max: reading(90).key().encode(),
        value_count: 12,
        tombstone_count: 2,
        value_block_count: 3,
        beat_min: Beat::new(33),
        beat_max: Beat::MAX,
        age: Beat::new(31),
    }
}

pub(crate) fn edits() -> Vec<ManifestEdit> {
    let insert = ManifestEdit { kind: EditKind::Insert, level: Level::ZERO, table: table_info() };
    let moved = ManifestEdit { kind: EditKind::Update, level: Level::new(1).unwrap(), ..insert };
    let mut remove = ManifestEdit { kind: EditKind::Remove, ..moved };
    remove.table.beat_max = Beat::new(39);
    vec![insert, moved, remove]
}

pub(crate) fn trees() -> Vec<TreeDescription> {
    let readings = TreeDescription::of::<Reading>(TreeId::new(3).unwrap(), Usage::General);
    let name = TreeName::new("by_site").unwrap();
    vec![
        readings,
        TreeDescription { id: TreeId::new(4).unwrap(), name, usage: Usage::SecondaryIndex, ..readings },
    ]
}

/// A value block with these sensors; every fourth value is a tombstone.
pub(crate) fn value_block(block: &mut [u8], layout: &ValueLayout, sensors: &[u32]) -> Checksum {
    let mut builder = ValueBlockBuilder::new(block, layout);
    for (index, &sensor) in sensors.iter().enumerate() {
        let tombstone = index % 4 == 3;
        let record = if tombstone { Reading::tombstone(reading(sensor).key()) } else { reading(sensor) };
        builder.push(block, record.as_bytes(), tombstone, record.key().hash());
    }
    let (first, last) = (*sensors.first().unwrap(), *sensors.last().unwrap());
    let (key_min, key_max) = (reading(first).key().encode(), reading(last).key().encode());
    builder.finish(block, &placement(BlockKind::Value), key_min, key_max, |_, _| ())
}

fn index_block(block: &mut [u8]) -> Checksum {
    let mut encoder = IndexEncoder::new(&layout(), KEY_SIZE);
    for (index, (first, last)) in [(5, 20), (21, 60), (80, 90)].into_iter().enumerate() {
        let number = u64_of(index);
        encoder.page(block, reading(last).key().encode().get(), Checksum::of(&number.to_le_bytes()));
        let reference = twin_ref(100 + 2 * number).first();
        encoder.value_block(
            block,
            reference,
            4 + u32_of(index),
            u32_of(index),
            &reading(first).key().encode().0,
        );
    }
    encoder.finish_with(block, &placement(BlockKind::Index), 1, &[twin_ref(120).first()])
}

fn filter_block(block: &mut [u8]) -> Checksum {
    let layout = FilterLayout::new(4096, 10, 100).unwrap();
    let mut blocks = [block];
    let mut builder = FilterBuilder::new(&layout, &mut blocks);
    (0..40).for_each(|sensor| builder.add(&mut blocks, reading(sensor).key().hash()));
    assert_eq!(builder.fold(&mut blocks), 1);
    builder.finish(0, blocks[0], &placement(BlockKind::Filter))
}

fn trailer_block(block: &mut [u8]) -> Checksum {
    let bytes: Vec<u8> = (0..100).map(|at| if at % 10 < 6 { 0 } else { at }).collect();
    let total_size = 3840 + 100;
    let chunk = trailer::Chunk { previous: Some(twin_ref(50)), index: 1, count: 2, total_size };
    trailer::encode(block, &placement(BlockKind::FreeSet), &chunk, &bytes)
}

/// A valid block and what a reference to it expects.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    pub(crate) block: Vec<u8>,
    pub(crate) expect: Expect,
}

/// One valid block of this kind. What is behind the written bytes is not zero, as on a disk.
pub(crate) fn fixture(kind: BlockKind) -> Fixture {
    let mut block = vec![0xee; BLOCK_SIZE];
    let place = placement(kind);
    let checksum = match kind {
        BlockKind::Index => index_block(&mut block),
        BlockKind::Value => value_block(&mut block, &layout(), &[5, 6, 8, 9, 20]),
        BlockKind::Manifest => manifest_block::encode(&mut block, &place, Some(twin_ref(60)), 7, &edits()),
        BlockKind::FreeSet => trailer_block(&mut block),
        BlockKind::Filter => filter_block(&mut block),
        BlockKind::Catalogue => catalogue::encode(&mut block, &place, &trees()),
    };
    Fixture { block, expect: Expect { reference: BlockRef { address: address(17), checksum }, kind } }
}

pub(crate) fn superblock() -> Superblock {
    let checkpoint = CheckpointState {
        geometry: Geometry::small(),
        fingerprint: fingerprint(&trees()),
        number: 2,
        parent: Checksum::of(b"checkpoint 1"),
        beat: Beat::new(40),
        op_checkpoint: Op::new(991),
        op_flushed: Op::new(900),
        charge_total: 4096 * 991,
        rolling_hash: Checksum::of(b"rolling hash"),
        catalogue: twin_ref(1),
        manifest: ManifestRoot { oldest: Some(twin_ref(60)), newest: Some(twin_ref(62)), block_count: 2 },
        free_set: FreeSetRoot {
            last: Some(twin_ref(64)),
            size: 100,
            checksum: Checksum::of(b"free set"),
            block_count: 1,
        },
        block_count_max: 120,
    };
    let local = LocalState {
        sequence: 9,
        parent: Checksum::of(b"superblock 8"),
        incarnation: 3,
        journal_position: 8192,
        journal_hash: Checksum::of(b"journal"),
        head_op: Op::new(1000),
        head_hash: Checksum::of(b"head"),
        scrub: Some(ScrubCursor {
            tree: TreeId::new(3).unwrap(),
            level: Level::new(1).unwrap(),
            key: reading(8).key().encode(),
        }),
        quarantine: Some(twin_ref(110)),
        size_limit: 1 << 30,
        diverged_since: Some(Beat::new(36)),
        salvaged_op: Op::new(700),
        salvage_count: 2,
    };
    Superblock { checkpoint, local }
}

/// Decodes all that can be decoded of a block, with every decoder of its kind.
pub(crate) fn decode_all(block: &[u8], kind: BlockKind) -> Result<(), Corruption> {
    let header = header(block)?;
    header.placement()?;
    match kind {
        BlockKind::Index => decode_index(block),
        BlockKind::Value => {
            let view = ValueBlockView::new(block)?;
            for page in 0..view.page_count() {
                let page = view.page_unchecked(page);
                for hash in 0..64 {
                    page.probe(hash << 58 | hash << 24)
                        .for_each(|index| assert!(index < usize_of(page.count())));
                }
            }
            value::validate(block, &layout(), &Reading::KEY)
        }
        BlockKind::Manifest => ManifestBlockView::new(block)?.edits().try_for_each(|edit| edit.map(|_| ())),
        BlockKind::FreeSet => TrailerView::new(block).map(|_| ()),
        BlockKind::Filter => FilterView::new(block).map(|view| assert!(!view.lines().is_empty())),
        BlockKind::Catalogue => {
            assert!(CatalogueView::new(block)?.trees().all(|tree| tree.value_size > 0));
            Ok(())
        }
    }
}

fn decode_index(block: &[u8]) -> Result<(), Corruption> {
    let view = IndexView::unchecked(block, KEY_SIZE)?;
    for sensor in [0, 5, 20, 21, 61, 79, 90, 91] {
        let key = reading(sensor).key();
        let page = view.page_of(key);
        assert_eq!(page, view.page_of_bytes(&Reading::KEY, &key.encode().0));
        let Some(page) = page else { continue };
        let index = view.block_of_page(page);
        let _key_max = view.key_max_bytes(index);
        if let Ok(entry) = view.checked_entry(index, &layout()) {
            assert!(entry.page_start + entry.page_count <= view.page_count());
        }
    }
    let view = IndexView::new(block, KEY_SIZE)?;
    view.validate_order(&Reading::KEY)?;
    for (entry, index) in view.entries().zip(0..) {
        assert_eq!(view.checked_entry(index, &layout()), Ok(entry));
        for page in entry.page_start..entry.page_start + entry.page_count {
            assert_eq!(view.block_of_page(page), index);
            let _checksum = view.page_checksum(page);
        }
    }
    assert!(view.key_min() != KeyBytes::ZERO || view.key_max() != KeyBytes::ZERO || view.value_count() == 1);
    Ok(())
}

/// Gives a damaged block good checksums again, as far as there are any to compute; the new reference.
pub(crate) fn reseal(block: &mut [u8], kind: BlockKind) -> Expect {
    let size = usize_of(block::header_raw(block).unwrap().size.get());
    let plain = Checksum::of(block.get(HEADER_SIZE..size).unwrap_or_default());
    let body = match value::checksum_body(block, |_, _| ()) {
        Ok(body) if kind == BlockKind::Value => body,
        _ => plain,
    };
    let checksum = block::seal_header(block, body);
    Expect { reference: BlockRef { address: address(17), checksum }, kind }
}

/// Asserts that `text` is the expectation `name`; the only way in which this crate uses insta.
pub(crate) fn assert_expectation(name: &str, text: &str) {
    let mut settings = insta::Settings::new();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path("../expectations");
    settings.bind(|| insta::assert_snapshot!(name, text));
}
