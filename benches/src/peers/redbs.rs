//! redb: keys and values of fixed width, one transaction that writes at a time.
//!
//! To ingest, transactions are not made durable before the end. For synced commits each is (`Durability::Immediate`,
//! the default: one phase, one sync).

use crate::Failure;
use crate::engine::{CACHE_SIZE, Direction, Engine, Purpose, Scanned, Session, mark};
use crate::records::{Sample, VALUE_SIZE};
use redb::{Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};
use std::path::Path;

const ROWS: TableDefinition<'_, u128, &[u8; VALUE_SIZE]> = TableDefinition::new("rows");

pub(crate) struct Redbs {
    db: Database,
    purpose: Purpose,
}

impl Redbs {
    pub(crate) fn create(folder: &Path, purpose: Purpose) -> Result<Redbs, Failure> {
        let mut builder = Builder::new();
        builder.set_cache_size(usize::try_from(CACHE_SIZE)?);
        let redb = Redbs { db: builder.create(folder.join("bench.redb"))?, purpose };
        redb.write(&[], Durability::Immediate)?;
        Ok(redb)
    }

    fn write(&self, batch: &[Sample], durability: Durability) -> Result<(), Failure> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut rows = transaction.open_table(ROWS)?;
            for sample in batch {
                rows.insert(sample.key, &sample.value)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn rows(&self) -> Result<ReadOnlyTable<u128, &'static [u8; VALUE_SIZE]>, Failure> {
        Ok(self.db.begin_read()?.open_table(ROWS)?)
    }
}

impl Engine for Redbs {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Writer(self))
    }

    fn sync(&self) -> Result<(), Failure> {
        self.write(&[], Durability::Immediate)
    }

    fn settle(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn get(&self, key: u128) -> Result<Option<[u8; 8]>, Failure> {
        Ok(self.rows()?.get(key)?.and_then(|value| mark(value.value())))
    }

    fn scan(&self, key: u128, count: u64, direction: Direction) -> Result<Scanned, Failure> {
        let rows = self.rows()?;
        let count = usize::try_from(count)?;
        let mut scanned = Scanned::default();
        match direction {
            Direction::Forwards => {
                for row in rows.range(key..)?.take(count) {
                    scanned.take(row?.1.value());
                }
            }
            Direction::Backwards => {
                for row in rows.range(..=key)?.rev().take(count) {
                    scanned.take(row?.1.value());
                }
            }
        }
        Ok(scanned)
    }
}

struct Writer<'a>(&'a Redbs);

impl Session for Writer<'_> {
    fn put(&mut self, batch: &[Sample]) -> Result<(), Failure> {
        let durability = match self.0.purpose {
            Purpose::Ingest => Durability::None,
            Purpose::Commits => Durability::Immediate,
        };
        self.0.write(batch, durability)
    }
}
