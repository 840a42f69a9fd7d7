//! A manifest by hand, and the edits it must refuse; against models in `crate::fuzz`.

use understory_format::{Beat, EditKind, ManifestEdit, TableInfo};

use super::Manifest;
use crate::testing::{edit, info, level, past, table};
use crate::{Direction, KeyRange, ManifestError, Table};

const LIVE: u64 = u64::MAX;

#[test]
fn a_replaced_wide_table_hides_nothing() {
    let mut manifest = Manifest::new(1, 1);
    manifest.insert(level(0), past(1, (0, 100), (1, 4)));
    for (address, min) in [(3, 0), (5, 50), (7, 90)] {
        manifest.insert(level(0), past(address, (min, min + 10), (5, LIVE)));
    }
    manifest.verify().unwrap();
    let found = |beat, min, max| -> Vec<(u32, u32)> {
        let range = KeyRange::new(min, max).unwrap();
        manifest.runs(level(0))[0]
            .range(range, beat, Direction::Ascending)
            .map(|t| (t.key_min, t.key_max))
            .collect()
    };
    assert_eq!(found(Beat::new(4), 20, 30), [(0, 100)]);
    assert_eq!(found(Beat::new(5), 20, 30), []);
    assert_eq!(found(Beat::MAX, 10, 50), [(0, 10), (50, 60)]);
    assert_eq!(found(Beat::MAX, 11, 49), []);
    assert_eq!(manifest.runs(level(0))[0].find(75, Beat::new(4)).map(|t| t.key_max), Some(100));
    assert_eq!(manifest.runs(level(0))[0].find(75, Beat::new(5)), None);
}

#[test]
fn tombstone_rule() {
    let mut manifest = Manifest::new(4, 1);
    manifest.insert(level(1), table(1, 0, 100, 1));
    manifest.insert(level(3), table(3, 10, 19, 1));
    manifest.insert(level(2), past(5, (0, 100), (1, 4)));
    for (target, min, max, keep) in [
        (0, 0, 0, true),
        (1, 0, 9, false),
        (1, 0, 10, true),
        (1, 19, 30, true),
        (1, 20, 30, false),
        (2, 15, 15, true),
        (3, 15, 15, false),
        (1, 9, 8, false),
    ] {
        assert_eq!(manifest.must_keep_tombstones(level(target), min, max), keep, "L{target} {min}..={max}");
    }
}

#[test]
fn edits_move_and_remove_tables() {
    let mut manifest = Manifest::<u32>::new(3, 1);
    let (moved, gone) = (info(1, 0, 9, 5), info(3, 20, 29, 7));
    manifest.apply_own(&edit(EditKind::Insert, 0, moved));
    manifest.apply_own(&edit(EditKind::Insert, 0, gone));
    manifest.apply_own(&edit(EditKind::Update, 1, moved));
    manifest.apply_own(&edit(EditKind::Remove, 0, gone));
    manifest.verify().unwrap();
    assert_eq!(manifest.table_count(level(0)), 0);
    assert_eq!(manifest.value_count(level(1)), 5);
    assert_eq!(manifest.key_range(level(0)), None);
    assert_eq!(manifest.key_range(level(1)), KeyRange::new(0, 9));
    let mut same = Manifest::<u32>::new(3, 1);
    for (kind, number, info) in [
        (EditKind::Update, 0, moved),
        (EditKind::Insert, 0, gone),
        (EditKind::Remove, 0, gone),
        (EditKind::Update, 1, moved),
    ] {
        same.apply(&edit(kind, number, info)).unwrap();
    }
    assert!(same.tables().eq(manifest.tables()));
}

/// Applies the edits one by one and all at once: both must refuse, naming the field.
fn check_refused(edits: &[ManifestEdit], field: &str) {
    let mut manifest = Manifest::<u32>::new(2, 1);
    let refused = edits.iter().find_map(|edit| {
        let before = manifest.clone();
        let error = manifest.apply(edit).err()?;
        assert!(before.tables().eq(manifest.tables()), "a refused edit changes nothing");
        Some(error)
    });
    assert_eq!(refused.expect("some edit is refused").field, field);
    manifest.verify().unwrap();
}

#[test]
fn damaged_edits_are_refused() {
    use EditKind::{Insert, Remove, Update};
    let good = info(1, 10, 19, 5);
    check_refused(&[edit(Insert, 2, good)], "edit.level");
    check_refused(&[edit(Insert, 63, good)], "edit.level");
    check_refused(&[edit(Insert, 0, good), edit(Insert, 1, good)], "edit.kind");
    check_refused(&[edit(Remove, 0, good)], "edit.kind");
    check_refused(&[edit(Insert, 0, good), edit(Remove, 1, good)], "edit.kind");
    check_refused(&[edit(Insert, 0, good), edit(Insert, 0, info(3, 19, 19, 1))], "table.key_min");
    check_refused(&[edit(Insert, 0, good), edit(Insert, 0, info(3, 0, 10, 1))], "table.key_min");
    check_refused(
        &[edit(Insert, 0, good), edit(Insert, 1, info(3, 0, 10, 1)), edit(Update, 1, good)],
        "table.key_min",
    );
    check_refused(
        &[edit(Insert, 0, TableInfo { key_min: good.key_max, key_max: good.key_min, ..good })],
        "table.key_max",
    );
    check_refused(&[edit(Insert, 0, TableInfo { value_count: 0, ..good })], "table.value_count");
    check_refused(&[edit(Insert, 0, TableInfo { value_count: u64::MAX, ..good })], "table.value_count");
    check_refused(&[edit(Insert, 0, TableInfo { tombstone_count: 6, ..good })], "table.tombstone_count");
    check_refused(&[edit(Insert, 0, TableInfo { value_block_count: 0, ..good })], "table.value_block_count");
    check_refused(&[edit(Insert, 0, TableInfo { value_block_count: 6, ..good })], "table.value_count");
    let beat_max = Beat::new(0);
    check_refused(&[edit(Insert, 0, TableInfo { beat_max, ..good })], "table.beat_max");
    let mut dirty = good;
    dirty.key_max.0[4] = 1;
    check_refused(&[edit(Insert, 0, dirty)], "table.key");
}

#[test]
fn sums_that_do_not_fit_are_refused() {
    let blocks = u32::MAX;
    let huge = |address: u64, key: u32| {
        let value_count = u64::from(blocks) << 20;
        TableInfo { value_count, value_block_count: blocks, ..info(address, key, key, 1) }
    };
    let edits: Vec<_> =
        (0..4097).map(|key| edit(EditKind::Insert, 0, huge(u64::from(2 * key) + 1, key))).collect();
    check_refused(&edits, "level.value_count");
    assert_eq!(Manifest::<u32>::load(2, 1, edits).unwrap_err().field, "level.value_count");
}

#[test]
fn loads_of_damaged_edits_are_refused() {
    let load = |edits: &[ManifestEdit]| Manifest::<u32>::load(2, 1, edits.iter().copied()).unwrap_err().field;
    let good = info(1, 10, 19, 5);
    assert_eq!(load(&[edit(EditKind::Remove, 0, good)]), "edit.kind");
    assert_eq!(load(&[edit(EditKind::Insert, 2, good)]), "edit.level");
    assert_eq!(load(&[edit(EditKind::Insert, 0, good), edit(EditKind::Insert, 1, good)]), "table.index");
    let twin = TableInfo { index: info(2, 0, 0, 1).index, ..info(2, 0, 0, 1) };
    assert_eq!(load(&[edit(EditKind::Insert, 0, good), edit(EditKind::Insert, 1, twin)]), "table.index");
    let overlapping = [edit(EditKind::Insert, 0, good), edit(EditKind::Update, 0, info(3, 0, 10, 1))];
    assert_eq!(load(&overlapping), "table.key_min");
    let touching = [edit(EditKind::Insert, 0, good), edit(EditKind::Update, 0, info(3, 0, 9, 1))];
    Manifest::<u32>::load(2, 1, touching).unwrap();
}

#[test]
fn overlaps_of_replaced_tables_are_found() {
    let check = |tables: &[Table<u32>], expected: bool| {
        let edits = tables.iter().map(|table| edit(EditKind::Insert, 0, table.info));
        assert_eq!(Manifest::<u32>::load(1, 1, edits).is_ok(), expected, "{tables:?}");
    };
    // Same keys at beats that follow each other, and at beats that share one.
    check(&[past(1, (0, 9), (1, 4)), past(3, (0, 9), (5, 8)), past(5, (0, 9), (9, LIVE))], true);
    check(&[past(1, (0, 9), (1, 4)), past(3, (0, 9), (4, 8)), past(5, (0, 9), (9, LIVE))], false);
    check(&[past(1, (0, 9), (1, 9)), past(3, (0, 9), (5, 8))], false);
    check(&[past(1, (0, 9), (5, 8)), past(3, (5, 12), (1, 9))], false);
    // A wide past table among narrow ones, last in the order of key_max.
    check(&[past(1, (0, 99), (1, 4)), past(3, (0, 9), (5, 8)), past(5, (90, 98), (5, LIVE))], true);
    check(&[past(1, (0, 99), (1, 5)), past(3, (0, 9), (5, 8)), past(5, (90, 98), (6, LIVE))], false);
    // Two tables with one key in common, and none.
    check(&[past(1, (0, 9), (1, 4)), past(3, (9, 9), (4, 4))], false);
    check(&[past(1, (0, 9), (1, 4)), past(3, (10, 10), (4, 4))], true);
}

#[test]
fn verify_names_what_is_wrong() {
    let mut manifest = Manifest::new(1, 1);
    manifest.insert(level(0), table(1, 0, 9, 5));
    let duplicate = Manifest { levels: vec![manifest.levels[0].clone(); 2], ..manifest.clone() };
    let address = table(1, 0, 9, 5).info.index.address;
    assert_eq!(duplicate.verify(), Err(ManifestError::Duplicate { level: level(1), table: address }));
}

#[test]
#[should_panic(expected = "do not overlap")]
fn own_overlaps_are_asserted() {
    let mut manifest = Manifest::new(1, 1);
    manifest.insert(level(0), table(1, 0, 9, 5));
    manifest.insert(level(0), table(3, 9, 9, 5));
}

#[test]
#[should_panic(expected = "only the last beat")]
fn own_updates_change_the_last_beat_only() {
    let mut manifest = Manifest::new(1, 1);
    manifest.insert(level(0), table(1, 0, 9, 5));
    manifest.update(level(0), level(0), table(1, 0, 9, 6));
}
