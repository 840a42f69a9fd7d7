//! The log against a model, from a seed: histories that are hard on its compaction, with a twin that is reopened and
//! crashes.
//!
//! Each history runs twice: straight on, and on a file that is reopened and crashes now and then. After each checkpoint
//! both have equal roots, and a log opened from it has exactly the model's tables, at equal extents.

use std::collections::BTreeSet;

use fastrand::Rng;
use understory_format::{BlockAddress, EditKind, u64_of};
use understory_testkit::{Coverage, Fuzzer};

use super::{CAPACITY, Harness};

const FUZZER: Fuzzer = Fuzzer {
    target: "manifest-log",
    seeds: 24,
    seeds_optimised: 120,
    goals: &[
        ("checkpoints", 400),
        ("reopens", 50),
        ("reopens after a crash", 20),
        ("tables at the address of an earlier one", 500),
        ("records read to be kept", 5_000),
        (CLOSEST, 80),
    ],
};

/// Of a bound of 40 blocks at least, since of few blocks one is many per cent.
const CLOSEST: &str = "most blocks, in per cent of their bound";

/// What half-bars do for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// As many inserts as can be, up to the most tables; then updates of all in turn.
    Fill,
    /// Removes and as many inserts.
    Churn,
    /// Updates of the few newest tables: all others are cold.
    Hot,
    /// Updates of any table, as many as can be.
    AllLive,
    /// A few moves.
    Moves,
    /// One edit, or two.
    Tiny,
    /// Nothing.
    Idle,
    /// Removes.
    Shrink,
    /// The same tables again and again, each several times in a half-bar.
    Repeat,
}

const MOODS: [Mood; 9] = [
    Mood::Fill,
    Mood::Churn,
    Mood::Hot,
    Mood::AllLive,
    Mood::Moves,
    Mood::Tiny,
    Mood::Idle,
    Mood::Shrink,
    Mood::Repeat,
];

/// The history, and what shapes it.
struct History {
    rng: Rng,
    mood: Mood,
    /// Half-bars until the mood changes.
    left: u64,
    /// One in so many half-bars ends with a checkpoint; 0 is none.
    checkpoints: u64,
    tables_max: usize,
    edits_max: usize,
    /// Whether what was filled becomes cold.
    is_cold: bool,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let block = usize::try_from(CAPACITY).unwrap();
        let tables_max = [3, block, 5 * block, 20 * block][rng.usize(..4)];
        let edits_max = [2, block / 2, block + 1, 4 * block][rng.usize(..4)];
        Self { rng, mood: Mood::Fill, left: 20, checkpoints: 2, tables_max, edits_max, is_cold: false }
    }

    /// Many tables, of which only the newest are touched any more, as often as can be.
    fn cold(seed: u64) -> Self {
        let block = usize::try_from(CAPACITY).unwrap();
        let history = Self::new(seed);
        Self { is_cold: true, left: 10, tables_max: 20 * block, edits_max: 2 * block, ..history }
    }

    fn next(&mut self) {
        if self.left == 0 && self.is_cold && self.mood == Mood::Fill {
            (self.mood, self.left) = (Mood::Hot, 80);
        } else if self.left == 0 {
            self.is_cold = false;
            self.mood = MOODS[self.rng.usize(..MOODS.len())];
            self.left = self.rng.u64(1..40);
            self.checkpoints = [0, 1, 2, 5, 16][self.rng.usize(..5)];
        }
        self.left -= 1;
    }

    /// The records of a half-bar, for these tables. `newest` has them in the order of their inserts.
    fn edits(&mut self, newest: &[BlockAddress]) -> Vec<(EditKind, Option<BlockAddress>)> {
        let (rng, full) = (&mut self.rng, self.edits_max);
        let room = self.tables_max.saturating_sub(newest.len());
        let any = |rng: &mut Rng, kind| (kind, rng.choice(newest.iter()).copied());
        let once = |rng: &mut Rng, kind, most: usize| -> Vec<_> {
            rng.choose_multiple(newest.iter(), most)
                .into_iter()
                .map(|address| (kind, Some(*address)))
                .collect()
        };
        if newest.is_empty() && self.mood != Mood::Idle {
            return vec![(EditKind::Insert, None); full];
        }
        match self.mood {
            Mood::Idle => Vec::new(),
            Mood::Fill if room > 0 => vec![(EditKind::Insert, None); full.min(room)],
            Mood::Fill | Mood::AllLive => (0..full).map(|_| any(rng, EditKind::Update)).collect(),
            Mood::Churn => {
                let mut edits = once(rng, EditKind::Remove, rng.clone().usize(..=full / 2));
                let inserts = edits.len();
                edits.extend(vec![(EditKind::Insert, None); inserts]);
                edits
            }
            Mood::Hot => {
                let hot = newest.iter().rev().take(3).cycle().take(full);
                hot.map(|address| (EditKind::Update, Some(*address))).collect()
            }
            Mood::Moves => once(rng, EditKind::Update, rng.clone().usize(..=full)),
            Mood::Tiny => match rng.u8(..4) {
                0 if room > 0 => vec![(EditKind::Insert, None)],
                1 => once(rng, EditKind::Remove, 1),
                2 => once(rng, EditKind::Update, 2),
                _ => once(rng, EditKind::Update, 1),
            },
            Mood::Shrink => once(rng, EditKind::Remove, rng.clone().usize(..=full)),
            Mood::Repeat => {
                let few = once(rng, EditKind::Update, 2);
                few.iter().copied().cycle().take(full).collect()
            }
        }
    }
}

/// Runs a history of so many half-bars; fails where the log differs from the model or the twin.
fn run(seed: u64, half_bars: u64, coverage: &mut Coverage) {
    let mut history = if seed.is_multiple_of(4) { History::cold(seed) } else { History::new(seed) };
    let (mut straight, mut twin) = (Harness::new(seed), Harness::new(seed + 1));
    let mut chance = Rng::with_seed(seed ^ 0xc0a5);
    let mut seen = BTreeSet::new();
    let mut newest: Vec<BlockAddress> = Vec::new();
    for half_bar in 0..half_bars {
        history.next();
        let edits = history.edits(&newest);
        let spare = if history.is_cold || chance.bool() { 0 } else { history.edits_max };
        let edits_max = u64_of(edits.len() + spare);
        let what = format!("seed {seed}, half-bar {half_bar}, {:?}", history.mood);
        for harness in [&mut straight, &mut twin] {
            harness.append_of(edits_max, &edits, &mut Rng::with_seed(half_bar)).unwrap();
        }
        assert_eq!(straight.live, twin.live, "{what}");
        newest.retain(|address| straight.live.contains_key(address));
        for address in straight.live.keys() {
            if !newest.contains(address) {
                coverage.count("tables at the address of an earlier one", u64::from(!seen.insert(*address)));
                newest.push(*address);
            }
        }
        straight.check();
        let (count, count_max) = (straight.log.block_count(), straight.log.blocks_max());
        if count_max >= 40 {
            coverage.most(CLOSEST, 100 * count / count_max);
        }
        if history.checkpoints > 0 && chance.u64(..history.checkpoints) == 0 {
            checkpoint(&mut straight, &mut twin, &what);
            coverage.count("checkpoints", 1);
            match chance.u8(..10) {
                0 => twin = reopened(&twin, &mut chance, &straight, &what),
                1 => {
                    twin = crashed(twin, &mut chance, &straight, &what);
                    coverage.count("reopens after a crash", 1);
                }
                _ => continue,
            }
            coverage.count("reopens", 1);
        }
    }
    coverage.count("records read to be kept", u64_of(straight.kept));
}

/// A checkpoint of both, and what a log opened from it holds.
fn checkpoint(straight: &mut Harness, twin: &mut Harness, what: &str) {
    let root = straight.checkpoint().unwrap();
    assert_eq!(root, twin.checkpoint().unwrap(), "{what}");
    let [first, second] = [&*straight, twin].map(|harness| harness.grid.checkpoint_state().id());
    assert_eq!(first, second, "{what}");
    straight.check();
    straight.check_opens(&root);
}

/// The file of `twin`, opened again at the checkpoint that `straight` has just taken too.
fn reopened(twin: &Harness, chance: &mut Rng, straight: &Harness, what: &str) -> Harness {
    let image = if chance.bool() { twin.storage.image() } else { twin.storage.durable_image() };
    let twin = Harness::reopen(image, chance.u64(..)).unwrap();
    assert_eq!(twin.beat, straight.beat, "{what}");
    assert!(twin.log.block_refs().eq(straight.log.block_refs()), "{what}");
    for address in straight.live.keys() {
        assert_eq!(twin.log.extent(*address), straight.log.extent(*address), "{what}");
    }
    twin.grid.free_due();
    twin.check();
    twin
}

/// Goes on from a checkpoint with half-bars of its own, the last of which may be cut off anywhere; then the machine
/// stops, and the checkpoint is there as it was.
fn crashed(mut twin: Harness, chance: &mut Rng, straight: &Harness, what: &str) -> Harness {
    let mut other = History { left: 0, ..History::new(chance.u64(..)) };
    for _ in 0..chance.u64(1..12) {
        other.next();
        let newest: Vec<BlockAddress> = twin.live.keys().copied().collect();
        twin.append(&other.edits(&newest), chance).unwrap();
    }
    if chance.bool() {
        twin.log.plan(chance.u64(..CAPACITY));
        if chance.bool() {
            twin.log.start();
        }
    }
    reopened(&twin, chance, straight, what)
}

#[test]
fn histories_from_seeds() {
    FUZZER.run(|seed, coverage| run(seed, 120, coverage));
}
