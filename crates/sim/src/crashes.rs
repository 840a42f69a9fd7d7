//! A crash at each storage operation of a small workload, with each class of what may be left of unsynced sectors; and
//! of the recovery from it, a crash at each operation again.
//!
//! # Not here
//! What a crash keeps: `CrashPolicy` of the simulated storage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;
use understory_format::{Checksum, u64_of};
use understory_io::CrashPolicy;

use crate::fault::{Fault, Target, Trigger};
use crate::handle::Tally;
use crate::scenario::Scenario;
use crate::story;
use crate::sweep::{Part, Swept, sweep};
use crate::trace::{Trace, Violation};
use crate::world::World;

/// Random subsets beside the classes, for each operation.
const SUBSETS: u64 = 6;

/// One of so many crashes is followed by crashes in the recovery.
const AGAIN_STRIDE: u64 = 7;

/// Operations of a recovery that are crashed at.
const AGAIN_MAX: u64 = 40;

/// What was swept.
pub(crate) struct Crashes {
    /// Operations of the workload.
    pub(crate) operations: u64,
    /// Ways to crash at each.
    pub(crate) policies: usize,
    /// Different images that crashes left.
    pub(crate) images: usize,
    /// What the workload itself came through.
    pub(crate) baseline: BTreeMap<&'static str, u64>,
    /// Laps of the ring.
    pub(crate) laps: u64,
    /// Checkpoints of the workload.
    pub(crate) checkpoints: usize,
    pub(crate) swept: Swept,
}

/// Crashes everywhere.
pub(crate) fn run(
    workers: usize,
    part: Part,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Crashes, Violation> {
    let tally = Arc::new(Tally::default());
    let scenario = scenario();
    let mut world = world(&scenario, &tally)?;
    world.live(Vec::new())?;
    let operations = u64_of(world.operations.len());
    let (laps, checkpoints) = {
        let watch = world.watch.lock();
        (watch.ring_end() / scenario.geometry.journal_size, watch.checkpoints().len())
    };
    let policies = policies();
    let images = Mutex::new(BTreeSet::new());
    let ways = u64_of(policies.len());
    let swept = sweep(operations * ways, part, workers, progress, |item, tally| {
        let (operation, number) = (item / ways, item % ways);
        let policy = usize::try_from(number).ok().and_then(|number| policies.get(number));
        let policy = *policy.expect("the sweep goes through operations and policies");
        visit(operation, policy, item, tally, &images).map(|()| None)
    });
    let images = images.into_inner().len();
    let policies = policies.len();
    Ok(Crashes { operations, policies, images, baseline: tally.counts(), laps, checkpoints, swept })
}

fn scenario() -> Scenario {
    Scenario::of_sweeps(2, 30, 12 << 10)
}

fn world<'a>(scenario: &'a Scenario, tally: &Arc<Tally>) -> Result<World<'a>, Violation> {
    World::new(scenario, Rng::with_seed(11), &Arc::new(Trace::quiet()), tally)
}

fn policies() -> Vec<CrashPolicy> {
    let subsets = (0..SUBSETS).map(CrashPolicy::KeepSubset);
    CrashPolicy::CLASSES.into_iter().chain(subsets).collect()
}

fn crash(operation: u64, policy: CrashPolicy) -> Vec<Trigger> {
    // What is drawn for a subset differs by operation.
    let policy = if let CrashPolicy::KeepSubset(number) = policy {
        CrashPolicy::KeepSubset(number + operation * SUBSETS)
    } else {
        policy
    };
    vec![Trigger { target: Target::Any, at: operation, fault: Fault::Crash(policy) }]
}

/// Crashes once, looks at what is left, goes on, and compares with a twin.
fn visit(
    operation: u64,
    policy: CrashPolicy,
    item: u64,
    tally: &Arc<Tally>,
    images: &Mutex<BTreeSet<u128>>,
) -> Result<(), Violation> {
    let scenario = scenario();
    let mut world = world(&scenario, tally)?;
    world.live(crash(operation, policy))?;
    images.lock().insert(Checksum::of(&world.image).get());
    if item.is_multiple_of(AGAIN_STRIDE) {
        again(&mut world, policy, images)?;
    }
    story::finish(&mut world)
}

/// Crashes at each operation of the recovery, one after the other: each begins with what the last one left.
fn again(
    world: &mut World<'_>,
    policy: CrashPolicy,
    images: &Mutex<BTreeSet<u128>>,
) -> Result<(), Violation> {
    for operation in 0..AGAIN_MAX {
        if let Some((rig, database)) = world.open(crash(operation, policy))? {
            // The recovery was over before.
            world.take_in(&rig, &database)?;
            drop(database);
            world.put_away(rig);
            return Ok(());
        }
        world.tally.count("crashes in a recovery");
        images.lock().insert(Checksum::of(&world.image).get());
    }
    Ok(())
}
