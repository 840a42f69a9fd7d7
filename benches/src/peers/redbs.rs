//! redb: keys and values of fixed width, one transaction that writes at a time.
//!
//! Each transaction is durable (`Durability::Immediate`, the default: one phase, one sync).

use crate::Failure;
use crate::engine::{Direction, Engine, Scanned, Session, mark};
use crate::records::{Sample, VALUE_SIZE};
use redb::{Builder, Database, ReadOnlyTable, ReadableDatabase, TableDefinition};
use std::path::Path;

const ROWS: TableDefinition<'_, u128, &[u8; VALUE_SIZE]> = TableDefinition::new("rows");

pub(crate) struct Redbs(Database);

impl Redbs {
    pub(crate) fn create(folder: &Path, memory: u64) -> Result<Redbs, Failure> {
        let mut builder = Builder::new();
        builder.set_cache_size(usize::try_from(memory)?);
        let redb = Redbs(builder.create(folder.join("bench.redb"))?);
        redb.write(&[])?;
        Ok(redb)
    }

    fn write(&self, batch: &[Sample]) -> Result<(), Failure> {
        let transaction = self.0.begin_write()?;
        {
            let mut rows = transaction.open_table(ROWS)?;
            for sample in batch {
                rows.insert(sample.key, &sample.value)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn rows(&self) -> Result<ReadOnlyTable<u128, &'static [u8; VALUE_SIZE]>, Failure> {
        Ok(self.0.begin_read()?.open_table(ROWS)?)
    }
}

impl Engine for Redbs {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Writer(self))
    }

    fn rest(&self) -> Result<(), Failure> {
        Ok(())
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
        self.0.write(batch)
    }
}
