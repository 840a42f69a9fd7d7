//! fjall: journal written but never synced before the end, no compression, bloom filters.

use crate::Failure;
use crate::engine::{CACHE_SIZE, Direction, Engine, Scanned, mark};
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
    pub(crate) fn create(folder: &Path) -> Result<Fjalls, Failure> {
        let db = Database::builder(folder).cache_size(CACHE_SIZE).manual_journal_persist(true).open()?;
        let rows = db.keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(128 << 20))?;
        Ok(Fjalls { db, rows })
    }

    fn is_busy(&self) -> bool {
        self.db.active_compactions() > 0 || self.db.outstanding_flushes() > 0
    }
}

impl Engine for Fjalls {
    fn put(&mut self, batch: &[Sample]) -> Result<(), Failure> {
        let mut writes = self.db.batch();
        for sample in batch {
            writes.insert(&self.rows, sample.key.to_be_bytes(), sample.value);
        }
        Ok(writes.commit()?)
    }

    fn sync(&mut self) -> Result<(), Failure> {
        self.rows.rotate_memtable_and_wait()?;
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    fn settle(&mut self) -> Result<(), Failure> {
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
