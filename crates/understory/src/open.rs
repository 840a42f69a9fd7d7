//! Creating a database, and opening one: at its last checkpoint, and then through what the journal has after it.
//!
//! Nothing is written before everything that open looks at was found good: superblock, geometry, schema, free
//! set, manifest log, the relations between tables, the block accounting, and the journal up to its head.
//!
//! # Not here
//! What the parts check, each for itself: `understory-grid`, `understory-forest` and `understory-journal`. The replay:
//! `recovery`.

use std::path::Path;
use std::sync::Arc;

use understory_forest::{Forest, ForestError};
use understory_format::{Geometry, usize_of};
use understory_grid::{FormatState, Grid, GridError};
use understory_io::{Arena, IoCause, IoError, Machine, OsStorage};

use crate::applier::Applier;
use crate::options::Budget;
use crate::recovery::{NO_MARK, Recover, journal_error};
use crate::sequencer::{Sequencer, buffer_size};
use crate::{Database, Error, Options, Schema};

impl Database {
    /// Creates a file at `path` and opens it.
    ///
    /// # Errors
    /// A schema, geometry or memory budget that cannot work, in which case nothing is created; a file that
    /// exists, or cannot be created or written.
    pub fn create(path: impl AsRef<Path>, schema: &Schema, options: &Options) -> Result<Self, Error> {
        let path = path.as_ref();
        let geometry = options.geometry.unwrap_or_default();
        check(schema, &geometry, options)?;
        let storage = OsStorage::create(path, storage_options(options, false));
        let storage = Arc::new(storage.map_err(Error::Open)?);
        let made = Self::create_on(&storage, path, schema, options);
        if made.is_err()
            && let Some(storage) = Arc::into_inner(storage)
        {
            storage.remove().map_err(Error::Io)?;
        }
        made
    }

    fn create_on(
        storage: &Arc<OsStorage>,
        path: &Path,
        schema: &Schema,
        options: &Options,
    ) -> Result<Self, Error> {
        let machine = Machine::os(Arc::clone(storage), options.workers).map_err(Error::Io)?;
        let geometry = options.geometry.unwrap_or_default();
        Self::format(&machine, path, schema, &geometry, options)?;
        Self::open_on(machine, path, schema, options, Mode::FILE)
    }

    /// Opens the file at `path` for reading and writing, with everything that was committed.
    ///
    /// # Errors
    /// A file that is missing, locked, not one of ours, damaged, or that differs from what the schema and
    /// options say. Nothing on it is changed then.
    pub fn open(path: impl AsRef<Path>, schema: &Schema, options: &Options) -> Result<Self, Error> {
        Self::open_path(path.as_ref(), schema, options, false)
    }

    /// As [`open`](Self::open), of a file whose journal is damaged: gives up the ops that are lost, and all after
    /// them. The superblock records that this was done. A file with a good journal is just opened.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for [`Error::JournalDamaged`]. [`Error::BeyondSalvage`] where ops are lost that the
    /// checkpoint counts: without them there is no state to go on from.
    pub fn salvage(path: impl AsRef<Path>, schema: &Schema, options: &Options) -> Result<Self, Error> {
        check_threads(options)?;
        let storage = OsStorage::open(path.as_ref(), storage_options(options, false)).map_err(Error::Open)?;
        let machine = Machine::os(storage, options.workers).map_err(Error::Io)?;
        Self::open_on(machine, path.as_ref(), schema, options, Mode { salvage: true, ..Mode::FILE })
    }

    /// Opens the file at `path` for reading only, as its last checkpoint has it in tables: the last bar before that,
    /// and what is in the journal alone, does not show. A writer may be at work on it: when that has reused blocks
    /// which this handle needs, reads give [`Error::Expired`].
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the lock.
    pub fn open_read_only(path: impl AsRef<Path>, schema: &Schema, options: &Options) -> Result<Self, Error> {
        Self::open_path(path.as_ref(), schema, options, true)
    }

    fn open_path(path: &Path, schema: &Schema, options: &Options, read_only: bool) -> Result<Self, Error> {
        check_threads(options)?;
        let storage = OsStorage::open(path, storage_options(options, read_only));
        let storage = storage.map_err(Error::Open)?;
        let machine = Machine::os(storage, options.workers).map_err(Error::Io)?;
        Self::open_on(machine, path, schema, options, Mode { read_only, ..Mode::FILE })
    }

    /// Makes an empty database on the storage of `machine`, which is what [`create`](Self::create) does with
    /// a file. `path` is for messages only.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn format(
        machine: &Machine,
        path: &Path,
        schema: &Schema,
        geometry: &Geometry,
        options: &Options,
    ) -> Result<(), Error> {
        check(schema, geometry, options)?;
        let trees = schema.describe();
        let state = FormatState { geometry: *geometry, trees: &trees, size_limit: options.size_limit };
        understory_journal::format(machine, geometry).map_err(|error| journal_error(error, path))?;
        Grid::format(machine, &state).map_err(|error| Error::from(error).of_file(path))
    }

    /// As [`salvage`](Self::salvage), on the storage of `machine`. `path` is for messages only.
    ///
    /// # Errors
    /// As [`salvage`](Self::salvage).
    pub fn salvage_machine(
        machine: Machine,
        path: &Path,
        schema: &Schema,
        options: &Options,
    ) -> Result<Self, Error> {
        Self::open_on(machine, path, schema, options, Mode { read_only: false, touch: false, salvage: true })
    }

    /// Opens the database on the storage of `machine`, real or simulated. `path` is for messages only.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_machine(
        machine: Machine,
        path: &Path,
        schema: &Schema,
        options: &Options,
        read_only: bool,
    ) -> Result<Self, Error> {
        Self::open_on(machine, path, schema, options, Mode { read_only, touch: false, salvage: false })
    }

    fn open_on(
        machine: Machine,
        path: &Path,
        schema: &Schema,
        options: &Options,
        mode: Mode,
    ) -> Result<Self, Error> {
        let unusable = |source| Error::Unusable { path: path.into(), source };
        let geometry = Grid::peek(&machine).map_err(unusable)?.checkpoint.geometry;
        if let Some(difference) = options.geometry.as_ref().and_then(|asked| asked.differs(&geometry)) {
            let (field, file, asked) = (difference.field, difference.theirs, difference.ours);
            return Err(Error::GeometryDiffers { path: path.into(), field, file, asked });
        }
        schema.check(&geometry)?;
        let budget = Budget::divide(options.memory, &geometry, schema.trees(), mode.read_only)?;
        let arena = arena_of(&budget, &geometry, options.memory)?;
        if mode.touch {
            arena.touch();
        }
        let chunks =
            arena.pool(usize_of(geometry.block_size), usize_of(budget.chunk_count)).map_err(Error::Io)?;
        let group_size = usize::try_from(buffer_size(&geometry)).unwrap_or(usize::MAX);
        let groups = arena.pool(group_size, usize_of(budget.group_count)).map_err(Error::Io)?;
        let grid = Arc::new(Grid::load(machine.clone(), &arena, budget.grid).map_err(unusable)?);
        if !mode.read_only {
            // Replay draws the blocks that it drew before, and those are in the file.
            check_limit(options, machine.storage.size().max(Grid::size_min(&geometry)))?;
        }
        if let Some(difference) = schema.differs(grid.trees()) {
            return Err(Error::SchemaDiffers { path: path.into(), difference });
        }
        let forest =
            Forest::open(Arc::clone(&grid), schema.trees(), &chunks, budget.filters).map_err(|error| {
                match error {
                    error if is_expired(&error, &grid) => Error::Expired,
                    ForestError::Corrupt(corruption) => unusable(GridError::Corrupt(corruption)),
                    error @ ForestError::Grid(_) => error.into(),
                }
            })?;
        if let Some(limit) = options.size_limit.filter(|_| !mode.read_only) {
            grid.set_size_limit(limit);
        }
        let recovery = Recover { machine: &machine, arena: &arena, path, options, salvage: mode.salvage };
        let (applier, journal) =
            if mode.read_only { (Applier::new(forest, NO_MARK), None) } else { recovery.run(forest)? };
        let sequencer = Sequencer::new(machine.clone(), applier, journal, groups);
        Ok(Self::new(path, machine, sequencer))
    }
}

/// How a storage is opened.
#[derive(Clone, Copy, Debug)]
struct Mode {
    read_only: bool,
    /// Whether all memory is taken from the operating system at once, so that no commit waits for it.
    touch: bool,
    /// Whether a damaged journal is cut before the damage.
    salvage: bool,
}

impl Mode {
    /// A file, to be written.
    const FILE: Self = Self { read_only: false, touch: true, salvage: false };
}

/// Whether damage that a read-only handle met may be a writer's reuse of blocks, or its cutting of the file.
pub(crate) fn is_expired(error: &ForestError, grid: &Grid) -> bool {
    let is_damage = match error {
        ForestError::Corrupt(_) => true,
        ForestError::Grid(error) => {
            let cut = |error: &IoError| error.source == IoCause::Truncated;
            matches!(error, GridError::Io(source) | GridError::Unreadable { source, .. } if cut(source))
        }
    };
    is_damage && grid.is_read_only() && grid.is_overtaken()
}

fn check(schema: &Schema, geometry: &Geometry, options: &Options) -> Result<(), Error> {
    geometry.validate()?;
    schema.check(geometry)?;
    check_limit(options, Grid::size_min(geometry))?;
    check_threads(options)?;
    Budget::divide(options.memory, geometry, schema.trees(), false).map(|_| ())
}

fn check_threads(options: &Options) -> Result<(), Error> {
    match options.io_threads {
        0 => Err(Error::OptionTooSmall { option: "io_threads", needed: 1, given: 0 }),
        _ => Ok(()),
    }
}

fn check_limit(options: &Options, needed: u64) -> Result<(), Error> {
    match options.size_limit {
        Some(given) if given < needed => Err(Error::OptionTooSmall { option: "size_limit", needed, given }),
        Some(_) | None => Ok(()),
    }
}

/// All memory at once: what the machine does not give is too much.
fn arena_of(budget: &Budget, geometry: &Geometry, given: u64) -> Result<Arena, Error> {
    let size = budget.arena_size(geometry).ok_or(Error::MemoryTooLarge { given })?;
    Arena::new(size).map_err(|error| {
        log::error!("{size} bytes of memory are refused: {error}");
        Error::MemoryTooLarge { given }
    })
}

fn storage_options(options: &Options, read_only: bool) -> understory_io::Options {
    understory_io::Options { read_only, threads: options.io_threads, ..understory_io::Options::default() }
}
