//! Memory is fixed at open: what goes on for long takes no more of it, and no value costs an allocation.
//!
//! A test binary of its own, as the allocator counts for the whole process.

use std::alloc::System;

use fastrand::Rng;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use understory::{Batch, Database, Durability, Geometry, Options, Schema, record};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Account {
    id: U64,
    body: [u8; 56],
}

record! { Account: "accounts", key = { id: U64 } }

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    body: U64,
    id: U64,
}

record! { Entry: "by-body", key = { body: U64, id: U64 } }

/// Keys that are put and removed again and again: the live set keeps its size.
const KEYS: u64 = 20_000;

/// Bars until every list has the size that it keeps.
const BARS_BEFORE: u64 = 60;
const BARS: u64 = 40;
/// Bytes: how much lists of tables and blocks may differ from one moment to another.
const GROWTH_MAX: i64 = 64 << 10;
/// What a commit, its share of compaction and the scans between commits allocate is shared by its values: 50 or so of
/// each tree.
const VALUES_PER_ALLOCATION: u64 = 8;

struct Work<'a> {
    db: &'a Database,
    random: Rng,
    batch: Batch,
    values: u64,
}

impl Work<'_> {
    /// Commits until so many bars more have been closed, with reads between commits.
    fn bars(&mut self, count: u64) {
        let beats = u64::from(self.db.geometry().beats_per_bar);
        let end = self.db.stats().beat + count * beats;
        while self.db.stats().beat < end {
            for _ in 0..16 {
                self.commit();
            }
            self.read();
        }
    }

    fn commit(&mut self) {
        self.batch.clear();
        for _ in 0..self.random.u64(1..100) {
            let id = self.random.u64(..KEYS);
            let body = self.random.u64(..8);
            if self.random.u8(..8) == 0 {
                self.batch.remove::<Account>(id);
            } else {
                self.batch.put(&Account { id: id.into(), body: [7; 56] });
            }
            self.batch.put(&Entry { body: body.into(), id: id.into() });
            self.values += 2;
        }
        let durability = if self.random.u8(..8) == 0 { Durability::Synced } else { Durability::Buffered };
        let _op = self.db.commit_with(&self.batch, durability).expect("nothing fails");
    }

    fn lookups(&mut self, count: u64) {
        for _ in 0..count {
            let _found = self.db.get::<Account>(self.random.u64(..KEYS)).expect("nothing fails");
        }
    }

    fn read(&mut self) {
        self.lookups(16);
        let from = self.random.u64(..8);
        let entries = self.db.scan::<Entry>((from, 0)..).expect("nothing fails");
        assert!(entries.take(50).all(|entry| entry.is_ok()));
    }
}

/// Bytes that are held more than when the region began.
fn growth(change: Stats) -> i64 {
    let signed = |bytes: usize| i64::try_from(bytes).expect("64-bit");
    signed(change.bytes_allocated) - signed(change.bytes_deallocated)
}

/// Over many bars with checkpoints, with and without workers: what is held at the end is what was held before, there are
/// far fewer allocations than values, and lookups make none.
#[test]
fn memory_does_not_grow() {
    for workers in [0, 2] {
        check(workers);
    }
}

fn check(workers: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let geometry = Geometry {
        block_size: 16 << 10,
        page_size: 4 << 10,
        table_blocks: 16,
        growth: 4,
        beats_per_bar: 16,
        share_size: 64 << 10,
        batch_size_max: 64 << 10,
        ..Geometry::default()
    };
    let options = Options::default().geometry(geometry.with_journal()).memory(64 << 20).workers(workers);
    let schema = Schema::new().tree::<Account>().tree::<Entry>();
    let db = Database::create(folder.path().join("file"), &schema, &options).expect("a file");
    let mut work = Work { db: &db, random: Rng::with_seed(1), batch: Batch::new(), values: 0 };
    work.bars(BARS_BEFORE);
    let (region, checkpoints, values) = (Region::new(ALLOCATOR), db.stats().checkpoint_number, work.values);
    work.bars(BARS);
    let (change, values) = (region.change(), work.values - values);
    assert!(db.stats().checkpoint_number > checkpoints + BARS / 2, "checkpoints are part of it");
    assert!(growth(change) < GROWTH_MAX, "{workers} workers: {change:?} for {values} values");
    let allocations = u64::try_from(change.allocations + change.reallocations).expect("64-bit");
    assert!(
        allocations < values / VALUES_PER_ALLOCATION,
        "{workers} workers: {change:?} for {values} values"
    );
    if workers == 0 {
        // Nothing else is at work then.
        let region = Region::new(ALLOCATOR);
        work.lookups(1000);
        assert_eq!(region.change().allocations, 0, "{:?}", region.change());
    }
}
