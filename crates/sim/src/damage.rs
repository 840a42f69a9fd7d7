//! A small image with a journal, several checkpoints and levels, damaged in one place at a time: each byte flipped, each
//! sector zeroed or swapped with another, the file cut at each block.
//!
//! Opening it and reading everything gives what was there, or an error that names what is wrong. Where the last group of
//! the journal is damaged after the process was killed, it may be taken for torn: this is the one exception that is
//! stated.
//!
//! # Not here
//! Damage while the file is in use: `faults`, and the swarm.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;
use understory::{Database, Error, Geometry, GridError, Options};
use understory_format::{SECTOR_SIZE, u64_of, usize_of};
use understory_io::InlineExecutor;

use crate::handle::{Handle, Tally};
use crate::harm::Harm;
use crate::inspect::inspect;
use crate::life::Ending;
use crate::scenario::Scenario;
use crate::sweep::{Part, Swept, sweep};
use crate::tap::Tap;
use crate::trace::{Trace, Violation};
use crate::verdict::{self, Closed};
use crate::watch::Watch;
use crate::world::{PATH, Rig, World};
use crate::zone::Zones;

/// One place of an image that is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// One bit of this byte flips.
    Flip(usize),
    /// The sector here reads as zeros.
    Zero(usize),
    /// The sectors here change places.
    Swap(usize, usize),
    /// The file ends here.
    Cut(usize),
}

/// An image, and what is known of what it holds.
struct Subject<'a> {
    world: World<'a>,
    options: Options,
}

/// Bytes of an image at most.
const SIZE_MAX: usize = 1 << 20;

/// Images to choose from.
const SEEDS: u64 = 100;

/// What the workload that made an image came through.
type Baseline = BTreeMap<&'static str, u64>;

/// What was swept.
pub(crate) struct Damages {
    /// Bytes of the image.
    pub(crate) size: usize,
    pub(crate) baseline: Baseline,
    pub(crate) swept: Swept,
}

/// Damages an image everywhere, or in a part: one that was closed, or one of a process that was killed.
pub(crate) fn run(
    is_closed: bool,
    workers: usize,
    part: Part,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Damages, Violation> {
    let scenario = Scenario::of_sweeps(1, 50, 4 << 10);
    let (world, baseline) = image(&scenario, is_closed)?;
    let subject = Subject { options: world.options(), world };
    let size = subject.world.image.len();
    let damages = damages(size, usize_of(scenario.geometry.block_size));
    let swept = sweep(u64_of(damages.len()), part, workers, progress, |item, tally| {
        let damage = usize::try_from(item).ok().and_then(|item| damages.get(item));
        let damage = *damage.expect("the sweep goes through the items");
        let outcome = subject.visit(damage);
        let outcome = outcome.map_err(|Violation(words)| Violation::new(format!("{damage:?}: {words}")))?;
        tally.count(outcome);
        Ok(Some((damage.kind(&scenario.geometry), outcome)))
    });
    Ok(Damages { size, baseline, swept })
}

/// The world with the smallest image that is deep: each of its bytes will be flipped.
fn image(scenario: &Scenario, is_closed: bool) -> Result<(World<'_>, Baseline), Violation> {
    let mut smallest: Option<(World<'_>, Baseline)> = None;
    for seed in 0..SEEDS {
        let tally = Arc::new(Tally::default());
        let trace = Arc::new(Trace::quiet());
        let mut world = World::new(scenario, Rng::with_seed(seed), &trace, &tally)?;
        world.live_to(Vec::new(), if is_closed { Ending::Closed } else { Ending::Killed })?;
        let counts = tally.counts();
        let is_deep = counts.contains_key("lives that end with tables on level 2");
        let size_max = smallest.as_ref().map_or(SIZE_MAX, |(world, _)| world.image.len() - 1);
        if is_deep && world.image.len() <= size_max {
            smallest = Some((world, counts));
        }
    }
    smallest.ok_or(Violation::new("no image of the damage sweep is small and deep"))
}

/// Everything that is done to an image.
fn damages(size: usize, block_size: usize) -> Vec<Damage> {
    let sector = usize_of(SECTOR_SIZE);
    let sectors = || (0..size).step_by(sector);
    let flips = (0..size).map(Damage::Flip);
    let swap = |by: usize| sectors().map(move |at| Damage::Swap(at, (at + by * sector) % size));
    let cuts = (0..size).step_by(block_size).map(Damage::Cut);
    flips.chain(sectors().map(Damage::Zero)).chain(swap(1)).chain(swap(23)).chain(cuts).collect()
}

impl Damage {
    fn apply(self, image: &mut Vec<u8>) {
        let sector = |at: usize| at..at + usize_of(SECTOR_SIZE);
        match self {
            Self::Flip(at) => {
                if let Some(byte) = image.get_mut(at) {
                    *byte ^= 1 << (at % 8);
                }
            }
            Self::Zero(at) => image.get_mut(sector(at)).unwrap_or_default().fill(0),
            Self::Swap(one, other) => {
                let bytes = |at| image.get(sector(at)).unwrap_or_default().to_vec();
                let (ours, theirs) = (bytes(one), bytes(other));
                for (at, bytes) in [(one, theirs), (other, ours)] {
                    if let Some(place) = image.get_mut(sector(at)) {
                        place.copy_from_slice(&bytes);
                    }
                }
            }
            Self::Cut(at) => image.truncate(at),
        }
    }

    /// What is done, and where.
    fn kind(self, geometry: &Geometry) -> String {
        let zones = Zones::new(geometry);
        let (what, at) = match self {
            Self::Flip(at) => ("a bit flipped", at),
            Self::Zero(at) => ("a sector zeroed", at),
            Self::Swap(at, _) => ("two sectors swapped", at),
            Self::Cut(at) => ("the file cut", at),
        };
        format!("{what}, {}", zones.of(u64_of(at)).name())
    }

    /// What is harmed by it.
    fn harm(self, geometry: &Geometry) -> Harm {
        let mut harm = Harm::new(geometry);
        let sector = |at: usize| u64_of(at)..u64_of(at) + u64::from(SECTOR_SIZE);
        match self {
            Self::Flip(at) => harm.change(u64_of(at)..u64_of(at) + 1),
            Self::Zero(at) => harm.change(sector(at)),
            Self::Swap(one, other) => {
                harm.change(sector(one));
                harm.change(sector(other));
            }
            Self::Cut(at) => harm.cut(u64_of(at)),
        }
        harm.that_lasts()
    }
}

impl Subject<'_> {
    /// What opening the damaged image and reading everything comes to.
    fn visit(&self, damage: Damage) -> Result<&'static str, Violation> {
        let mut image = self.world.image.clone();
        damage.apply(&mut image);
        let harm = damage.harm(&self.world.scenario.geometry);
        let rig = self.rig(image.clone(), harm.clone());
        let opened = Database::open_machine(
            rig.machine.clone(),
            Path::new(PATH),
            &self.world.scenario.schema(),
            &self.options,
            false,
        );
        match opened {
            Ok(database) => self.read(&rig, &database),
            Err(error) => {
                let closed = verdict::of_open(&error, &harm)?;
                if let Closed::Damaged { first, .. } = closed {
                    self.salvage(image, harm, first)?;
                }
                of_open(&error)
            }
        }
    }

    fn rig(&self, image: Vec<u8>, harm: Harm) -> Rig {
        let geometry = &self.world.scenario.geometry;
        let watch = Arc::new(Mutex::new(Watch::new(geometry)));
        let trace = Arc::new(Trace::quiet());
        let tap = |storage| Tap::new(storage, Zones::new(geometry), Vec::new(), 0, harm, trace, watch);
        Rig::new(image, 1, tap).with_executor(Arc::new(InlineExecutor))
    }

    /// Compares everything with what there was.
    fn read(&self, rig: &Rig, database: &Database) -> Result<&'static str, Violation> {
        let op = database.visible_op().get();
        let (floor, witnessed) = {
            let book = self.world.book.lock();
            (book.floor(0), book.floor(rig.tap.harm().ring_places()))
        };
        if op < witnessed {
            return Err(Violation::new(format!(
                "op {witnessed} is in the journal, and {op} the last that is found"
            )));
        }
        let tally = Tally::default();
        self.compare(rig, database, op, &tally)?;
        let counts = tally.counts();
        Ok(match () {
            () if counts.keys().any(|what| what.starts_with("read: corrupt")) => "error on read: corrupt",
            () if !counts.is_empty() => "error on read: another",
            () if op < floor => "right, but for the last group, which counts as torn",
            () if database.stats().grid.twin_fallbacks > 0 => "right, from the other copy",
            () if database.stats().grid.reads_corrupt > 0 => "right, without a filter",
            () => "right",
        })
    }

    /// Reads everything; it is the state at `op`, as far as it can be read.
    fn compare(&self, rig: &Rig, database: &Database, op: u64, tally: &Tally) -> Result<(), Violation> {
        let World { scenario, book, trace, .. } = &self.world;
        let handle = Handle { scenario, database, book, tap: &rig.tap, trace, tally };
        let windows = book.lock().survivors(op);
        inspect(&handle, &windows, &mut Rng::with_seed(3)).map(drop)
    }

    /// Gives up what the journal lost; what is left is there.
    fn salvage(&self, image: Vec<u8>, harm: Harm, first: u64) -> Result<(), Violation> {
        let rig = self.rig(image, harm.clone());
        let schema = self.world.scenario.schema();
        match Database::salvage_machine(rig.machine.clone(), Path::new(PATH), &schema, &self.options) {
            Ok(database) => {
                let op = database.visible_op().get();
                if op + 1 != first {
                    return Err(Violation::new(format!(
                        "op {first} is lost, and {op} the last that is salvaged"
                    )));
                }
                self.compare(&rig, &database, op, &Tally::default())
            }
            Err(error) => verdict::of_salvage(&error, &harm),
        }
    }
}

/// A word for an error at open.
fn of_open(error: &Error) -> Result<&'static str, Violation> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is left is none that damage may lead to")]
    match error {
        Error::JournalDamaged { .. } => Ok("error at open: acknowledged ops damaged in the journal"),
        Error::Corrupt(_) => Ok("error at open: corrupt"),
        Error::Unusable { source, .. } => match source {
            GridError::Corrupt(_) => Ok("error at open: corrupt"),
            GridError::QuorumLost { .. } => Ok("error at open: no quorum of superblocks"),
            GridError::NotUnderstory => Ok("error at open: none of ours"),
            GridError::Truncated { .. } | GridError::Io(_) => Ok("error at open: truncated"),
            other => Err(Violation::new(format!("damage leads to {other:?}"))),
        },
        other => Err(Violation::new(format!("damage leads to {other:?}"))),
    }
}
