//! fjall: no compression, bloom filters, large memtables.
//!
//! Each batch asks for a sync of its own (there is no way to share one), of the journal's data: the same promise as
//! `SyncAll`, without waiting for the file's times.

use crate::Failure;
use crate::engine::{Direction, Engine, Scanned, Session, mark};
use crate::peers::MEMTABLE;
use crate::records::Sample;
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;
use std::time::Duration;

pub(crate) struct Fjalls {
    db: Database,
    rows: Keyspace,
}

/// How long nothing must be compacted before everything counts as settled.
const QUIET: Duration = Duration::from_millis(500);

impl Fjalls {
    pub(crate) fn create(folder: &Path, memory: u64) -> Result<Fjalls, Failure> {
        let db = Database::builder(folder).cache_size(memory).manual_journal_persist(true).open()?;
        let rows =
            db.keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(memory / MEMTABLE))?;
        Ok(Fjalls { db, rows })
    }

    fn is_busy(&self) -> bool {
        self.db.active_compactions() > 0 || self.db.outstanding_flushes() > 0
    }
}

impl Engine for Fjalls {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Writer(self))
    }

    fn settle(&self) -> Result<(), Failure> {
        self.rows.rotate_memtable_and_wait()?;
        Ok(self.rows.major_compact()?)
    }

    fn rest(&self) -> Result<(), Failure> {
        self.rows.rotate_memtable_and_wait()?;
        let mut quiet = Duration::ZERO;
        let step = QUIET / 10;
        while quiet < QUIET {
            std::thread::sleep(step);
            quiet = if self.is_busy() { Duration::ZERO } else { quiet + step };
        }
        Ok(())
    }

    fn get(&self, key: u128) -> Result<Option<[u8; 8]>, Failure> {
        Ok(self.rows.get(key.to_be_bytes())?.and_then(|value| mark(&value)))
    }

    fn scan(&self, key: u128, count: u64, direction: Direction) -> Result<Scanned, Failure> {
        let key = key.to_be_bytes();
        let count = usize::try_from(count)?;
        let mut scanned = Scanned::default();
        let mut take = |row: Guard| -> Result<(), Failure> {
            scanned.take(&row.value()?);
            Ok(())
        };
        match direction {
            Direction::Forwards => self.rows.range(key..).take(count).try_for_each(&mut take)?,
            Direction::Backwards => self.rows.range(..=key).rev().take(count).try_for_each(&mut take)?,
        }
        Ok(scanned)
    }
}

struct Writer<'a>(&'a Fjalls);

impl Session for Writer<'_> {
    fn put(&mut self, batch: &[Sample]) -> Result<(), Failure> {
        let mut writes = self.0.db.batch().durability(Some(PersistMode::SyncData));
        for sample in batch {
            writes.insert(&self.0.rows, sample.key.to_be_bytes(), sample.value);
        }
        Ok(writes.commit()?)
    }
}
