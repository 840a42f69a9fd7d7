//! Commits to a file that has been written to for long: whether any of them does much more work than others.
//!
//! Understory alone: random records come in until so many bytes were written to the file that levels are full and
//! compaction has gone on for many bars. Then one thread commits batches of 1, 64 and 8,190 records, each waiting for a
//! sync, and then the same without (`Buffered`). The commits that fall within a beat of the end of a half-bar, or during
//! which a checkpoint became durable, are also counted alone: that is where work that is not spread evenly would show.

use crate::Failure;
use crate::commits::{Times, times};
use crate::engine::{Kind, MEMORY};
use crate::measure;
use crate::ours::Row;
use crate::records::{Order, Samples};
use crate::report::{Better, Metric, Results};
use crate::suite::{BATCH, Scale, float};
use std::path::Path;
use std::time::Duration;
use understory::{Batch, Database, Durability, Options, Schema};

/// Bytes written to the file for each record of the scale, before anything is timed: 20 GB at full scale.
const WRITTEN: u64 = 2000;
/// Each kind of commit goes on for so many times the time of a point of the commits: several bars of single records.
const TIME: u32 = 6;
/// Records of the batches.
const BATCHES: [u64; 3] = [1, 64, BATCH];

/// Ages a file and commits to it, in a folder that is emptied before and after.
pub(crate) fn run(scale: &Scale, folder: &Path, results: &mut Results) -> Result<(), Failure> {
    measure::empty(folder)?;
    let options = Options::default().memory(MEMORY).geometry(understory::Geometry::for_memory(MEMORY));
    let db = Database::create(folder.join("bench.understory"), &Schema::new().tree::<Row>(), &options)?;
    let mut aged = Aged { db: &db, samples: Samples::new(Order::Random), next: 0, batch: Batch::new() };
    while db.stats().written().total() < scale.records * WRITTEN {
        aged.commit(BATCH, Durability::Buffered)?;
    }
    db.checkpoint()?;
    eprintln!("{}", db.stats());
    for records in BATCHES {
        for (durability, name) in [(Durability::Synced, "synced"), (Durability::Buffered, "buffered")] {
            let before = (db.stats().waits, measure::steal());
            let found = aged.time(records, durability, scale.commit_time * TIME)?;
            let (waits, stolen) =
                (db.stats().waits, measure::steal().zip(before.1).map(|(now, then)| now - then));
            let mut add = |what: &str, unit, value| {
                let name = format!("aged, {records} {name}{what}");
                results.add(Metric { name, unit, better: Better::Less }, Kind::Understory, value);
            };
            for (what, quantile) in [(", p50", 0.5), (", p99", 0.99), (", p99.9", 0.999), (", max", 1.0)] {
                add(what, "ms", float(found.all.value_at_quantile(quantile)) / 1e6);
            }
            add(", p99.9 near half-bars", "ms", float(found.near.value_at_quantile(0.999)) / 1e6);
            add(", p99.9 elsewhere", "ms", float(found.elsewhere.value_at_quantile(0.999)) / 1e6);
            add(", half-bars", "in all", float(found.half_bars));
            for (what, now, then) in [
                (", beats waited for", waits.beat, before.0.beat),
                (", checkpoints waited for", waits.checkpoint, before.0.checkpoint),
                (", waits for the ring", waits.ring, before.0.ring),
            ] {
                if now.count > then.count {
                    add(what, "in all", float(now.count - then.count));
                    add(&format!("{what}, time"), "ms", (now.total - then.total).as_secs_f64() * 1e3);
                }
            }
            if let Some(stolen) = stolen {
                add(", stolen", "ms", stolen.as_secs_f64() * 1e3);
            }
        }
    }
    drop(db);
    measure::empty(folder)
}

struct Aged<'a> {
    db: &'a Database,
    samples: Samples,
    /// The number of the next record.
    next: u64,
    batch: Batch,
}

/// Times of commits.
struct Found {
    all: Times,
    /// Of those within a beat of the end of a half-bar, or during which a checkpoint became durable.
    near: Times,
    elsewhere: Times,
    half_bars: u64,
}

impl Aged<'_> {
    /// Commits new records; how long the commit took.
    fn commit(&mut self, records: u64, durability: Durability) -> Result<Duration, Failure> {
        self.batch.clear();
        for n in self.next..self.next + records {
            self.batch.put(&Row::of(&self.samples.sample(n)));
        }
        self.next += records;
        let start = measure::now();
        let _op = self.db.commit_with(&self.batch, durability)?;
        Ok(start.elapsed())
    }

    fn time(&mut self, records: u64, durability: Durability, time: Duration) -> Result<Found, Failure> {
        let half = u64::from(self.db.geometry().beats_per_bar / 2);
        let mut found = Found { all: times(), near: times(), elsewhere: times(), half_bars: 0 };
        let start = measure::now();
        let (mut beat, mut checkpoint) = self.at();
        while start.elapsed() < time {
            let took = u64::try_from(self.commit(records, durability)?.as_nanos())?;
            let (beat_now, checkpoint_now) = self.at();
            let is_near =
                matches!(beat_now % half, 0 | 1) || (beat_now + 1) % half == 0 || checkpoint_now > checkpoint;
            found.all.saturating_record(took);
            if is_near { &mut found.near } else { &mut found.elsewhere }.saturating_record(took);
            found.half_bars += beat_now / half - beat / half;
            (beat, checkpoint) = (beat_now, checkpoint_now);
        }
        Ok(found)
    }

    /// The beat, and the number of the newest checkpoint.
    fn at(&self) -> (u64, u64) {
        let stats = self.db.stats();
        (stats.beat, stats.checkpoint_number)
    }
}
