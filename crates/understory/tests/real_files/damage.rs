//! A sample of damage to real files: flipped bytes, zeroed sectors, swapped sectors, cut ends. To open and read
//! everything gives the right data or a typed error, never a panic and never wrong data.
//!
//! Two images: one of a process that was killed, whose last group nothing in the file attests, so that damage to it is
//! a tail that was torn; and the same after an open, whose superblock attests all of the journal.
//!
//! # Not here
//! Every byte in turn: that is tried on simulated storage.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use understory::{Database, Error, GridError};

use crate::load::{self, schema, small};

const SECTOR: usize = 4096;
const LAST: u64 = 460;

/// What is done to an image.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip { offset: usize, mask: u8 },
    Zero { sector: usize },
    Swap { one: usize, other: usize },
    Cut { sector: usize },
}

impl Damage {
    fn random(kind: usize, image: &[u8], rng: &mut fastrand::Rng) -> Self {
        let sectors = image.len() / SECTOR;
        match kind % 4 {
            0 => Self::Flip { offset: rng.usize(..image.len()), mask: 1 << rng.u8(..8) },
            1 => Self::Zero { sector: rng.usize(..sectors) },
            2 => Self::Swap { one: rng.usize(..sectors), other: rng.usize(..sectors) },
            _ => Self::Cut { sector: rng.usize(..sectors) },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Flip { .. } => "flip",
            Self::Zero { .. } => "zero",
            Self::Swap { .. } => "swap",
            Self::Cut { .. } => "cut",
        }
    }

    fn apply(self, image: &mut Vec<u8>) {
        let range = |sector: usize| sector * SECTOR..(sector + 1) * SECTOR;
        match self {
            Self::Flip { offset, mask } => image[offset] ^= mask,
            Self::Zero { sector } => image[range(sector)].fill(0),
            Self::Swap { one, other } => {
                let bytes = image[range(one)].to_vec();
                image.copy_within(range(other), one * SECTOR);
                image[range(other)].copy_from_slice(&bytes);
            }
            Self::Cut { sector } => image.truncate(sector * SECTOR),
        }
    }
}

/// The bytes of a file that was killed.
fn killed(path: &Path) -> Vec<u8> {
    let database = Database::create(path, &schema(), &small()).unwrap();
    for number in 1..=LAST {
        load::commit(&database, 0, number).unwrap();
    }
    let stats = database.stats();
    let levels = stats.trees[0].levels.iter().filter(|level| level.table_count > 0).count();
    assert!(levels >= 2, "{levels} levels");
    assert!(stats.checkpoint_number >= 3, "{} checkpoints", stats.checkpoint_number);
    // Nobody writes now; what a drop would still do is not done to a copy.
    let image = fs::read(path).unwrap();
    drop(database);
    image
}

/// The same file opened once more.
fn opened(path: &Path, image: &[u8]) -> Vec<u8> {
    fs::write(path, image).unwrap();
    drop(Database::open(path, &schema(), &small()).unwrap());
    fs::read(path).unwrap()
}

/// Opens and reads everything; `lost` batches at the end may be missing.
fn outcome(path: &Path, lost: u64) -> &'static str {
    let database = match Database::open(path, &schema(), &small()) {
        Ok(database) => database,
        Err(error) => return kind(&error, true),
    };
    match load::check(&database) {
        Err(error) => kind(&error, false),
        Ok(heads) if heads[&0] == LAST && database.stats().grid.twin_fallbacks > 0 => {
            "right, from the other copy"
        }
        Ok(heads) if heads[&0] == LAST => "right",
        Ok(heads) => {
            assert!(heads[&0] + lost >= LAST, "batch {} is the last, of {LAST}", heads[&0]);
            "the last batch is a torn tail"
        }
    }
}

fn kind(error: &Error, at_open: bool) -> &'static str {
    match error {
        Error::Corrupt(_) if !at_open => "read: corrupt",
        Error::Unreadable { .. } if !at_open => "read: unreadable",
        Error::JournalDamaged { .. } => "open: journal damaged",
        Error::Corrupt(_) => "open: corrupt while replaying",
        Error::Unreadable { .. } => "open: unreadable while replaying",
        Error::Unusable { source: GridError::Corrupt(_), .. } => "open: corrupt",
        Error::Unusable { source: GridError::QuorumLost { .. }, .. } => "open: quorum lost",
        Error::Unusable { source: GridError::NotUnderstory, .. } => "open: not ours",
        Error::Unusable { .. } => "open: unusable",
        other => panic!("damage gives an error that names it, not {other:?}"),
    }
}

fn sweep(path: &Path, image: &[u8], samples: usize, lost: u64, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut counts = BTreeMap::<(&str, &str), u32>::new();
    for sample in 0..samples {
        let damage = Damage::random(sample, image, &mut rng);
        let mut damaged = image.to_vec();
        damage.apply(&mut damaged);
        fs::write(path, &damaged).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| outcome(path, lost)));
        let outcome = outcome.unwrap_or_else(|_| panic!("seed {seed}, sample {sample}: {damage:?}"));
        *counts.entry((damage.name(), outcome)).or_default() += 1;
    }
    println!("{samples} samples of an image of {} bytes:", image.len());
    for ((damage, outcome), count) in counts {
        println!("  {damage}: {outcome}: {count}");
    }
}

/// How many samples of each image: `UNDERSTORY_DAMAGE_SAMPLES`, or some.
fn samples() -> usize {
    let asked = std::env::var("UNDERSTORY_DAMAGE_SAMPLES").ok().and_then(|samples| samples.parse().ok());
    asked.unwrap_or(if cfg!(debug_assertions) { 60 } else { 400 })
}

#[test]
fn of_a_file_whose_journal_is_attested() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    let image = killed(&path);
    let image = opened(&path, &image);
    sweep(&path, &image, samples(), 0, 1);
}

#[test]
fn of_a_file_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    let image = killed(&path);
    // A swap may hit two groups.
    sweep(&path, &image, samples(), 2, 2);
}
