//! The life of one handle: a machine is started over what the last one left, the file is opened and looked at, clients
//! work, and it ends by close, kill, crash or failure.
//!
//! # Not here
//! Opening: `opening`. Which lives follow one another: `story`.

use parking_lot::Mutex;
use understory::{CompactionStats, Database, TreeStats};
use understory_format::{RecordKind, u64_of};
use understory_io::SimThreads;

use crate::client::Client;
use crate::fault::{self, Trigger};
use crate::handle::Handle;
use crate::trace::Violation;
use crate::verdict;
use crate::world::{Rig, World};

/// How a handle ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By `close`.
    Closed,
    /// The process ends; the operating system keeps what it was given.
    Killed,
    /// The machine crashes at rest.
    Crashed,
    /// It took no more writes, or the machine had crashed.
    Dropped,
}

impl Ending {
    fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Killed => "killed",
            Self::Crashed => "crashed at rest",
            Self::Dropped => "dropped",
        }
    }
}

impl World<'_> {
    /// One life, with these faults.
    pub(crate) fn live(&mut self, triggers: Vec<Trigger>) -> Result<(), Violation> {
        let ending = self.ending();
        self.live_to(triggers, ending)
    }

    /// One life, with these faults and this end.
    pub(crate) fn live_to(&mut self, triggers: Vec<Trigger>, ending: Ending) -> Result<(), Violation> {
        self.tally.count("lives");
        self.trace.note(&[5], || format!("-- a life, with {triggers:?}"));
        if self.is_made && self.rng.u8(0..4) == 0 {
            self.look_in()?;
        }
        if self.is_lost {
            return Ok(());
        }
        if let Some((rig, database)) = self.open(triggers)? {
            self.take_in(&rig, &database)?;
            self.work(&rig, &database)?;
            self.end(rig, database, ending)?;
        }
        match self.watch.lock().violation() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    /// Opens the file, looks, and lets it be: whoever opens it next finds the same.
    pub(crate) fn look_in(&mut self) -> Result<(), Violation> {
        let Some((rig, database)) = self.open(Vec::new())? else { return Ok(()) };
        self.take_in(&rig, &database)?;
        let op = database.visible_op().get();
        drop(database);
        self.put_away(rig);
        let Some((rig, database)) = self.open(Vec::new())? else {
            return if self.harm.is_anywhere() {
                Ok(())
            } else {
                Err(Violation::new("a file opens once, and then no more"))
            };
        };
        let again = database.visible_op().get();
        drop(database);
        self.put_away(rig);
        self.tally.count("opened twice");
        if again == op || self.harm.ring_places() > 0 {
            Ok(())
        } else {
            Err(Violation::new(format!("opened at op {op}, and again, with nothing done, at op {again}")))
        }
    }

    /// Clients and readers do what they do.
    fn work(&mut self, rig: &Rig, database: &Database) -> Result<(), Violation> {
        let scheduler = rig.storage.scheduler();
        let first: Mutex<Option<Violation>> = Mutex::new(None);
        let seeds: Vec<u64> = std::iter::repeat_with(|| self.rng.u64(..)).take(8).collect();
        let handle = self.handle(rig, database);
        let (clients, readers) = (self.scenario.client_count, self.scenario.reader_count);
        let threads = (0..clients + readers).zip(seeds).map(|(number, seed)| {
            let own = (number < clients).then_some(number);
            let name = if own.is_some() { format!("client {number}") } else { format!("reader {number}") };
            let client = Client::new(handle, own, seed);
            let body = || {
                if let Err(violation) = client.run() {
                    let _first = first.lock().get_or_insert(violation);
                }
            };
            let body: Box<dyn FnOnce() + Send> = Box::new(body);
            (name, body)
        });
        SimThreads::run(&scheduler, threads.collect());
        first.into_inner().map_or(Ok(()), Err)
    }

    pub(crate) fn handle<'a>(&'a self, rig: &'a Rig, database: &'a Database) -> Handle<'a> {
        Handle {
            scenario: self.scenario,
            database,
            book: &self.book,
            tap: &rig.tap,
            trace: &self.trace,
            tally: &self.tally,
        }
    }

    /// How a handle ends that nothing else ends.
    fn ending(&mut self) -> Ending {
        match self.rng.u8(0..3) {
            0 => Ending::Closed,
            1 => Ending::Killed,
            _ => Ending::Crashed,
        }
    }

    /// The handle ends as is said, unless a fault has ended it before.
    fn end(&mut self, rig: Rig, database: Database, ending: Ending) -> Result<(), Violation> {
        let harm = rig.tap.harm();
        let has_journal = self.scenario.geometry.has_journal();
        let is_shown_durable = has_journal && self.scenario.mix.buffered_percent == 0;
        let ending = if harm.crashed || harm.write_failed { Ending::Dropped } else { ending };
        self.tally.count(ending.name());
        self.trace.note(&[6, u64_of(ending.name().len())], || format!("-- the handle is {}", ending.name()));
        self.measure(&database);
        match ending {
            Ending::Closed => self.close(&rig, database)?,
            Ending::Killed => {
                drop(database);
                if has_journal {
                    self.book.lock().secure_acknowledged();
                }
            }
            Ending::Crashed => {
                rig.storage.crash(fault::crash_policy(&mut self.rng));
                drop(database);
            }
            Ending::Dropped => drop(database),
        }
        self.put_away(rig);
        let kinds = self.watch.lock().take_kinds();
        let mut book = self.book.lock();
        book.journaled(kinds);
        book.end_life(is_shown_durable)
    }

    /// How far the file came.
    fn measure(&self, database: &Database) {
        let stats = database.stats();
        let CompactionStats { consumed, produced, dropped, .. } = stats.compaction;
        assert_eq!(consumed, produced + dropped, "each value that is compacted is written or dropped");
        let deepest = |tree: &TreeStats| {
            tree.levels
                .iter()
                .enumerate()
                .filter(|(_, level)| level.table_count > 0)
                .map(|(level, _)| level)
                .max()
        };
        if stats.filter_blocks_held > 0 {
            self.tally.count("lives that end with filters in memory");
        }
        self.tally.count(match stats.trees.iter().filter_map(deepest).max() {
            None => "lives that end without tables",
            Some(0) => "lives that end with tables on level 0",
            Some(1) => "lives that end with tables on level 1",
            Some(2) => "lives that end with tables on level 2",
            Some(_) => "lives that end with tables on level 3 or deeper",
        });
        self.tally.add("compactions, merged", stats.compaction.merge_count);
        self.tally.add("compactions, moved", stats.compaction.move_count);
    }

    fn close(&mut self, rig: &Rig, database: Database) -> Result<(), Violation> {
        if !self.scenario.geometry.has_journal() {
            // It takes a checkpoint, if there is anything new.
            self.book.lock().called(RecordKind::Drain, database.visible_op().get());
        }
        match database.close() {
            Ok(()) => {
                let mut book = self.book.lock();
                book.secure_acknowledged();
                book.witness_all();
                Ok(())
            }
            Err(error) => {
                let _refusal = verdict::of_call(&error, &rig.tap.harm())?;
                Ok(())
            }
        }
    }
}
