//! One open database with what everybody who uses it shares: model, trace, counts, faults so far.
//!
//! # Not here
//! Who uses it: `client`. How it came to be: `life`.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use understory::Database;

use crate::book::{Book, Window};
use crate::scenario::Scenario;
use crate::sighting::{Sighting, What};
use crate::tap::Tap;
use crate::trace::{Trace, Violation};
use crate::tree::{Row, Span};
use crate::verdict;

/// How often what happened, over many seeds.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    /// It happened once more.
    pub(crate) fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    /// It happened so many times more.
    pub(crate) fn add(&self, what: &'static str, times: u64) {
        *self.0.lock().entry(what).or_default() += times;
    }

    /// All counts.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().clone()
    }
}

/// An open database, as its users see it.
#[derive(Clone, Copy)]
pub(crate) struct Handle<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) database: &'a Database,
    pub(crate) book: &'a Mutex<Book>,
    pub(crate) tap: &'a Tap,
    pub(crate) trace: &'a Trace,
    pub(crate) tally: &'a Tally,
}

/// A read that is under way: when it began, and what it may show.
#[derive(Clone, Debug)]
pub(crate) struct Glance {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) windows: Vec<Window>,
}

impl Handle<'_> {
    /// A read begins.
    pub(crate) fn glance(&self) -> Glance {
        let mut book = self.book.lock();
        let start = book.tick();
        Glance { start, end: start, windows: book.windows() }
    }

    /// Its view is fixed.
    pub(crate) fn fix(&self, glance: &mut Glance) {
        let mut book = self.book.lock();
        glance.end = book.tick();
        for (window, now) in glance.windows.iter_mut().zip(book.windows()) {
            window.high = now.high;
        }
    }

    /// Judges what it gave.
    pub(crate) fn judge(
        &self,
        tree: usize,
        span: &Span,
        rows: &[Row],
        glance: &Glance,
    ) -> Result<(), Violation> {
        let plot = self.scenario.plots.get(tree).expect("a tree of the schema");
        let mut book = self.book.lock();
        let sets = book.explain(plot, tree, span, rows, &glance.windows)?;
        book.sight(Sighting { start: glance.start, end: glance.end, what: What::Rows(sets) });
        Ok(())
    }

    /// The database says which op it shows, and which is durable.
    pub(crate) fn ask_op(&self) -> u64 {
        let start = self.book.lock().tick();
        let op = self.database.visible_op().get();
        let durable = self.database.durable_op().get();
        let mut book = self.book.lock();
        let end = book.tick();
        book.sight(Sighting { start, end, what: What::Op(op) });
        book.secure(durable);
        op
    }

    /// Rows of a scan, up to a number; and whether it came to its end.
    pub(crate) fn rows(
        &self,
        tree: usize,
        span: &Span,
        limit: usize,
    ) -> Result<(Vec<Row>, Glance, bool), Violation> {
        let plot = self.scenario.plots.get(tree).expect("a tree of the schema");
        let mut glance = self.glance();
        let mut rows = Vec::new();
        let mut cursor = match plot.tree.scan(self.database, span) {
            Ok(cursor) => cursor,
            Err(error) => {
                self.tally.count(verdict::of_read(&error, &self.tap.harm())?);
                return Ok((rows, glance, false));
            }
        };
        self.fix(&mut glance);
        while rows.len() < limit {
            match cursor.next() {
                None => return Ok((rows, glance, true)),
                Some(Ok(row)) => rows.push(row),
                Some(Err(error)) => {
                    self.tally.count(verdict::of_read(&error, &self.tap.harm())?);
                    return Ok((rows, glance, false));
                }
            }
        }
        Ok((rows, glance, false))
    }
}
