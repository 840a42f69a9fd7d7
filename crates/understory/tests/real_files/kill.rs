//! A loading process is killed at a random moment, and the file is opened again: hundreds of times over one file.
//!
//! A round is one process, or a few in a row: then only the last file is looked at. What must be there is known from
//! the acknowledgements (see [`Ledger`]), what it must be from the load. The file grows from round to round; now and
//! then a new one is begun.
//!
//! A test run makes a few rounds. `cargo xtask kill` makes 300, with each geometry.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use understory::{Database, Error, Recovery};

use crate::child::PATIENCE;
use crate::ledger::Ledger;
use crate::loader::{self, Plan};
use crate::{child, load};

const SIGKILL: i32 = 9;

/// When a process is killed: so long after it said a word for the so-many-th time, or, if it says that less often, so
/// long after it had opened the file.
#[derive(Clone, Copy, Debug)]
struct Moment {
    word: &'static str,
    times: u32,
    delay: Duration,
    after_open: Duration,
}

impl Moment {
    /// `scale` is about the time that a loader is given, in milliseconds.
    fn random(rng: &mut fastrand::Rng, scale: u64) -> Self {
        let after_open = rng.u64(0..=scale * 1_000);
        let (word, times, delay) = match rng.u8(0..20) {
            0..=2 => ("opening", 1, rng.u64(0..=scale * 200)),
            3..=4 => ("checking", rng.u32(1..=4), rng.u64(0..=2_000)),
            5..=7 => ("replaying", 1 << rng.u8(0..8), rng.u64(0..=2_000)),
            8..=13 => ("open", 1, after_open),
            14..=17 => ("checkpoint", rng.u32(1..=3), rng.u64(0..=scale * 20)),
            _ => ("closing", 1, rng.u64(0..=scale * 20)),
        };
        Self {
            word,
            times,
            delay: Duration::from_micros(delay),
            after_open: Duration::from_micros(after_open),
        }
    }

    /// How long the loader is to commit before it closes the file.
    fn milliseconds(&self, rng: &mut fastrand::Rng, scale: u64) -> u64 {
        if self.word == "closing" { rng.u64(1..=scale) } else { 2 * scale }
    }
}

/// The file under test, and what was seen so far.
struct Trial {
    folder: tempfile::TempDir,
    small: bool,
    rng: fastrand::Rng,
    /// Bytes after which a new file is begun.
    size_max: u64,
    /// Milliseconds that a loader is given.
    scale: u64,
    ledger: Ledger,
    /// Whether a loader had the file open.
    exists: bool,
    report: Report,
}

/// How long an open took, by its stages.
#[derive(Clone, Copy, Debug, Default)]
struct Reopen {
    total: Duration,
    /// Until the journal is looked at: the lock, memory, the last checkpoint.
    begun: Duration,
    /// Until its ops are applied, if there are any.
    checked: Option<Duration>,
    bytes: u64,
    ops: u64,
    /// Of all this, how long the calling thread waited for a core: what a busy machine adds.
    waited: Option<Duration>,
}

#[derive(Default)]
struct Report {
    /// Kills by the last word of the loader.
    kills: BTreeMap<String, u32>,
    reopens: Vec<Reopen>,
    files: u32,
    unmade: u32,
    size: u64,
    heard: u64,
    unheard: u64,
}

impl Trial {
    fn new(small: bool, seed: u64, size_max: u64, scale: u64) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            small,
            rng: fastrand::Rng::with_seed(seed),
            size_max,
            scale,
            ledger: Ledger::default(),
            exists: false,
            report: Report { files: 1, ..Report::default() },
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("forest.understory")
    }

    fn round(&mut self) {
        let processes = if self.rng.u8(0..4) == 0 { self.rng.u8(2..=3) } else { 1 };
        for _ in 0..processes {
            let moment = Moment::random(&mut self.rng, self.scale);
            self.live_and_die(moment);
        }
        self.look();
    }

    /// One process, from its start to its end.
    fn live_and_die(&mut self, moment: Moment) {
        let milliseconds = moment.milliseconds(&mut self.rng, self.scale);
        let threads = self.rng.u16(2..=6);
        let plan = Plan { small: self.small, seed: self.rng.u64(..), threads, milliseconds };
        let loader = loader::start(&self.path(), &plan);
        let mut last = String::from("nothing");
        let (mut times, patience) = (0, Instant::now() + PATIENCE);
        let mut deadline = patience;
        while let Some(line) = loader.line(deadline) {
            self.hear(&line, &mut last);
            times += u32::from(line == moment.word);
            if line == moment.word && times == moment.times {
                deadline = Instant::now() + moment.delay;
            } else if line == "open" && deadline == patience && moment.word != "closing" {
                deadline = Instant::now() + moment.after_open;
            }
        }
        assert!(Instant::now() < patience, "a loader hangs after {last}");
        let ended = loader.kill();
        ended.lines.iter().for_each(|line| self.hear(line, &mut last));
        let unmade = !self.exists && ended.errors.contains("Unusable");
        let fine = ended.status.success() || ended.status.signal() == Some(SIGKILL) || unmade;
        assert!(fine, "{}: {}", ended.status, ended.errors);
        assert!(!ended.errors.contains("panicked") || unmade, "{}", ended.errors);
        let ending = if ended.status.code().is_some() { "none: it ended".to_owned() } else { last };
        *self.report.kills.entry(ending).or_default() += 1;
    }

    fn hear(&mut self, line: &str, last: &mut String) {
        self.ledger.note(line);
        self.exists |= line == "open";
        line.split(' ').next().unwrap_or_default().clone_into(last);
    }

    /// Opens the file, reads all of it, and compares that with what was said.
    fn look(&mut self) {
        if !self.path().exists() {
            return;
        }
        let (opened, reopen) = reopen(&self.path(), self.small);
        let database = match opened {
            Ok(database) => database,
            Err(Error::Unusable { .. }) if !self.exists => {
                self.report.unmade += 1;
                return self.begin_anew();
            }
            Err(error) => panic!("{error}"),
        };
        self.exists = true;
        self.report.reopens.push(reopen);
        self.ledger.find(&load::check(&database).unwrap());
        assert!(database.visible_op().get() >= self.ledger.op, "the last acknowledged op is there");
        let size = database.stats().file_size;
        self.report.size = self.report.size.max(size);
        if self.rng.u8(0..8) == 0 {
            database.close().unwrap();
        }
        if size > self.size_max {
            self.begin_anew();
        }
    }

    fn begin_anew(&mut self) {
        fs::remove_file(self.path()).unwrap();
        self.report.heard += self.ledger.heard;
        self.report.unheard += self.ledger.unheard;
        self.report.files += 1;
        (self.ledger, self.exists) = (Ledger::default(), false);
    }

    fn print(mut self, rounds: u32) {
        let report = &mut self.report;
        report.reopens.sort_by_key(|reopen| reopen.total);
        let at = |part: usize| report.reopens.get(report.reopens.len() * part / 100);
        println!("{rounds} rounds, kills by the last word: {:?}", report.kills);
        println!(
            "{} batches acknowledged, {} found that were not; {} files, the largest {} bytes, {} not made yet",
            report.heard + self.ledger.heard,
            report.unheard + self.ledger.unheard,
            report.files,
            report.size,
            report.unmade,
        );
        for (name, reopen) in
            [("p50", at(50)), ("p90", at(90)), ("p99", at(99)), ("max", report.reopens.last())]
        {
            let Some(Reopen { total, begun, checked, bytes, ops, waited }) = reopen else { continue };
            println!(
                "reopen {name}: {total:.1?}; journal looked at after {begun:.1?}, checked ({bytes} bytes) after \
                 {checked:.1?}, {ops} ops applied; waited for a core: {waited:.1?}",
            );
        }
    }
}

/// Opens the file, and says how long that took.
fn reopen(path: &Path, small: bool) -> (Result<Database, Error>, Reopen) {
    let stages = Arc::new(Mutex::new(Reopen::default()));
    let (noted, start) = (Arc::clone(&stages), Instant::now());
    let options = loader::options(small).on_recovery(move |progress| {
        let (mut stages, now) = (noted.lock(), start.elapsed());
        match progress {
            Recovery::Checking { bytes, .. } => {
                if stages.begun.is_zero() {
                    stages.begun = now;
                }
                stages.bytes = bytes;
            }
            Recovery::Replaying { ops, .. } => {
                stages.checked.get_or_insert(now);
                stages.ops = ops;
            }
            _ => {}
        }
    });
    let waited_before = waited_for_a_core();
    let opened = Database::open(path, &load::schema(), &options);
    let mut stages = *stages.lock();
    stages.total = start.elapsed();
    stages.waited = waited_for_a_core().and_then(|after| after.checked_sub(waited_before?));
    (opened, stages)
}

/// How long this thread could have run and did not, so far, where the system says so.
fn waited_for_a_core() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// The seed asked for, or any.
fn seed() -> u64 {
    let seed = std::env::var("UNDERSTORY_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("UNDERSTORY_KILL_SEED={seed}");
    seed
}

fn run(small: bool, rounds: u32, size_max: u64, scale: u64) {
    let mut trial = Trial::new(small, seed(), size_max, scale);
    for _ in 0..rounds {
        trial.round();
    }
    trial.print(rounds);
}

/// Rounds asked for, or `usual`.
fn rounds(usual: u32) -> u32 {
    let asked = std::env::var("UNDERSTORY_KILL_ROUNDS").ok();
    asked.and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

#[test]
fn a_small_file_survives() {
    run(true, rounds(15), 32 << 20, 300);
}

#[test]
fn a_file_of_the_usual_geometry_survives() {
    if cfg!(debug_assertions) {
        return child::skip("kill::a_file_of_the_usual_geometry_survives", "it needs an optimised build");
    }
    run(false, rounds(3), 3 << 30, 2_000);
}

/// Killed while the file is made, or right after: there is none, or one that nobody can take for a database, or an
/// empty one.
#[test]
fn a_file_that_is_made_is_there_or_not() {
    let mut trial = Trial::new(true, seed(), 0, 300);
    let rounds = rounds(15);
    for _ in 0..rounds {
        let delay = Duration::from_micros(trial.rng.u64(0..30_000));
        trial.live_and_die(Moment { word: "opening", times: 1, delay, after_open: Duration::ZERO });
        trial.look();
    }
    trial.print(rounds);
}
