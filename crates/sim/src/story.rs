//! One seed: a scenario, some lives, a last look, and a twin.
//!
//! # Not here
//! A life: `life`.

use std::sync::Arc;

use fastrand::Rng;
use understory_io::SECTOR;

use crate::fault::{self, Rot};
use crate::handle::Tally;
use crate::scenario::{Scenario, Weather};
use crate::trace::{Trace, Violation};
use crate::twin;
use crate::verdict;
use crate::world::World;
use crate::zone::{Zone, Zones};

/// What a seed came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Tells this run from others.
    pub(crate) digest: u64,
    /// Steps of the simulation.
    pub(crate) steps: u64,
}

/// Runs a seed from its beginning to its end.
pub(crate) fn run(seed: u64, trace: &Arc<Trace>, tally: &Arc<Tally>) -> Result<Outcome, Violation> {
    let scenario = Scenario::new(seed);
    trace.note(&[seed], || scenario.to_string());
    let mut world = World::new(&scenario, Rng::with_seed(seed ^ 0x57_0127), trace, tally)?;
    for _ in 0..scenario.life_count {
        let triggers = fault::plan(&mut world.rng, scenario.weather);
        world.live(triggers)?;
        if world.is_lost {
            break;
        }
        if scenario.weather == Weather::Media && world.rng.u8(0..3) == 0 {
            rot_at_rest(&mut world);
        }
    }
    if !world.is_lost {
        finish(&mut world)?;
    }
    let (ring_end, checkpoints) = {
        let watch = world.watch.lock();
        (watch.ring_end(), watch.checkpoints().len())
    };
    let laps = ring_end.checked_div(scenario.geometry.journal_size).unwrap_or(0);
    tally.add("laps of the ring", laps);
    tally.add("checkpoints", understory_format::u64_of(checkpoints));
    if laps > 0 {
        tally.count("seeds whose ring wraps");
    }
    tally.count(match scenario.weather {
        Weather::Calm => "seeds, calm",
        Weather::Crashes => "seeds, crashes",
        Weather::Errors => "seeds, errors",
        Weather::Space => "seeds, space",
        Weather::Media => "seeds, media",
    });
    Ok(Outcome { digest: trace.digest(), steps: world.steps })
}

/// A last handle, without faults, and a twin that was never disturbed.
pub(crate) fn finish(world: &mut World<'_>) -> Result<(), Violation> {
    let Some((rig, database)) = world.open(Vec::new())? else { return Ok(()) };
    world.take_in(&rig, &database)?;
    let end = twin::End::of(&database);
    match database.checkpoint() {
        Ok(()) => {}
        Err(error) => {
            world.trace.note(&[11], || format!("the last checkpoint: {error}"));
            let _refusal = verdict::of_call(&error, &rig.tap.harm())?;
            world.tally.count("last checkpoint: failed");
            drop(database);
            world.put_away(rig);
            return Ok(());
        }
    }
    let end = end.with(&database);
    drop(database);
    world.put_away(rig);
    let kinds = world.watch.lock().take_kinds();
    world.book.lock().journaled(kinds);
    twin::compare(world, &end)
}

/// Bytes of the file change while nobody has it open.
fn rot_at_rest(world: &mut World<'_>) {
    let zone = match world.rng.u8(0..6) {
        0 => Zone::Superblock,
        1..=2 if world.harm.ring_places() == 0 => Zone::Ring,
        _ => Zone::Grid,
    };
    let size = understory_format::u64_of(world.image.len());
    let sector = understory_format::u64_of(SECTOR);
    let Some(range) = Zones::new(&world.scenario.geometry).range(zone, world.copy, size) else { return };
    let mut place = || {
        let sectors = (range.end - range.start) / sector;
        let offset = range.start + world.rng.u64(0..sectors.max(1)) * sector;
        usize::try_from(offset).expect("a simulated file is small")
    };
    let (at, other) = (place(), place());
    let rot = fault::rot(&mut world.rng);
    world.trace.note(&[12], || format!("-- at rest: {rot:?} at {at} and {other}, in {zone:?}"));
    let sector = |at: usize| at..at + SECTOR;
    let bytes_of = |at: usize| understory_format::u64_of(at)..understory_format::u64_of(at + SECTOR);
    let Some(bytes) = world.image.get_mut(sector(at)) else { return };
    match rot {
        Rot::Bit => {
            let byte = world.rng.usize(0..SECTOR);
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << world.rng.u8(0..8);
            }
        }
        Rot::Zero => bytes.fill(0),
        Rot::Swap => {
            let ours = bytes.to_vec();
            let theirs = world.image.get(sector(other)).map(<[u8]>::to_vec).unwrap_or_default();
            for (at, bytes) in [(at, theirs), (other, ours)] {
                if let Some(place) = world.image.get_mut(sector(at))
                    && place.len() == bytes.len()
                {
                    place.copy_from_slice(&bytes);
                }
            }
        }
    }
    world.tally.count("rot at rest");
    world.harm.change(bytes_of(at));
    if rot == Rot::Swap {
        world.harm.change(bytes_of(other));
    }
}
