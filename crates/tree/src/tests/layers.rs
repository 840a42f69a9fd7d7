//! Every way in which a key can be in the layers of a tree, and what a reader sees of it.

use understory_format::{Beat, Direction, Geometry, Level};
use understory_manifest::Run;
use understory_testkit::{Pair, Posting, TestRecord};

use super::Rig;

/// What a layer has of a key: nothing, a value, a tombstone.
const STATES: u64 = 3;
/// Deepest first: level 2, level 1, level 0, the immutable memtable, closed beats, the open beat. With level 0 in
/// runs, the first three are level 1 and two runs.
const LAYERS: u32 = 6;

/// What layer `layer` has of the key with this number.
fn state(number: u64, layer: u32) -> u64 {
    number / STATES.pow(layer) % STATES
}

fn fill<R: TestRecord>(rig: &mut Rig<R>, layer: u32, key_of: impl Fn(u64) -> R::Key) {
    for number in 0..STATES.pow(LAYERS) {
        match state(number, layer) {
            0 => {}
            1 => rig.put(key_of(number)),
            _ => rig.remove(key_of(number)),
        }
    }
}

/// A tree in which the keys of all numbers are in all layers in all ways.
fn layered<R: TestRecord>(geometry: Geometry, key_of: impl Fn(u64) -> R::Key + Copy) -> Rig<R> {
    let geometry = Geometry { share_size: 1 << 20, ..geometry };
    let mut rig = Rig::<R>::new(geometry);
    // Below everything, so that tombstones stay.
    (0..STATES.pow(LAYERS)).for_each(|number| rig.put(key_of(number)));
    rig.end_bar();
    let depths = if geometry.runs_max > 1 { [2, 1, 0, 0] } else { [3, 2, 1, 0] };
    (0..=depths[0]).for_each(|target| rig.push(target));
    for (layer, depth) in (0..).zip(depths.into_iter().skip(1)) {
        fill(&mut rig, layer, key_of);
        rig.end_bar();
        (0..=depth).for_each(|target| rig.push(target));
    }
    fill(&mut rig, 3, key_of);
    rig.end_bar();
    fill(&mut rig, 4, key_of);
    rig.close_beat();
    fill(&mut rig, 5, key_of);
    rig
}

fn check<R: TestRecord>(geometry: Geometry, key_of: impl Fn(u64) -> R::Key + Copy) {
    let rig = layered::<R>(geometry, key_of);
    let numbers = STATES.pow(LAYERS);
    let counts = |run: &Run<R::Key>| {
        let tables = || run.iter(Beat::MAX, Direction::Ascending).map(|table| table.info);
        (tables().map(|info| info.value_count).sum(), tables().map(|info| info.tombstone_count).sum())
    };
    let found: Vec<(u64, u64)> = rig.tree.manifest().sources().map(counts).collect();
    let layer = (numbers / 3 * 2, numbers / 3);
    assert_eq!(found[..4], [layer, layer, layer, (numbers, 0)]);
    assert_eq!(rig.tree.memtable_counts(), (numbers / 3 * 4, numbers / 3 * 2));
    for number in 0..numbers {
        let newest = (0..LAYERS).rev().map(|layer| state(number, layer)).find(|state| *state > 0);
        let is_seen = newest != Some(2);
        assert_eq!(rig.model.contains_key(&key_of(number)), is_seen, "the model has what is newest");
        rig.check_get(key_of(number));
    }
    rig.check_all();
    for number in (0..numbers).step_by(7) {
        for direction in [Direction::Ascending, Direction::Descending] {
            rig.check_scan(key_of(number), key_of(number), direction, usize::MAX);
            rig.check_scan(key_of(number), key_of(numbers - 1), direction, 5);
            rig.check_scan(key_of(0), key_of(number), direction, 5);
        }
    }
}

#[test]
fn the_newest_layer_wins() {
    let small = Geometry::small();
    for geometry in [small, small.with_runs(2), small.with_runs(5), small.with_runs(3).with_filters(10)] {
        check::<Pair>(geometry, |number| 1_000 + 3 * number);
        check::<Posting>(geometry, |number| {
            ([1, u8::try_from(number / 100).unwrap()], u128::from(number % 100))
        });
    }
}

/// While the flush runs, and when it is applied, nobody sees a difference.
#[test]
fn values_are_seen_all_the_way_down() {
    check_way_down(Geometry::small());
    check_way_down(Geometry::small().with_runs(2));
    check_way_down(Geometry::small().with_runs(4));
}

fn check_way_down(geometry: Geometry) {
    let mut rig = layered::<Pair>(geometry, |number| 1_000 + 3 * number);
    // The mutable memtable has to wait for the immutable one, so take that first.
    for target in [0, 1, 2, 3, 4, 5, 6] {
        for mut job in rig.jobs(target, 0) {
            while job.remaining() > 0 {
                let quota = job.remaining().min(301);
                rig.run(&mut *job, quota);
                rig.check_all();
            }
            rig.apply(job);
            rig.check_all();
        }
        if target == 0 {
            assert!(rig.tree.immutable().is_none());
        }
    }
    assert_eq!(rig.tree.level_stats(Level::new(0).unwrap()).table_count, 0);
}
