//! One pass of the job: load, checkpoint, close, reopen, ask, compare.

use crate::answers::Answers;
use crate::load::{self, Loaded};
use crate::plain::Plain;
use crate::queries;
use crate::record::{ByCarrier, ByDay, ByDest, ByOrigin, ByTailnum, Flight};
use crate::report::float;
use crate::{Failure, Plan};
use std::path::{Path, PathBuf};
use std::time::Duration;
use understory::{Database, Options, Stats, TreeStats};

/// What a pass found, for the report.
pub(crate) struct Pass {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) loaded: Loaded,
    /// Of the load, the checkpoint included.
    pub(crate) stats: Stats,
    pub(crate) file_size: u64,
    pub(crate) reopen: Duration,
    /// Of the reopened file.
    pub(crate) trees: Vec<Tree>,
    pub(crate) answers: Answers,
    pub(crate) questions: Vec<Question>,
    pub(crate) checks: Vec<Check>,
    /// What fetching every flight by its key took.
    pub(crate) lookups: Duration,
}

/// A tree, and how many tables it has on each level.
pub(crate) struct Tree {
    pub(crate) name: &'static str,
    pub(crate) tables: Vec<u64>,
}

/// A question, in the order of [`Answers::all`].
pub(crate) struct Question {
    pub(crate) took: Duration,
    pub(crate) matches: bool,
}

/// A number that must be what it is expected to be.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

impl Pass {
    /// Whether every answer and every number is right.
    pub(crate) fn matches(&self) -> bool {
        self.questions.iter().all(|question| question.matches) && self.checks.iter().all(Check::holds)
    }

    /// Bytes handed to the file while loading.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.stats.io.bytes_written
    }

    /// Bytes written to the file per byte of records.
    pub(crate) fn write_amplification(&self) -> f64 {
        float(self.bytes_written()) / float(self.loaded.record_bytes)
    }

    /// Bytes of the file per byte of records.
    pub(crate) fn space_amplification(&self) -> f64 {
        float(self.file_size) / float(self.loaded.record_bytes)
    }
}

impl Check {
    pub(crate) fn holds(&self) -> bool {
        self.expected == self.found
    }
}

/// Does the whole job on a file that must not be there yet.
pub(crate) fn run(
    plan: &Plan,
    data: &Path,
    keep: bool,
    flights: &[Flight],
    plain: &Plain,
) -> Result<Pass, Failure> {
    if plan.path.exists() {
        return Err(format!("{}: is there already", plan.path.display()).into());
    }
    let _file = DataFile { path: &plan.path, keep };
    let (db, loaded) = load::load(plan, flights)?;
    let stats = db.stats();
    db.close()?;
    let file_size = plan.path.metadata()?.len();

    let options = Options::default().memory(plan.memory);
    let (db, reopen) = crate::timed(|| Database::open(&plan.path, &load::schema(), &options));
    let db = db?;
    let trees = trees(&db.stats());
    let answered = queries::answer(&db)?;
    let (equal, lookups) = crate::timed(|| queries::count_equal_rows(&db, data));
    let mut checks = vec![Check { name: "rows equal to their record", expected: plain.rows, found: equal? }];
    checks.extend(counts(&db, plain)?);
    checks.extend(levels_populated(plan, &trees));
    let same = answered.answers.all().into_iter().zip(plain.answers.all());
    let questions = same
        .zip(answered.took)
        .map(|((own, other), took)| Question { took, matches: own.answer == other.answer })
        .collect();
    db.close()?;
    Ok(Pass {
        name: plan.name,
        path: plan.path.clone(),
        loaded,
        stats,
        file_size,
        reopen,
        trees,
        answers: answered.answers,
        questions,
        checks,
        lookups,
    })
}

/// Every tree holds what it should, in order.
fn counts(db: &Database, plain: &Plain) -> Result<[Check; 6], Failure> {
    let check = |name, expected, found| Check { name, expected, found };
    Ok([
        check("flights", plain.rows, queries::count_in_order::<Flight>(db)?),
        check("entries by carrier", plain.rows, queries::count_in_order::<ByCarrier>(db)?),
        check("entries by origin", plain.rows, queries::count_in_order::<ByOrigin>(db)?),
        check("entries by destination", plain.rows, queries::count_in_order::<ByDest>(db)?),
        check(
            "entries by tail number",
            plain.rows - plain.without_aircraft,
            queries::count_in_order::<ByTailnum>(db)?,
        ),
        check("entries by day", plain.rows, queries::count_in_order::<ByDay>(db)?),
    ])
}

/// Where the geometry is there to populate levels: how many the tree with the most has.
fn levels_populated(plan: &Plan, trees: &[Tree]) -> Option<Check> {
    let populated = |tree: &Tree| tree.tables.iter().filter(|tables| **tables > 0).count();
    let found = trees.iter().map(populated).max().unwrap_or(0).try_into().ok()?;
    (plan.levels_min > 0).then_some(Check {
        name: "levels populated, or more",
        expected: plan.levels_min.max(found),
        found,
    })
}

fn trees(stats: &Stats) -> Vec<Tree> {
    let tables = |tree: &TreeStats| tree.levels.iter().map(|level| level.table_count).collect();
    stats.trees.iter().map(|tree| Tree { name: tree.name, tables: tables(tree) }).collect()
}

/// Removes the data file at the end, also after a failure.
struct DataFile<'a> {
    path: &'a Path,
    keep: bool,
}

impl Drop for DataFile<'_> {
    fn drop(&mut self) {
        if !self.keep
            && self.path.exists()
            && let Err(cause) = crate::remove(self.path)
        {
            eprintln!("{}: {cause}", self.path.display());
        }
    }
}
