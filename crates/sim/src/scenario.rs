//! What one seed decides before anything happens: trees, geometry, memory, who does what how often, and which kinds of
//! faults there are.
//!
//! Each choice is drawn with some kinds of work switched off altogether, because what always happens hides what is rare.
//!
//! # Not here
//! What is decided on the way, from the same seed: `client`, `fault`.

use std::fmt;

use fastrand::Rng;
use understory::{Geometry, Schema};
use understory_format::effect_size;

use crate::plot::{Plot, Split};
use crate::tree::{KIND_COUNT, tree};

/// Kinds of faults of a seed. The oracle differs by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weather {
    /// None; handles are closed or dropped.
    Calm,
    /// Crashes at any operation.
    Crashes,
    /// Reads, writes and syncs that fail, and crashes.
    Errors,
    /// A file that cannot grow, for a while.
    Space,
    /// Media that lose, misdirect and rot, and crashes.
    Media,
}

/// How often a client does what, as weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) commit: u32,
    pub(crate) get: u32,
    pub(crate) scan: u32,
    pub(crate) hold: u32,
    pub(crate) checkpoint: u32,
    pub(crate) settle: u32,
    pub(crate) sync: u32,
    /// Of a hundred commits, so many are buffered.
    pub(crate) buffered_percent: u32,
    /// Of a hundred effects, so many are removes.
    pub(crate) remove_percent: u32,
    /// How large batches are.
    pub(crate) batch: BatchSize,
}

/// How large batches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchSize {
    /// One effect, at times none.
    Single,
    /// A few.
    Few,
    /// As many as fit, or nearly.
    Full,
    /// Anything.
    Mixed,
}

/// Everything that is decided beforehand. One in so many files is made to be deep: many tables on several levels.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
    pub(crate) geometry: Geometry,
    /// Bytes of memory beyond the least.
    pub(crate) memory_spare: u64,
    /// Bytes that the file may have.
    pub(crate) size_limit: Option<u64>,
    pub(crate) plots: Vec<Plot>,
    pub(crate) client_count: u32,
    pub(crate) reader_count: u32,
    pub(crate) life_count: u32,
    /// Actions of each client in a life.
    pub(crate) action_count: u32,
    pub(crate) mix: Mix,
}

impl Scenario {
    /// The scenario of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let weather = weather(&mut rng);
        let client_count = rng.u32(1..=4);
        let is_deep = rng.u8(0..8) == 0;
        let plots = plots(&mut rng, client_count, is_deep);
        let geometry = geometry(&mut rng, &plots);
        let geometry = if is_deep { deep(&mut rng, geometry) } else { geometry };
        let life_count = if weather == Weather::Calm { rng.u32(1..=2) } else { rng.u32(1..=5) };
        let action_count = match rng.u8(0..8) {
            _ if is_deep => rng.u32(80..240),
            0 => rng.u32(100..400),
            _ => rng.u32(10..120),
        };
        let is_limited = weather == Weather::Space && rng.bool();
        let size_limit = is_limited.then(|| geometry.grid_offset() + rng.u64(64..1024) * 4096);
        Self {
            seed,
            weather,
            geometry,
            size_limit,
            memory_spare: if rng.bool() { 0 } else { rng.u64(0..2 << 20) },
            plots,
            client_count,
            reader_count: if rng.bool() { 0 } else { rng.u32(1..=2) },
            life_count,
            action_count: (action_count / client_count).max(4),
            mix: if is_deep { Mix { batch: BatchSize::Full, ..mix(&mut rng) } } else { mix(&mut rng) },
        }
    }

    /// The small one that sweeps go through: two clients, three trees, a ring that wraps, several checkpoints, tables
    /// on three levels, filters and memory for some of them.
    pub(crate) fn of_sweeps(client_count: u32, action_count: u32, share_size: u32) -> Self {
        let mut rng = Rng::with_seed(7);
        let mut plot = |kind, split, count| Plot { tree: tree(kind, &mut rng, count), split, client_count };
        let plots = vec![plot(3, Split::Stripes, 2400), plot(0, Split::Blocks, 100)];
        let geometry =
            Geometry { table_blocks: 1, share_size, batch_size_max: share_size, ..Geometry::small() };
        let geometry = geometry.with_filters(10).with_journal();
        let interval = 3 * geometry.interval_max;
        let geometry = Geometry { interval_min: interval, interval_max: interval, ..geometry };
        let journal_size = geometry.journal_size_min().next_multiple_of(geometry.block_size.into());
        let mix = Mix {
            commit: 40,
            get: 2,
            scan: 1,
            hold: 0,
            checkpoint: 1,
            settle: 0,
            sync: 1,
            buffered_percent: 10,
            remove_percent: 5,
            batch: BatchSize::Full,
        };
        Self {
            seed: 0,
            weather: Weather::Calm,
            geometry: Geometry { journal_size, ..geometry },
            memory_spare: 1 << 20,
            size_limit: None,
            plots,
            client_count,
            reader_count: 0,
            life_count: 1,
            action_count,
            mix,
        }
    }

    /// The schema that declares its trees.
    pub(crate) fn schema(&self) -> Schema {
        self.plots.iter().fold(Schema::new(), |schema, plot| plot.tree.declare(schema))
    }
}

fn weather(rng: &mut Rng) -> Weather {
    match rng.u8(0..100) {
        0..=7 => Weather::Calm,
        8..=54 => Weather::Crashes,
        55..=69 => Weather::Errors,
        70..=79 => Weather::Space,
        _ => Weather::Media,
    }
}

fn plots(rng: &mut Rng, client_count: u32, is_deep: bool) -> Vec<Plot> {
    let mut kinds: Vec<usize> = (0..KIND_COUNT).collect();
    rng.shuffle(&mut kinds);
    let count = rng.usize(1..=4);
    let size = match rng.u8(0..4) {
        _ if is_deep => rng.usize(800..2500),
        0 => rng.usize(8..40),
        _ => rng.usize(40..700),
    };
    let make = |kind: usize| {
        let split = if rng.bool() { Split::Blocks } else { Split::Stripes };
        Plot { tree: tree(kind, rng, size), split, client_count }
    };
    kinds.into_iter().take(count).map(make).collect()
}

/// Tiny, so that a few batches fill tables, levels, bars and the ring.
fn geometry(rng: &mut Rng, plots: &[Plot]) -> Geometry {
    const KIB: u32 = 1024;
    let block_size = *rng.choice(&[4, 4, 4, 8, 16]).expect("not empty") * KIB;
    let page_size = *rng.choice(&[4, 4, 8, 16]).expect("not empty") * KIB;
    let share_size = if rng.bool() { 4 * KIB } else { rng.u32(4 * KIB..=24 * KIB) };
    let geometry = Geometry {
        block_size,
        page_size: page_size.min(block_size),
        table_blocks: rng.u32(1..=6),
        levels: rng.u8(5..=7),
        growth: rng.u8(4..=6),
        beats_per_bar: *rng.choice(&[2, 4, 4, 6, 8]).expect("not empty"),
        share_size,
        batch_size_max: batch_size_max(rng, share_size, plots),
        ..Geometry::small()
    };
    let geometry = if rng.bool() { geometry.with_runs(rng.u8(2..=8)) } else { geometry };
    let geometry = geometry.with_filters(*rng.choice(&[0, 0, 1, 8, 10, 10, 16, 32]).expect("not empty"));
    if rng.u8(0..10) == 0 { without_journal(rng, geometry) } else { with_journal(rng, geometry) }
}

/// The least tables and levels, and batches that fill several levels with them.
fn deep(rng: &mut Rng, geometry: Geometry) -> Geometry {
    let share_size = rng.u32(8 << 10..=24 << 10);
    let geometry = Geometry {
        block_size: 4 << 10,
        page_size: 4 << 10,
        table_blocks: rng.u32(1..=2),
        growth: 4,
        share_size,
        batch_size_max: share_size,
        ..geometry
    };
    if geometry.has_journal() { geometry.with_journal() } else { geometry }
}

/// A share; or exactly so many records of some tree, one byte more or less.
fn batch_size_max(rng: &mut Rng, share_size: u32, plots: &[Plot]) -> u32 {
    let plot = rng.choice(plots).expect("there is a tree");
    let effect = u32::try_from(effect_size(plot.tree.value_size())).expect("records are small");
    let exact = share_size / effect * effect;
    let size = match rng.u8(0..6) {
        0 => exact,
        1 => exact - 1,
        2 => exact + 1,
        3 => rng.u32(share_size / 4..=share_size),
        _ => share_size,
    };
    // Room for one of the largest records in any case.
    size.clamp(1100, share_size)
}

fn with_journal(rng: &mut Rng, geometry: Geometry) -> Geometry {
    let geometry = geometry.with_journal();
    if rng.bool() {
        return geometry;
    }
    // A longer interval, and a ring that is larger than it must be.
    let interval_max = geometry.interval_max * rng.u64(1..=3);
    let geometry = Geometry { interval_max, ..geometry };
    let spare = rng.u64(0..4) * u64::from(geometry.block_size);
    let journal_size = geometry.journal_size_min().next_multiple_of(geometry.block_size.into()) + spare;
    Geometry { journal_size, ..geometry }
}

fn without_journal(rng: &mut Rng, geometry: Geometry) -> Geometry {
    let interval_min = rng.u64(16..=128) << 10;
    Geometry { journal_size: 0, interval_min, interval_max: interval_min * 4, ..geometry }
}

fn mix(rng: &mut Rng) -> Mix {
    let mut weight = |most: u32| if rng.u8(0..3) == 0 { 0 } else { rng.u32(1..=most) };
    let (get, scan, hold) = (weight(30), weight(6), weight(6));
    let (checkpoint, settle, sync) = (weight(4), weight(1), weight(6));
    let (buffered_percent, remove_percent) = (weight(60), weight(60));
    let batch = match rng.u8(0..8) {
        0 => BatchSize::Single,
        1..=2 => BatchSize::Few,
        3..=4 => BatchSize::Full,
        _ => BatchSize::Mixed,
    };
    let commit = rng.u32(20..=60);
    Mix { commit, get, scan, hold, checkpoint, settle, sync, buffered_percent, remove_percent, batch }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, weather, client_count, reader_count, life_count, action_count, .. } = self;
        writeln!(
            f,
            "seed {seed}: {weather:?}, {client_count} clients, {reader_count} readers, {life_count} lives of \
             {action_count} actions each"
        )?;
        for plot in &self.plots {
            let (name, places) = (plot.tree.name(), plot.tree.place_count());
            writeln!(f, "  {name}: {} bytes, {places} places in {:?}", plot.tree.value_size(), plot.split)?;
        }
        if let Some(limit) = self.size_limit {
            writeln!(f, "  at most {limit} bytes")?;
        }
        writeln!(f, "  {:?}", self.geometry)?;
        write!(f, "  {:?}", self.mix)
    }
}
