use super::*;
use crate::testing::{edits, placement, twin_ref};

#[test]
fn what_is_encoded_is_decoded() {
    let mut block = vec![0xee; 4096];
    let most = usize_of(capacity(4096));
    assert_eq!((most, capacity(65_536)), (24, 408));
    for (count, previous) in [(1, None), (3, Some(twin_ref(60))), (most, None)] {
        let edits: Vec<ManifestEdit> = edits().into_iter().cycle().take(count).collect();
        encode(&mut block, &placement(BlockKind::Manifest), previous, 7, &edits);
        let view = ManifestBlockView::new(&block).unwrap();
        assert_eq!((view.previous(), view.sequence(), usize_of(view.entry_count())), (previous, 7, count));
        assert_eq!(view.edits().collect::<Result<Vec<_>, _>>().unwrap(), edits);
        assert!(view.edits().rev().map(Result::unwrap).eq(edits.iter().copied().rev()));
        assert_eq!(view.edit(u32_of(count - 1)).as_ref(), Ok(&edits[count - 1]));
    }
}

#[test]
fn errors_say_what_is_wrong() {
    fn check(damage: impl Fn(&mut ManifestRecord), expected: &str) {
        let mut record = ManifestRecord::encode(&edits()[0]);
        assert_eq!(record.decode().as_ref(), Ok(&edits()[0]));
        damage(&mut record);
        assert_eq!(record.decode().unwrap_err().to_string(), format!("bytes: {expected}"));
    }
    check(|r| r.kind = 0, "kind is 0, expected an event, 1 to 3");
    check(|r| r.kind = 4, "kind is 4, expected an event, 1 to 3");
    check(|r| r.level = 64, "level is 64, expected at most 63");
    check(|r| r.tree_id = 0.into(), "tree_id is 0, expected at least 1");
    check(|r| r.value_block_count = 0.into(), "value_block_count is 0, expected at least 1");
    check(|r| r.value_count = 2.into(), "value_count is 2, expected at least 3");
    check(|r| r.tombstone_count = 13.into(), "tombstone_count is 13, expected at most 12");
    check(|r| r.beat_max = 32.into(), "beat_min is 33, expected at most 32");
    check(|r| r.reserved[15] = 1, "reserved is 1, expected zero");
    check(|r| r.index = TwinRefWire::NONE, "address is 0, expected an address, from 1");
    check(|r| r.index.twin = 0.into(), "address is 70, expected zero");
    check(|r| r.index.address = 0.into(), "twin is 71, expected zero");
    check(|r| r.index.twin = r.index.address, "twin is 70, expected another address than the first");
}

#[test]
fn counts_and_sizes_go_together() {
    fn check(damage: impl Fn(&mut ManifestMetadata), expected: &str) {
        let mut block = vec![0; 4096];
        encode(&mut block, &placement(BlockKind::Manifest), None, 7, &edits());
        damage(ManifestMetadata::mut_from_prefix(&mut block[128..]).unwrap().0);
        let error = ManifestBlockView::new(&block).unwrap_err();
        assert_eq!(error.to_string(), format!("bytes: {expected}"));
    }
    check(|m| m.entry_count = 0.into(), "entry_count is 0, expected at least 1");
    check(|m| m.entry_count = 2.into(), "size is 736, expected 576");
    check(|m| m.entry_count = u32::MAX.into(), "size is 736, expected 687194767456");
    check(|m| m.sequence = 0.into(), "sequence is 0, expected at least 1");
    check(|m| m.previous.twin = 1.into(), "twin is 1, expected zero");
    check(|m| m.reserved[0] = 1, "reserved is 1, expected zero");
}
