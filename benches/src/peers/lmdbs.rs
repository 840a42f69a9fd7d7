//! LMDB: one transaction that writes at a time; pages are read through the memory map and written by calls.
//!
//! Each transaction is synced (the default: the pages, then the meta page). `MDB_WRITEMAP` was slower at each point.

use crate::Failure;
use crate::engine::{Direction, Engine, Scanned, Session, mark};
use crate::records::Sample;
use heed::types::Bytes;
use heed::{Database, Env, EnvOpenOptions};
use std::ops::Bound;
use std::path::Path;

/// Address space for the file; pages are allocated as they are written.
const MAP_SIZE: usize = 64 << 30;

type Rows = Database<Bytes, Bytes>;
type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

pub(crate) struct Lmdbs {
    env: Env,
    rows: Rows,
}

impl Lmdbs {
    pub(crate) fn create(folder: &Path) -> Result<Lmdbs, Failure> {
        let env = open(folder)?;
        let mut transaction = env.write_txn()?;
        let rows = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Lmdbs { env, rows })
    }
}

#[expect(unsafe_code, reason = "nobody else opens or changes the file while it is mapped")]
fn open(folder: &Path) -> Result<Env, Failure> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_SIZE);
    // SAFETY: the folder is the benchmark's own.
    Ok(unsafe { options.open(folder)? })
}

impl Engine for Lmdbs {
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
        let transaction = self.env.read_txn()?;
        Ok(self.rows.get(&transaction, &key.to_be_bytes())?.and_then(mark))
    }

    fn scan(&self, key: u128, count: u64, direction: Direction) -> Result<Scanned, Failure> {
        let transaction = self.env.read_txn()?;
        let key = key.to_be_bytes();
        let count = usize::try_from(count)?;
        let mut scanned = Scanned::default();
        match direction {
            Direction::Forwards => {
                let range: Range<'_> = (Bound::Included(&key), Bound::Unbounded);
                for row in self.rows.range(&transaction, &range)?.take(count) {
                    scanned.take(row?.1);
                }
            }
            Direction::Backwards => {
                let range: Range<'_> = (Bound::Unbounded, Bound::Included(&key));
                for row in self.rows.rev_range(&transaction, &range)?.take(count) {
                    scanned.take(row?.1);
                }
            }
        }
        Ok(scanned)
    }
}

struct Writer<'a>(&'a Lmdbs);

impl Session for Writer<'_> {
    fn put(&mut self, batch: &[Sample]) -> Result<(), Failure> {
        let mut transaction = self.0.env.write_txn()?;
        for sample in batch {
            self.0.rows.put(&mut transaction, &sample.key.to_be_bytes(), &sample.value)?;
        }
        Ok(transaction.commit()?)
    }
}
