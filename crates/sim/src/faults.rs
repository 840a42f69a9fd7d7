//! Each kind of fault at each operation of a small workload that it can befall.
//!
//! # Not here
//! What the kinds are: `fault`.

use std::sync::Arc;

use fastrand::Rng;
use understory_io::IoCause;

use crate::fault::{Fault, Rot, Target, Trigger};
use crate::handle::Tally;
use crate::scenario::Scenario;
use crate::story;
use crate::sweep::{Swept, sweep};
use crate::trace::{Trace, Violation};
use crate::world::World;
use crate::zone::Zone;

/// Every kind; those beside an operation come once for it, whatever it is.
const FAULTS: [Fault; 23] = [
    Fault::Fail(IoCause::Os(5)),
    Fault::Lose,
    Fault::Flip,
    Fault::Misdirect(Zone::Superblock),
    Fault::Misdirect(Zone::Ring),
    Fault::Misdirect(Zone::Grid),
    Fault::MisdirectRead,
    Fault::Delay(20_000),
    Fault::Hang,
    Fault::Cut(Zone::Grid),
    Fault::Full(1),
    Fault::Full(30),
    Fault::Rot(Zone::Superblock, Rot::Bit),
    Fault::Rot(Zone::Superblock, Rot::Zero),
    Fault::Rot(Zone::Ring, Rot::Bit),
    Fault::Rot(Zone::Ring, Rot::Zero),
    Fault::Rot(Zone::Ring, Rot::Swap),
    Fault::Rot(Zone::Grid, Rot::Bit),
    Fault::Rot(Zone::Grid, Rot::Zero),
    Fault::Rot(Zone::Grid, Rot::Swap),
    Fault::Unreadable(Zone::Superblock),
    Fault::Unreadable(Zone::Ring),
    Fault::Unreadable(Zone::Grid),
];

/// Whether a fault can befall such an operation.
fn suits(fault: Fault, target: Target) -> bool {
    match fault {
        Fault::Lose | Fault::Misdirect(_) => matches!(target, Target::Write(_)),
        Fault::Flip => matches!(target, Target::Write(_) | Target::Read),
        Fault::MisdirectRead => target == Target::Read,
        Fault::Full(_) => target == Target::Grow,
        Fault::Crash(_)
        | Fault::Fail(_)
        | Fault::Rot(..)
        | Fault::Unreadable(_)
        | Fault::Delay(_)
        | Fault::Hang
        | Fault::Cut(_) => true,
    }
}

/// What was swept.
pub(crate) struct Faults {
    /// Operations of the workload.
    pub(crate) operations: usize,
    pub(crate) swept: Swept,
}

/// Every fault everywhere.
pub(crate) fn run(
    workers: usize,
    stride: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Faults, Violation> {
    let scenario = scenario();
    let tally = Arc::new(Tally::default());
    let mut world = world(&scenario, &tally)?;
    world.live(Vec::new())?;
    let operations = std::mem::take(&mut world.operations);
    let items: Vec<Trigger> = (0_u64..)
        .zip(&operations)
        .flat_map(|(at, target)| {
            let fitting = FAULTS.into_iter().filter(|fault| suits(*fault, *target));
            fitting.map(move |fault| Trigger { target: Target::Any, at, fault })
        })
        .collect();
    let count = understory_format::u64_of(items.len());
    let swept = sweep(count, stride, workers, progress, |item, tally| {
        let trigger = usize::try_from(item).ok().and_then(|item| items.get(item));
        visit(*trigger.expect("the sweep goes through the items"), tally)
    });
    Ok(Faults { operations: operations.len(), swept })
}

fn scenario() -> Scenario {
    Scenario::of_sweeps(2, 24, 12 << 10)
}

fn world<'a>(scenario: &'a Scenario, tally: &Arc<Tally>) -> Result<World<'a>, Violation> {
    World::new(scenario, Rng::with_seed(12), &Arc::new(Trace::quiet()), tally)
}

/// One fault, and then a look at what is left.
fn visit(trigger: Trigger, tally: &Arc<Tally>) -> Result<(), Violation> {
    let scenario = scenario();
    let mut world = world(&scenario, tally)?;
    world
        .live(vec![trigger])
        .and_then(|()| if world.is_lost { Ok(()) } else { story::finish(&mut world) })
        .map_err(|Violation(words)| Violation::new(format!("{trigger:?}: {words}")))?;
    tally.count(if world.is_lost { "files lost, and said so" } else { "files that opened again" });
    Ok(())
}
