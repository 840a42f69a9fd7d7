//! Each kind of fault at each operation that it can befall: of a small workload, and of opening what it left when its
//! process was killed.
//!
//! # Not here
//! What the kinds are: `fault`.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use understory_io::IoCause;

use crate::fault::{Fault, Rot, Target, Trigger};
use crate::handle::Tally;
use crate::life::Ending;
use crate::opening::TORN;
use crate::scenario::Scenario;
use crate::story;
use crate::sweep::{Part, Swept, sweep};
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

/// When a fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Work,
    Opening,
}

/// A fault, when it comes, and the operation that it befalls.
#[derive(Clone, Copy, Debug)]
struct Item {
    phase: Phase,
    trigger: Trigger,
    target: Target,
}

/// What was swept.
pub(crate) struct Faults {
    /// Operations of the workload.
    pub(crate) operations: usize,
    /// Operations of opening what it left.
    pub(crate) opening: usize,
    pub(crate) swept: Swept,
}

/// Every fault everywhere.
pub(crate) fn run(
    workers: usize,
    part: Part,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Faults, Violation> {
    let scenario = scenario();
    let tally = Arc::new(Tally::default());
    let mut world = world(&scenario, &tally)?;
    world.live(Vec::new())?;
    let operations = std::mem::take(&mut world.operations);
    let mut world = self::world(&scenario, &tally)?;
    world.live_to(Vec::new(), Ending::Killed)?;
    open(&mut world, Vec::new())?;
    let opening = std::mem::take(&mut world.operations);
    let items: Vec<Item> =
        items(Phase::Work, &operations).into_iter().chain(items(Phase::Opening, &opening)).collect();
    let count = understory_format::u64_of(items.len());
    let swept = sweep(count, part, workers, progress, |item, tally| {
        let item = usize::try_from(item).ok().and_then(|item| items.get(item));
        visit(*item.expect("the sweep goes through the items"), tally).map(Some)
    });
    Ok(Faults { operations: operations.len(), opening: opening.len(), swept })
}

/// Everything that can befall these operations, one at a time.
fn items(phase: Phase, operations: &[Target]) -> Vec<Item> {
    let items = (0_u64..).zip(operations).flat_map(|(at, target)| {
        let fitting = FAULTS.into_iter().filter(|fault| suits(*fault, *target));
        let trigger = move |fault| Trigger { target: Target::Any, at, fault };
        fitting.map(move |fault| Item { phase, trigger: trigger(fault), target: *target })
    });
    items.collect()
}

/// Opens the file, and looks at everything.
fn open(world: &mut World<'_>, triggers: Vec<Trigger>) -> Result<(), Violation> {
    if let Some((rig, database)) = world.open(triggers)? {
        world.take_in(&rig, &database)?;
        drop(database);
        world.put_away(rig);
    }
    Ok(())
}

fn scenario() -> Scenario {
    Scenario::of_sweeps(2, 24, 12 << 10)
}

fn world<'a>(scenario: &'a Scenario, tally: &Arc<Tally>) -> Result<World<'a>, Violation> {
    World::new(scenario, Rng::with_seed(12), &Arc::new(Trace::quiet()), tally)
}

/// One fault, and then a look at what is left: what kind of fault it was, and what it came to.
fn visit(item: Item, tally: &Arc<Tally>) -> Result<(String, &'static str), Violation> {
    let Item { phase, trigger, target } = item;
    let scenario = scenario();
    let own = Arc::new(Tally::default());
    let mut world = world(&scenario, &own)?;
    let lived = match phase {
        Phase::Work => world.live(vec![trigger]),
        Phase::Opening => {
            world.live_to(Vec::new(), Ending::Killed).and_then(|()| open(&mut world, vec![trigger]))
        }
    };
    lived
        .and_then(|()| if world.is_lost { Ok(()) } else { story::finish(&mut world) })
        .map_err(|Violation(words)| Violation::new(format!("{item:?}: {words}")))?;
    let counts = own.counts();
    counts.iter().for_each(|(what, times)| tally.add(what, *times));
    let before = if phase == Phase::Opening { "opening: " } else { "" };
    Ok((format!("{before}{}", kind(trigger.fault, target)), outcome(&counts, world.is_lost)))
}

/// A fault in words: what, and where.
fn kind(fault: Fault, target: Target) -> String {
    let what = |what: &str| {
        let (doing, zone) = match target {
            Target::Read => ("read", None),
            Target::Write(zone) => ("write", Some(zone.name())),
            Target::Sync => ("sync", None),
            Target::Grow => ("growth", None),
            Target::Check => ("check", None),
            Target::Any => ("operation", None),
        };
        format!("{doing} {what}{}", zone.map(|zone| format!(", {zone}")).unwrap_or_default())
    };
    match fault {
        Fault::Crash(_) => what("with a crash"),
        Fault::Fail(_) => what("fails"),
        Fault::Lose => what("lost"),
        Fault::Flip => what("with a bit flipped"),
        Fault::Misdirect(to) => what(&format!("misdirected into {}", to.name())),
        Fault::MisdirectRead => what("misdirected"),
        Fault::Delay(_) => what("delayed"),
        Fault::Hang => what("hangs"),
        Fault::Full(_) => what("without space"),
        Fault::Cut(zone) => format!("file cut, {}", zone.name()),
        Fault::Rot(zone, Rot::Bit) => format!("bit rots, {}", zone.name()),
        Fault::Rot(zone, Rot::Zero) => format!("sector zeroed, {}", zone.name()),
        Fault::Rot(zone, Rot::Swap) => format!("sectors swapped, {}", zone.name()),
        Fault::Unreadable(zone) => format!("sector unreadable, {}", zone.name()),
    }
}

/// The worst of what was seen: later ones of this list count only if none before does.
fn outcome(counts: &BTreeMap<&'static str, u64>, is_lost: bool) -> &'static str {
    const OUTCOMES: [(&str, &str); 10] = [
        ("open: salvaged", "acknowledged ops named as damaged, the rest salvaged"),
        (TORN, "right, but for the last group, which counts as torn"),
        ("read: corrupt", "error on read that names the block"),
        ("read: failed", "error on read that names the block"),
        ("open: at the second try", "error at open, once"),
        ("format: failed", "error on making the file"),
        ("write: unknown", "handle ended, then right"),
        ("write: never", "handle ended, then right"),
        ("write: not now", "commit refused for now, then right"),
        ("last checkpoint: failed", "error of the last checkpoint"),
    ];
    if is_lost {
        return "file refused, with the reason";
    }
    let seen = OUTCOMES.iter().find(|(what, _)| counts.contains_key(what));
    seen.map_or("right", |(_, outcome)| *outcome)
}
