//! Reads of blocks that were used again since, or were not: what is told as damage, and who looks again.

use parking_lot::Mutex;
use std::ops::Range;
use understory_compaction::Outcome;
use understory_format::{Checksum, EditKind, ManifestRoot, Op, TableInfo};
use understory_grid::{CheckpointUpdate, GridError};
use understory_io::{Buffer, Completion, Counters, IoCause, IoError, Storage, Ticket, WriteParts};
use understory_table::{TableError, addresses};
use understory_testkit::Pair;

use super::reads::{reopened, two_levels};
use super::views::{DIRECTIONS, all};
use super::*;

pub(super) fn update() -> CheckpointUpdate {
    CheckpointUpdate {
        beat: Beat::new(8),
        op_checkpoint: Op::new(0),
        op_flushed: Op::new(0),
        charge_total: 0,
        rolling_hash: Checksum::ZERO,
        manifest: ManifestRoot::default(),
    }
}

/// Some thousand values in level 1, on disk; the cache has none of it.
fn on_disk() -> Rig<Pair> {
    let mut rig = Rig::<Pair>::new(Geometry { table_blocks: 2, share_size: 1 << 18, ..Geometry::small() });
    (0..3_000).for_each(|key| rig.put(2 * key));
    rig.end_bar();
    rig.push(0);
    rig.push(1);
    rig.tree.grid().checkpoint(&update()).unwrap();
    reopened(&rig, rig.sim.image())
}

/// Changes a byte of each value block of a table.
fn spoil(rig: &Rig<Pair>, table: &TableInfo) {
    let blocks = addresses(rig.tree.grid(), rig.tree.layout(), table).unwrap();
    let index = [table.index.address, table.index.twin];
    for address in blocks.into_iter().filter(|address| !index.contains(address)) {
        rig.sim.corrupt(rig.tree.grid().geometry().block_offset(address) + 300, 1);
    }
}

/// The bytes of a scan's tables change under it. Whether that is damage depends on whether their blocks may have been
/// used again: to the checkpoint.
#[test]
fn a_block_that_may_have_been_used_again_is_no_damage() {
    for checkpoints in 0..4 {
        for direction in DIRECTIONS {
            let rig = on_disk();
            let mut scan = rig.tree.scan(all(), direction);
            for _ in 0..checkpoints {
                rig.tree.grid().checkpoint(&update()).unwrap();
                rig.tree.grid().free_due();
            }
            let tables: Vec<_> = rig.tree.manifest().tables().map(|(_, table)| table.info).collect();
            tables.iter().for_each(|table| spoil(&rig, table));
            let result = loop {
                match scan.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the values are not there"),
                    Err(error) => break error,
                }
            };
            match checkpoints {
                0 | 1 => assert!(matches!(result, TableError::Corrupt(_)), "{checkpoints}: {result}"),
                _ => {
                    assert!(matches!(result, TableError::Expired), "{checkpoints}: {result}");
                    assert!(matches!(scan.next(), Err(TableError::Expired)));
                }
            }
            // A read that begins now refers to what is there now, and that is damaged.
            assert!(matches!(rig.tree.get(2_000), Err(TableError::Corrupt(_))));
            assert!(matches!(rig.tree.scan(all(), direction).next(), Err(TableError::Corrupt(_))));
        }
    }
}

/// As above, with a file that ends before the block; another failure of the storage is just that.
#[test]
fn a_block_that_is_not_there_any_more_may_be_no_damage() {
    for (cause, checkpoints, is_expired) in
        [(IoCause::Truncated, 2, true), (IoCause::Truncated, 1, false), (IoCause::Injected, 2, false)]
    {
        let rig = on_disk();
        let mut scan = rig.tree.scan(all(), Direction::Ascending);
        for _ in 0..checkpoints {
            rig.tree.grid().checkpoint(&update()).unwrap();
            rig.tree.grid().free_due();
        }
        let now = rig.sim.operations();
        (now..now + 8).for_each(|operation| rig.sim.inject(operation, cause));
        let error = scan.next().unwrap_err();
        assert_eq!(matches!(error, TableError::Expired), is_expired, "{cause:?}, {checkpoints}: {error}");
        if !is_expired {
            let io = matches!(error, TableError::Grid(GridError::Io(_) | GridError::Unreadable { .. }));
            assert!(io, "{error}");
        }
    }
}

/// A storage that lets something happen right before a read.
#[derive(Debug)]
struct Meddler {
    inner: Arc<SimStorage>,
    meddling: Meddling,
}

type Work = Box<dyn FnOnce() + Send>;

/// What is to happen, once.
#[derive(Default)]
struct Meddling(Mutex<Option<Work>>);

impl std::fmt::Debug for Meddling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddling")
    }
}

impl Meddler {
    fn meddle(&self) {
        let work = self.meddling.0.lock().take();
        if let Some(work) = work {
            work();
        }
    }
}

impl Storage for Meddler {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read(&self, offset: u64, buffer: Buffer) -> Ticket {
        self.meddle();
        self.inner.read(offset, buffer)
    }

    fn write(&self, offset: u64, parts: WriteParts) -> Ticket {
        self.inner.write(offset, parts)
    }

    fn sync(&self) -> Ticket {
        self.inner.sync()
    }

    fn read_now(&self, offset: u64, buffer: Buffer) -> Completion {
        self.meddle();
        self.inner.read_now(offset, buffer)
    }

    fn grow(&self, size: u64) -> Result<(), IoError> {
        self.inner.grow(size)
    }

    fn truncate(&self, size: u64) -> Result<(), IoError> {
        self.inner.truncate(size)
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.inner.discard(range)
    }

    fn is_dense(&self) -> bool {
        self.inner.is_dense()
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), IoError> {
        self.inner.allocate(range)
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

/// While a `get` reads, the tables that it refers to are replaced (or not) and their blocks used again.
#[test]
fn a_get_looks_again_where_its_tables_are_now() {
    for (is_replaced, is_new_good) in [(true, true), (true, false), (false, true)] {
        let rig = two_levels();
        let outcomes: Vec<Outcome> = rig
            .jobs(1, 0)
            .into_iter()
            .map(|mut job| {
                let quota = job.remaining();
                rig.run(&mut *job, quota);
                job.finish().unwrap()
            })
            .collect();
        assert!(!outcomes.is_empty());
        rig.tree.grid().checkpoint(&update()).unwrap();
        let (mut machine, sim) = Machine::sim_from(rig.sim.image(), 5);
        let meddler = Arc::new(Meddler { inner: Arc::clone(&sim), meddling: Meddling::default() });
        machine.storage = Arc::<Meddler>::clone(&meddler);
        let (grid, pool) = open(machine, rig.tree.grid().geometry(), 8);
        let tree = Arc::new(Tree::<Pair>::new(grid, TREE, *rig.tree.layout(), pool, Arc::default()));
        for (level, table) in rig.tree.manifest().tables() {
            tree.load(level, table.info).unwrap();
        }
        tree.loaded().unwrap();
        let (changed, geometry) = (Arc::clone(&tree), *rig.tree.grid().geometry());
        let written: Vec<_> = outcomes
            .iter()
            .flat_map(|outcome| &outcome.edits)
            .filter(|edit| edit.kind == EditKind::Insert)
            .flat_map(|edit| addresses(rig.tree.grid(), rig.tree.layout(), &edit.table).unwrap())
            .collect();
        let spoil = move |address| sim.corrupt(geometry.block_offset(address) + 300, 1);
        *meddler.meddling.0.lock() = Some(Box::new(move || {
            for outcome in &outcomes {
                outcome.released.iter().for_each(|address| spoil(*address));
                if is_replaced {
                    changed.apply(false, &outcome.edits, Vec::new());
                }
            }
            if !is_new_good {
                written.iter().for_each(|address| spoil(*address));
            }
        }));
        // In both levels; in the deeper one alone; in none.
        for key in [6, 4, 5] {
            match tree.get(key) {
                Ok(found) => {
                    assert!(is_replaced && is_new_good, "{key}: {found:?}");
                    assert_eq!(found.is_some(), key != 5);
                }
                Err(TableError::Corrupt(_)) => assert!(!is_replaced || !is_new_good, "{key}"),
                Err(error) => panic!("{error}"),
            }
        }
    }
}
