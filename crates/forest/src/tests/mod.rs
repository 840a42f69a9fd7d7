//! The forest on a simulated file: a rig with three trees, a model of each, and a watch over its rules.

mod damage;
mod determinism;
mod failure;
mod fuzz;
mod log;
mod rules;
mod stats;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use understory_format::{
    Checksum, Direction, Geometry, KeyRange, Op, TreeDescription, TreeId, effect_size, u32_of, usize_of,
};
use understory_grid::{FormatState, Grid, GridOptions};
use understory_io::{Arena, Machine, SimStorage};
use understory_table::TableError;
use understory_testkit::{Item, KeyPool, KeyShape, Pair, Posting, TestRecord};

use crate::{Forest, ForestError, Root, TreeSpec};
use watch::Watch;

/// Tables of one block, so that a few thousand records reach four levels.
fn geometry() -> Geometry {
    Geometry { table_blocks: 1, ..Geometry::small() }
}

fn specs() -> Vec<TreeSpec> {
    vec![TreeSpec::of::<Item>(), TreeSpec::of::<Pair>(), TreeSpec::of::<Posting>()]
}

fn describe(specs: &[TreeSpec]) -> Vec<TreeDescription> {
    (1..).zip(specs).map(|(id, spec)| spec.describe(TreeId::new(id).unwrap())).collect()
}

/// The version of each key that one tree ought to hold.
type Versions<R> = BTreeMap<<R as understory_format::Record>::Key, u64>;

/// What the trees ought to hold after so many puts.
#[derive(Clone, Debug, Default)]
struct Model {
    items: Versions<Item>,
    pairs: Versions<Pair>,
    postings: Versions<Posting>,
    op: u64,
}

/// The model of one tree.
trait Modelled: TestRecord {
    fn of(model: &Model) -> &Versions<Self>;
    fn of_mut(model: &mut Model) -> &mut Versions<Self>;
}

macro_rules! modelled {
    ($($record:ident: $field:ident),+) => {$(
        impl Modelled for $record {
            fn of(model: &Model) -> &Versions<Self> {
                &model.$field
            }
            fn of_mut(model: &mut Model) -> &mut Versions<Self> {
                &mut model.$field
            }
        }
    )+};
}

modelled!(Item: items, Pair: pairs, Posting: postings);

impl Model {
    /// Compares every tree in both directions.
    fn check(&self, forest: &Forest) -> Result<(), TableError> {
        check_tree::<Item>(self, forest)?;
        check_tree::<Pair>(self, forest)?;
        check_tree::<Posting>(self, forest)
    }
}

fn check_tree<R: Modelled>(model: &Model, forest: &Forest) -> Result<(), TableError> {
    let all = KeyRange::new(R::KEY_MIN, R::KEY_MAX).unwrap();
    for direction in [Direction::Ascending, Direction::Descending] {
        let mut expected: Vec<_> = R::of(model).iter().collect();
        if direction == Direction::Descending {
            expected.reverse();
        }
        let mut scan = forest.tree::<R>().unwrap().scan(all, direction);
        for (key, version) in expected {
            scan.next()?.unwrap_or_else(|| panic!("{key:?} is missing")).expect(*key, *version);
        }
        assert!(scan.next()?.is_none(), "nothing is left over");
    }
    Ok(())
}

/// The ends of a record's keys.
trait Ends: understory_format::Record {
    const KEY_MIN: Self::Key = <Self::Key as understory_format::Key>::MIN;
    const KEY_MAX: Self::Key = <Self::Key as understory_format::Key>::MAX;
}
impl<R: understory_format::Record> Ends for R {}

/// Keys that nearly collide, for each tree.
struct Keys {
    items: KeyPool<u128>,
    pairs: KeyPool<u64>,
    postings: KeyPool<([u8; 2], u128)>,
}

impl Keys {
    fn new(rng: &mut Rng, count: usize) -> Self {
        Self {
            items: KeyPool::new(rng, KeyShape::Mixed, count),
            pairs: KeyPool::new(rng, KeyShape::Mixed, 2 * count),
            postings: KeyPool::new(rng, KeyShape::Mixed, 2 * count),
        }
    }
}

/// A forest on a simulated file, beside what it ought to hold.
struct Rig {
    sim: Arc<SimStorage>,
    forest: Forest,
    model: Model,
    /// The model at the end of the bar before: what is in tables at the end of this one.
    bar_before: Model,
    /// The model and the watch that a reopened file shows.
    durable: (Model, Watch),
    watch: Watch,
    /// Whether the rules are looked at after each close, which reads from the file.
    watches: bool,
    /// What was put in the open beat, in bytes of its share.
    beat_size: u64,
}

impl Rig {
    fn new(geometry: Geometry, seed: u64) -> Self {
        Self::with_blocks(geometry, seed, BLOCKS)
    }

    /// With so many buffers for blocks.
    fn with_blocks(geometry: Geometry, seed: u64, block_count: u32) -> Self {
        let (machine, sim) = Machine::sim(seed);
        let trees = describe(&specs());
        let state = FormatState { geometry, trees: &trees, size_limit: None };
        Grid::format(&machine, &state).unwrap();
        let forest = open(&machine, block_count).unwrap();
        let (model, watch) = (Model::default(), Watch::new(&forest));
        let (bar_before, durable) = (model.clone(), (model.clone(), watch.clone()));
        Self { sim, forest, model, bar_before, durable, watch, watches: true, beat_size: 0 }
    }

    /// The machine stops now, and all that was not synced is lost; what is on disk is opened again.
    fn reopen(&mut self, seed: u64) {
        let (machine, sim) = Machine::sim_from(self.sim.durable_image(), seed);
        let forest = open(&machine, BLOCKS).unwrap();
        (self.model, self.watch) = self.durable.clone();
        self.bar_before = self.model.clone();
        (self.forest, self.sim, self.beat_size) = (forest, sim, 0);
        self.watch.after_open(&self.forest);
    }

    /// Whether the open beat has room for one more record of this size.
    fn has_room(&self, value_size: u32) -> bool {
        let share = u64::from(self.forest.grid().geometry().share_size);
        self.beat_size + effect_size(value_size) <= share
    }

    /// Puts a record or a tombstone; false if the beat has no room for it.
    fn put<R: Modelled>(&mut self, key: R::Key, tombstone: bool) -> bool {
        let value_size = u32_of(size_of::<R>());
        if !self.has_room(value_size) {
            return false;
        }
        let version = self.model.op + 1;
        let id = self.forest.tree::<R>().unwrap().id();
        let bitmap = [1];
        let record = R::make(key, version);
        self.forest.append(id, record.as_bytes(), tombstone.then_some(&bitmap)).unwrap();
        self.forest.publish();
        self.beat_size += effect_size(value_size);
        if tombstone {
            R::of_mut(&mut self.model).remove(&key);
        } else {
            R::of_mut(&mut self.model).insert(key, version);
        }
        self.model.op = version;
        true
    }

    /// Puts at random until `count` are done or the beat is full; of 16, `removes` are removes.
    fn put_some(&mut self, rng: &mut Rng, keys: &Keys, count: u64, removes: u8) {
        for _ in 0..count {
            let tombstone = rng.u8(..16) < removes;
            let done = match rng.u8(..10) {
                0 => self.put::<Item>(keys.items.pick_hot(rng), tombstone),
                1..=5 => self.put::<Item>(keys.items.pick(rng), tombstone),
                6..=7 => self.put::<Pair>(keys.pairs.pick(rng), tombstone),
                _ => self.put::<Posting>(keys.postings.pick_near(rng), tombstone),
            };
            if !done {
                break;
            }
        }
    }

    /// Looks up keys that are there, were there, and lie beside those.
    fn get_some(&self, rng: &mut Rng, keys: &Keys) {
        self.get::<Item>(keys.items.pick_near(rng));
        self.get::<Pair>(keys.pairs.pick_near(rng));
        self.get::<Posting>(keys.postings.pick_near(rng));
    }

    fn get<R: Modelled>(&self, key: R::Key) {
        let found = self.forest.tree::<R>().unwrap().get(key).unwrap();
        match R::of(&self.model).get(&key) {
            Some(version) => found.unwrap().expect(key, *version),
            None => assert!(found.is_none(), "{key:?} was removed or never put"),
        }
    }

    /// Closes the open beat; with a checkpoint if it is asked for and a bar ends.
    fn close(&mut self, checkpoint: bool) -> Result<Option<Checksum>, ForestError> {
        let ends_bar = self.forest.schedule().ends_bar(self.forest.beat());
        let root = Root {
            op_checkpoint: Op::new(self.model.op),
            op_flushed: Op::new(self.bar_before.op),
            charge_total: self.model.op * 4096,
            journal: (0, Checksum::ZERO),
        };
        let root = (checkpoint && ends_bar).then_some(&root);
        let before = self.watch.before_close(&self.forest);
        let id = self.forest.close_beat(root)?.map(|run| run.wait()).transpose()?;
        self.beat_size = 0;
        if self.watches {
            self.watch.after_close(&before, &self.forest);
        }
        if root.is_some() {
            self.durable = (self.bar_before.clone(), self.watch.clone());
        }
        if ends_bar {
            self.bar_before = self.model.clone();
        }
        Ok(id)
    }

    /// Closes beats to the end of the bar.
    fn close_bar(&mut self, checkpoint: bool) -> Option<Checksum> {
        loop {
            let id = self.close(checkpoint).unwrap();
            if self.forest.begins_bar() {
                return id;
            }
        }
    }

    /// Empty beats until everything is in tables, and a checkpoint of that.
    fn drain(&mut self) -> Checksum {
        self.close_bar(false);
        let id = self.close_bar(true).unwrap();
        assert_eq!(self.durable.0.op, self.model.op, "all is flushed");
        id
    }
}

/// Block buffers: enough to keep a small forest in memory.
const BLOCKS: u32 = 192;

/// Opens the forest of three trees for writing.
fn open(machine: &Machine, block_count: u32) -> Result<Forest, ForestError> {
    let mut forest = load(machine, &specs(), block_count)?;
    forest.begin(|_| ())?;
    Ok(forest)
}

/// Opens a forest without writing anything.
fn load(machine: &Machine, specs: &[TreeSpec], block_count: u32) -> Result<Forest, ForestError> {
    let geometry = Grid::peek(machine)?.checkpoint.geometry;
    let options = GridOptions { block_count, page_count: 64, read_only: false };
    let (chunk_size, chunk_count) = (usize_of(geometry.block_size), 160);
    let size = options.arena_size(&geometry).unwrap() + Arena::needed(chunk_size, chunk_count).unwrap();
    let arena = Arena::new(size).unwrap();
    let pool = arena.pool(chunk_size, chunk_count).unwrap();
    let grid = Arc::new(Grid::load(machine.clone(), &arena, options)?);
    Forest::open(grid, specs, &pool, 16)
}
