//! Understory as a benchmark uses it.

use crate::Failure;
use crate::engine::{CACHE_SIZE, Direction, Engine, Scanned, mark};
use crate::records::{Sample, VALUE_SIZE};
use std::path::Path;
use understory::{Batch, Database, Options, Schema, record};
use zerocopy::little_endian::U128;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Row {
    key: U128,
    value: [u8; VALUE_SIZE],
}

record! { Row: "rows", key = { key: U128 } }

/// One file with one tree.
pub(crate) struct Ours {
    db: Database,
    batch: Batch,
}

impl Ours {
    pub(crate) fn create(folder: &Path) -> Result<Ours, Failure> {
        let options = Options::default().memory(CACHE_SIZE);
        let schema = Schema::new().tree::<Row>();
        let db = Database::create(folder.join("bench.understory"), &schema, &options)?;
        Ok(Ours { db, batch: Batch::new() })
    }
}

impl Engine for Ours {
    fn put(&mut self, batch: &[Sample]) -> Result<(), Failure> {
        self.batch.clear();
        for sample in batch {
            self.batch.put(&Row { key: U128::new(sample.key), value: sample.value });
        }
        Ok(self.db.commit(&self.batch)?)
    }

    fn sync(&mut self) -> Result<(), Failure> {
        Ok(self.db.checkpoint()?)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        Ok(self.db.settle()?)
    }

    fn get(&self, key: u128) -> Result<Option<[u8; 8]>, Failure> {
        Ok(self.db.get::<Row>(key)?.and_then(|row| mark(&row.value)))
    }

    fn scan(&self, key: u128, count: u64, direction: Direction) -> Result<Scanned, Failure> {
        let count = usize::try_from(count)?;
        let mut scanned = Scanned::default();
        match direction {
            Direction::Forwards => {
                for row in self.db.scan::<Row>(key..)?.take(count) {
                    scanned.take(&row?.value);
                }
            }
            Direction::Backwards => {
                for row in self.db.scan_rev::<Row>(..=key)?.take(count) {
                    scanned.take(&row?.value);
                }
            }
        }
        Ok(scanned)
    }
}
