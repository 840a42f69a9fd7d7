//! The same work gives the same checkpoints; other work gives others.

use fastrand::Rng;
use understory_format::{Checksum, Geometry};

use super::{Keys, Rig, geometry};

/// Where a run differs from the first.
#[derive(Clone, Copy, Default)]
struct Change {
    io_seed: u64,
    /// Drops the forest after each drain and opens the file again.
    reopens: bool,
    /// Puts one record more in this bar.
    extra_in_bar: Option<u64>,
    /// Puts the records of this bar a beat later, which is no other work: they meet in the same memtable.
    late_in_bar: Option<u64>,
    /// Empties level 0 in this bar.
    settles_in_bar: Option<u64>,
}

/// The checkpoint ids and rolling hashes of a workload.
fn run(geometry: Geometry, change: Change) -> Vec<(Checksum, Checksum)> {
    let mut rng = Rng::with_seed(77);
    let keys = Keys::new(&mut rng, 1_500);
    let mut rig = Rig::new(geometry, change.io_seed);
    let mut trace = Vec::new();
    for bar in 0..24 {
        if change.late_in_bar == Some(bar) {
            rig.close(false).unwrap();
        }
        rig.forest.set_settle(change.settles_in_bar == Some(bar));
        rig.put_some(&mut rng, &keys, 90, 3);
        if change.extra_in_bar == Some(bar) {
            let key = keys.pairs.keys()[0];
            rig.put::<understory_testkit::Pair>(key, false);
            // The count of ops is the same in both runs: it would tell them apart by itself.
            rig.model.op -= 1;
        }
        rig.close(false).unwrap();
        rig.put_some(&mut rng, &keys, 90, 3);
        let id = rig.close_bar(bar % 4 == 1);
        let note = |rig: &Rig, id| (id, rig.forest.grid().checkpoint_state().rolling_hash);
        trace.extend(id.map(|id| note(&rig, id)));
        if bar % 8 == 6 {
            let id = rig.drain();
            trace.push(note(&rig, id));
            if change.reopens {
                rig.reopen(bar);
            }
        }
    }
    rig.model.check(&rig.forest).unwrap();
    trace
}

#[test]
fn equal_work_gives_equal_checkpoints() {
    check_equal(geometry());
    check_equal(geometry().with_runs(3).with_filters(10));
}

fn check_equal(geometry: Geometry) {
    let run = |change| run(geometry, change);
    let expected = run(Change::default());
    assert_eq!(expected.len(), 9);
    assert!(expected.windows(2).all(|pair| pair[0].0 != pair[1].0 && pair[0].1 != pair[1].1));
    for io_seed in 1..4 {
        assert_eq!(run(Change { io_seed, ..Change::default() }), expected, "I/O order {io_seed}");
    }
    assert_eq!(run(Change { reopens: true, ..Change::default() }), expected, "opened again");
    assert_eq!(run(Change { late_in_bar: Some(8), ..Change::default() }), expected, "a beat later");
}

#[test]
fn other_work_gives_other_checkpoints() {
    check_other(geometry());
    check_other(geometry().with_runs(3).with_filters(10));
}

/// From the first checkpoint on that the change reaches, id and rolling hash differ, and go on to differ.
fn check_other(geometry: Geometry) {
    let run = |change| run(geometry, change);
    let expected = run(Change::default());
    let changes = [
        Change { extra_in_bar: Some(8), ..Change::default() },
        Change { settles_in_bar: Some(8), ..Change::default() },
    ];
    for change in changes {
        let found = run(change);
        let equal = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        assert!((2..5).contains(&equal), "{equal} checkpoints before the change");
        for (a, b) in found.iter().zip(&expected).skip(equal) {
            assert!(a.0 != b.0 && a.1 != b.1, "ids and hashes differ from then on");
        }
    }
}
