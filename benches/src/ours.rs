//! Understory as a benchmark uses it: the default options, but for the memory that every engine gets, and the geometry
//! for that memory.

use crate::Failure;
use crate::engine::{Direction, Engine, Scanned, Session, mark};
use crate::records::{Sample, VALUE_SIZE};
use std::path::Path;
use understory::{Batch, Database, Geometry, Options, Schema, record};
use zerocopy::little_endian::U128;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Row {
    key: U128,
    value: [u8; VALUE_SIZE],
}

record! { Row: "rows", key = { key: U128 } }

impl Row {
    pub(crate) fn of(sample: &Sample) -> Row {
        Row { key: U128::new(sample.key), value: sample.value }
    }
}

/// One file with one tree.
pub(crate) struct Ours(Database);

impl Ours {
    pub(crate) fn create(folder: &Path, memory: u64) -> Result<Ours, Failure> {
        let options = Options::default().memory(memory).geometry(Geometry::for_memory(memory));
        let schema = Schema::new().tree::<Row>();
        Ok(Ours(Database::create(folder.join("bench.understory"), &schema, &options)?))
    }
}

impl Engine for Ours {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Writer { db: &self.0, batch: Batch::new() })
    }

    fn rest(&self) -> Result<(), Failure> {
        Ok(self.0.checkpoint()?)
    }

    fn settle(&self) -> Result<(), Failure> {
        Ok(self.0.settle()?)
    }

    fn get(&self, key: u128) -> Result<Option<[u8; 8]>, Failure> {
        Ok(self.0.get::<Row>(key)?.and_then(|row| mark(&row.value)))
    }

    fn scan(&self, key: u128, count: u64, direction: Direction) -> Result<Scanned, Failure> {
        let count = usize::try_from(count)?;
        let mut scanned = Scanned::default();
        match direction {
            Direction::Forwards => {
                for row in self.0.scan::<Row>(key..)?.take(count) {
                    scanned.take(&row?.value);
                }
            }
            Direction::Backwards => {
                for row in self.0.scan_rev::<Row>(..=key)?.take(count) {
                    scanned.take(&row?.value);
                }
            }
        }
        Ok(scanned)
    }

    fn journal_size(&self) -> u64 {
        self.0.geometry().journal_size
    }

    fn checkpoints(&self) -> Option<u64> {
        Some(self.0.stats().checkpoint_number)
    }
}

/// A batch that is filled again and again.
struct Writer<'a> {
    db: &'a Database,
    batch: Batch,
}

impl Session for Writer<'_> {
    fn put(&mut self, batch: &[Sample]) -> Result<(), Failure> {
        self.batch.clear();
        for sample in batch {
            self.batch.put(&Row::of(sample));
        }
        let _op = self.db.commit(&self.batch)?;
        Ok(())
    }
}
