//! Half-bars of jobs that do nothing but note what they are given.

use std::sync::{Arc, Mutex};

use understory_compaction::{Job, Outcome};
use understory_format::{Geometry, Level, TreeId};
use understory_grid::{FormatState, Grid, GridError, GridOptions, Reservation};
use understory_io::{Arena, Machine};
use understory_table::{Counts as Values, TableError};

use super::HalfBar;

/// A slice as a job saw it: whose, how much, and the addresses it drew.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    job: u16,
    quota: u64,
    addresses: Vec<u64>,
}

/// Needs two blocks for each value, and draws them all.
#[derive(Debug)]
struct Fake {
    id: u16,
    value_size: u64,
    size: u64,
    remaining: u64,
    /// Fails when so many values remain.
    fails_at: Option<u64>,
    grid: Arc<Grid>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Job for Fake {
    fn tree(&self) -> TreeId {
        TreeId::new(self.id).unwrap()
    }

    fn target(&self) -> Level {
        Level::new(2).unwrap()
    }

    fn value_size(&self) -> u64 {
        self.value_size
    }

    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn counts(&self) -> Values {
        let done = self.size - self.remaining;
        Values { consumed: done, emitted: done, dropped: 0 }
    }

    fn blocks_bound(&self, quota: u64) -> u64 {
        2 * quota
    }

    fn table_end_bound(&self) -> u64 {
        3
    }

    fn edits_bound(&self) -> u64 {
        1
    }

    fn run(&mut self, quota: u64, reservation: &mut Reservation) -> Result<(), TableError> {
        if self.fails_at == Some(self.remaining) {
            return Err(TableError::Grid(GridError::NoBuffers));
        }
        self.remaining -= quota;
        let addresses = (0..2 * quota).map(|_| self.grid.acquire(reservation).get()).collect();
        assert_eq!(reservation.left(), 0, "the reservation is what the job asked for");
        self.seen.lock().unwrap().push(Seen { job: self.id, quota, addresses });
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Outcome, TableError> {
        assert_eq!(self.remaining, 0);
        Ok(Outcome { consumed: u64::from(self.id), ..Outcome::default() })
    }
}

struct Scene {
    grid: Arc<Grid>,
    seen: Arc<Mutex<Vec<Seen>>>,
    half_bar: HalfBar,
}

impl Scene {
    /// A half-bar of jobs given by value size, values, and when they fail.
    fn new(jobs: &[(u64, u64, Option<u64>)]) -> Self {
        let (machine, _sim) = Machine::sim(1);
        let state = FormatState { geometry: Geometry::small(), trees: &[], size_limit: None };
        Grid::format(&machine, &state).unwrap();
        let options = GridOptions { block_count: 16, page_count: 0, read_only: false };
        let arena = Arena::new(options.arena_size(&state.geometry).unwrap()).unwrap();
        let grid = Arc::new(Grid::open(machine, &arena, options).unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let job = |(id, &(value_size, remaining, fails_at))| -> Box<dyn Job> {
            let (grid, seen) = (Arc::clone(&grid), Arc::clone(&seen));
            Box::new(Fake { id, value_size, size: remaining, remaining, fails_at, grid, seen })
        };
        let half_bar = HalfBar::new((1..).zip(jobs).map(job).collect(), Arc::default());
        Self { grid, seen, half_bar }
    }

    /// One beat; what the jobs saw of it.
    fn beat(&mut self, beats_left: u64) -> Result<Vec<Seen>, TableError> {
        self.half_bar.begin_beat(&self.grid, beats_left)?;
        self.half_bar.join(&self.grid)?;
        assert_eq!(self.grid.free_set().reservations(), 0, "what was reserved is given back");
        Ok(std::mem::take(&mut self.seen.lock().unwrap()))
    }
}

#[test]
fn jobs_are_run_in_order_with_addresses_in_order() {
    let mut scene = Scene::new(&[(10, 3, None), (20, 0, None), (30, 5, None), (10, 4, None)]);
    let first = scene.grid.space().highest + 1;
    let (mut quotas, mut addresses) = (Vec::new(), Vec::new());
    for beats_left in [3, 2, 1] {
        let seen = scene.beat(beats_left).unwrap();
        quotas.push(seen.iter().map(|seen| (seen.job, seen.quota)).collect::<Vec<_>>());
        addresses.extend(seen.into_iter().flat_map(|seen| seen.addresses));
    }
    assert_eq!(quotas, [vec![(1, 3), (3, 1), (4, 2)], vec![(3, 2), (4, 1)], vec![(3, 2), (4, 1)]]);
    assert!(addresses.iter().copied().eq(first..first + 24), "{addresses:?}");
    let finished = scene.half_bar.finish().unwrap();
    let order: Vec<_> = finished.iter().map(|job| (job.tree.get(), job.outcome.consumed)).collect();
    assert_eq!(order, [(1, 1), (2, 2), (3, 3), (4, 4)]);
    assert!(finished.iter().all(|job| job.target == Level::new(2).unwrap()));
}

#[test]
fn a_job_that_fails_ends_the_beat() {
    let mut scene = Scene::new(&[(10, 2, None), (10, 4, Some(2)), (10, 2, None)]);
    assert_eq!(scene.beat(2).unwrap().len(), 2);
    let error = scene.beat(1).unwrap_err();
    assert!(matches!(error, TableError::Grid(GridError::NoBuffers)), "{error}");
    assert_eq!(scene.grid.free_set().reservations(), 0, "what was reserved for them is given back");
}

#[test]
#[should_panic(expected = "the last beat of a half-bar takes all that is left")]
fn a_half_bar_is_not_finished_early() {
    let mut scene = Scene::new(&[(10, 2, None)]);
    scene.beat(2).unwrap();
    drop(scene.half_bar.finish());
}

#[test]
#[should_panic(expected = "the beat before was joined")]
fn a_beat_is_joined_before_the_next() {
    let mut scene = Scene::new(&[(10, 2, None)]);
    scene.half_bar.begin_beat(&scene.grid, 2).unwrap();
    scene.half_bar.begin_beat(&scene.grid, 1).unwrap();
}

#[test]
fn there_is_no_space_for_a_slice() {
    let mut scene = Scene::new(&[(1, 1, None), (1, 1 << 33, None)]);
    let error = scene.beat(1).unwrap_err();
    assert!(matches!(error, TableError::Grid(GridError::OutOfSpace { needed, .. }) if needed == 1 << 34));
}

#[test]
fn nothing_to_do() {
    let mut scene = Scene::new(&[]);
    assert!(scene.beat(1).unwrap().is_empty());
    assert!(scene.half_bar.finish().unwrap().is_empty());
}
