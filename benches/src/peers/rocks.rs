//! RocksDB: no compression, large memtables, bloom filters, direct reads, and indexes and filters in the cache, where
//! memory is to be the limit.
//!
//! Its log is synced by each write (which a leader does for the whole queue); its files are recycled, so that a sync need
//! not also write the file's size, and the files that background jobs write are synced little by little, so that a
//! commit's sync does not wait for theirs. Pipelined writes and recycled logs were each faster than without at most
//! points.

use crate::Failure;
use crate::engine::{Direction, Engine, MEMORY, Scanned, Session, mark};
use crate::peers::MEMTABLE;
use crate::records::Sample;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBRawIterator, Options, WaitForCompactOptions, WriteBatch, WriteOptions,
};
use std::path::Path;

pub(crate) struct Rocks(DB);

impl Rocks {
    pub(crate) fn create(folder: &Path, memory: u64) -> Result<Rocks, Failure> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(usize::try_from(memory)?));
        blocks.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(usize::try_from(memory / MEMTABLE)?);
        options.set_max_write_buffer_number(4);
        options.set_max_background_jobs(2);
        options.set_target_file_size_base(64 << 20);
        options.set_max_bytes_for_level_base(memory / 2);
        options.set_recycle_log_file_num(4);
        options.set_bytes_per_sync(1 << 20);
        options.set_enable_pipelined_write(true);
        if memory < MEMORY {
            options.set_use_direct_reads(true);
            blocks.set_cache_index_and_filter_blocks(true);
        }
        options.set_block_based_table_factory(&blocks);
        Ok(Rocks(DB::open(&options, folder)?))
    }
}

impl Engine for Rocks {
    fn session(&self) -> Box<dyn Session + '_> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Box::new(Writer { db: &self.0, options })
    }

    fn rest(&self) -> Result<(), Failure> {
        self.0.flush()?;
        Ok(self.0.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn settle(&self) -> Result<(), Failure> {
        self.0.flush()?;
        self.0.compact_range::<&[u8], &[u8]>(None, None);
        Ok(())
    }

    fn get(&self, key: u128) -> Result<Option<[u8; 8]>, Failure> {
        Ok(self.0.get_pinned(key.to_be_bytes())?.and_then(|value| mark(&value)))
    }

    fn scan(&self, key: u128, count: u64, direction: Direction) -> Result<Scanned, Failure> {
        let mut rows: DBRawIterator<'_> = self.0.raw_iterator();
        match direction {
            Direction::Forwards => rows.seek(key.to_be_bytes()),
            Direction::Backwards => rows.seek_for_prev(key.to_be_bytes()),
        }
        let mut scanned = Scanned::default();
        while scanned.count < count
            && let Some(value) = rows.value()
        {
            scanned.take(value);
            match direction {
                Direction::Forwards => rows.next(),
                Direction::Backwards => rows.prev(),
            }
        }
        rows.status()?;
        Ok(scanned)
    }
}

struct Writer<'a> {
    db: &'a DB,
    options: WriteOptions,
}

impl Session for Writer<'_> {
    fn put(&mut self, batch: &[Sample]) -> Result<(), Failure> {
        let mut writes = WriteBatch::default();
        for sample in batch {
            writes.put(sample.key.to_be_bytes(), sample.value);
        }
        Ok(self.db.write_opt(writes, &self.options)?)
    }
}
