//! The reads of a level, against a filter over a plain list of all its tables.

use fastrand::Rng;
use understory_format::{Beat, EditKind, Level, u64_of};
use understory_testkit::Coverage;

use crate::testing::{edit, level, past};
use crate::{Direction, KeyRange, Manifest, Table};

const LIVE: u64 = u64::MAX;
const SPACE: u32 = 48;

/// A random history of a level, and then every read of it, as several beats see it.
pub(super) fn run(seed: u64, coverage: &mut Coverage) {
    let mut rng = Rng::with_seed(seed);
    let mut manifest = Manifest::new(3, 1);
    let mut all: Vec<Table<u32>> = Vec::new();
    for step in 0_u64..60 {
        let min = rng.u32(0..SPACE);
        let max = (min + rng.u32(0..6)).min(SPACE - 1);
        let beat = step + 1;
        match rng.u8(0..10) {
            // A new live table: what it overlaps ends the beat before.
            0..7 => {
                let range = KeyRange::new(min, max).unwrap();
                for old in all.iter_mut().filter(|old| old.is_live() && old.range().overlaps(&range)) {
                    old.info.beat_max = Beat::new(beat - 1);
                    manifest.update(level(1), level(1), *old);
                }
                let new = past(2 * step + 1, (min, max), (beat, LIVE));
                manifest.insert(level(1), new);
                all.push(new);
            }
            // One goes, live or past.
            _ if !all.is_empty() => {
                let gone = all.swap_remove(rng.usize(0..all.len()));
                manifest.remove(level(1), &gone);
            }
            _ => {}
        }
    }
    manifest.verify().unwrap();
    for beat in [Beat::MAX, Beat::new(0), Beat::new(1), Beat::new(20), Beat::new(40), Beat::new(60)] {
        check_reads(&manifest, level(1), &all, beat, SPACE);
    }
    let live = all.iter().filter(|table| table.is_live());
    assert_eq!(manifest.table_count(level(1)), u64_of(live.clone().count()));
    assert_eq!(manifest.value_count(level(1)), live.map(|table| table.info.value_count).sum::<u64>());
    let edits = all.iter().map(|table| edit(EditKind::Update, 1, table.info));
    let loaded = Manifest::<u32>::load(3, 1, edits).unwrap();
    assert!(loaded.tables().eq(manifest.tables()));
    coverage.count(
        "tables that only earlier beats see",
        u64_of(all.iter().filter(|table| !table.is_live()).count()),
    );
}

/// All reads of one level, compared with a filter over all tables.
fn check_reads(manifest: &Manifest<u32>, level: Level, all: &[Table<u32>], beat: Beat, space: u32) {
    let mut seen: Vec<&Table<u32>> = all.iter().filter(|table| table.is_visible(beat)).collect();
    seen.sort_by_key(|table| table.key_min);
    assert!(manifest.iter(level, beat).eq(seen.iter().copied()));
    for key in 0..space {
        let expected = seen.iter().find(|table| table.range().contains(key)).copied();
        assert_eq!(manifest.runs(level)[0].find(key, beat), expected, "key {key} at {beat}");
    }
    for min in 0..space {
        for max in [min, min + 1, min + 5, min + 17, space] {
            let Some(range) = KeyRange::new(min, max) else { continue };
            let mut expected: Vec<_> =
                seen.iter().filter(|table| table.range().overlaps(&range)).copied().collect();
            for direction in [Direction::Ascending, Direction::Descending] {
                let found: Vec<_> = manifest.runs(level)[0].range(range, beat, direction).collect();
                assert_eq!(keys(&found), keys(&expected), "{range:?} {direction:?} at {beat}");
                check_next(manifest, level, range, beat, direction, &expected);
                expected.reverse();
            }
        }
    }
}

/// The walk without a borrow gives the same tables, and from any key on those strictly beyond it.
fn check_next(
    manifest: &Manifest<u32>,
    level: Level,
    range: KeyRange<u32>,
    beat: Beat,
    direction: Direction,
    expected: &[&Table<u32>],
) {
    let first = manifest.runs(level)[0].next_table(None, range, beat, direction);
    assert_eq!(first, expected.first().copied());
    for after in range.min().saturating_sub(2)..range.max() + 2 {
        let beyond = |table: &&&Table<u32>| match direction {
            Direction::Ascending => table.key_min > after,
            Direction::Descending => table.key_max < after,
        };
        let found = manifest.runs(level)[0].next_table(Some(after), range, beat, direction);
        assert_eq!(found, expected.iter().find(beyond).copied(), "{range:?} after {after} {direction:?}");
    }
}

fn keys(tables: &[&Table<u32>]) -> Vec<(u32, u32)> {
    tables.iter().map(|table| (table.key_min, table.key_max)).collect()
}
