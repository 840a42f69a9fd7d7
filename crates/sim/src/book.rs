//! What the database ought to hold: every batch that was given to it since the file was made, and what became of it.
//!
//! Each place has one writer, who waits for its commits one by one. So what a place may show at any moment is the state
//! after exactly j of its owner's batches, for a j between what the owner was told and what it had asked for. A read
//! that sees places of several clients narrows j for each of them, and all of them must be cuts of one order: that of
//! the op numbers. Where an op number is not known yet, the question waits as a [`Sighting`] until the handle is gone.
//!
//! A *life* is the time of one handle, from open to close, crash or failure. At its end all that is known of what must
//! survive is one number, the *floor*; at the next open one number again says what did survive, and everything is
//! certain anew.
//!
//! # Invariants
//! - Batch numbers are never used twice, so that a batch that was lost and shows up later is found.
//!
//! # Not here
//! Asking the database: `client`, `inspect`.

use std::collections::BTreeMap;
use std::sync::Arc;

use understory_format::RecordKind;

use crate::chronicle::{Deed, Ledger};
use crate::plot::Plot;
use crate::sighting::{Ops, Sets, Sighting, judge};
use crate::trace::Violation;
use crate::tree::{Place, Row, Span};

/// A state of a place: from this commit of its owner on.
#[derive(Clone, Copy, Debug)]
struct Version {
    index: u32,
    put: Option<u32>,
}

/// A batch of this life.
#[derive(Debug)]
struct Commit {
    deed: Deed,
    /// Once it is known.
    op: Option<u64>,
    /// What was certain to survive when it was submitted.
    floors_before: [u64; FLOORS],
}

/// How many of a client's commits a read may show: at least what was acknowledged before it began, at most what was
/// submitted before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) low: u32,
    pub(crate) high: u32,
}

/// What a client asked for in this life.
#[derive(Debug, Default)]
struct Page {
    commits: Vec<Commit>,
    acknowledged: u32,
}

/// Places of the journal that may be damaged while something is still certain, and none.
const FLOORS: usize = 3;

/// The model.
#[derive(Debug)]
pub(crate) struct Book {
    /// By tree and place, ascending.
    versions: Vec<Vec<Vec<Version>>>,
    pages: Vec<Page>,
    /// What survived of earlier lives.
    ledger: Ledger,
    sightings: Vec<Sighting>,
    /// The last op that this life began with.
    op_boot: u64,
    /// The last op that must survive a crash; the last one before it of which a later commit is a witness, so that its
    /// loss cannot be mistaken for a torn tail; the last before that, and so on.
    floors: [u64; FLOORS],
    /// The last op that was acknowledged in any way.
    acknowledged: u64,
    /// Whether the op of each batch that survived is known.
    is_exact: bool,
    next_number: u32,
    tick: u64,
}

impl Book {
    /// The model of an empty database.
    pub(crate) fn new(plots: &[Plot], client_count: u32) -> Self {
        let places = |plot: &Plot| (0..plot.tree.place_count()).map(|_| Vec::new()).collect();
        Self {
            versions: plots.iter().map(places).collect(),
            pages: (0..client_count).map(|_| Page::default()).collect(),
            ledger: Ledger::default(),
            sightings: Vec::new(),
            op_boot: 0,
            floors: [0; FLOORS],
            acknowledged: 0,
            is_exact: true,
            next_number: 1,
            tick: 0,
        }
    }

    /// A number that no batch had.
    pub(crate) fn number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// A moment, later than all before.
    pub(crate) fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// A client is about to commit these.
    pub(crate) fn submit(&mut self, client: u32, deed: Deed) {
        let floors_before = self.floors;
        let page = self.page_mut(client);
        let effects = Arc::clone(&deed.effects);
        page.commits.push(Commit { deed, op: None, floors_before });
        let index = length(page.commits.len());
        for effect in effects.iter() {
            let versions = self.versions_mut(effect.tree, effect.place);
            match versions.last_mut() {
                Some(last) if last.index == index => last.put = effect.put,
                _ => versions.push(Version { index, put: effect.put }),
            }
        }
    }

    /// The client's last commit returned with this op number.
    pub(crate) fn acknowledge(&mut self, client: u32, op: u64, is_durable: bool) -> Result<(), Violation> {
        let page = self.page_mut(client);
        page.acknowledged = length(page.commits.len());
        let before = page.commits.iter().rev().nth(1).and_then(|commit| commit.op);
        let last = page.commits.last_mut().expect("what is acknowledged was submitted");
        last.op = Some(op);
        let floors_before = last.floors_before;
        if before.is_some_and(|before| before >= op) || op <= self.op_boot {
            return Err(Violation::new(format!("client {client} got op {op} after {before:?}")));
        }
        self.acknowledged = self.acknowledged.max(op);
        if is_durable {
            let witnessed = [op].into_iter().chain(floors_before);
            self.floors.iter_mut().zip(witnessed).for_each(|(floor, op)| *floor = op.max(*floor));
        }
        Ok(())
    }

    /// The client's last commit was refused: it never happens.
    pub(crate) fn refuse(&mut self, client: u32) {
        let page = self.page_mut(client);
        let index = length(page.commits.len());
        let commit = page.commits.pop().expect("what is refused was submitted");
        for effect in commit.deed.effects.iter() {
            let versions = self.versions_mut(effect.tree, effect.place);
            if versions.last().is_some_and(|last| last.index == index) {
                versions.pop();
            }
        }
    }

    /// Nobody knows what became of the client's last commit.
    pub(crate) fn lose(&mut self, client: u32, op: Option<u64>) {
        let commit = self.page_mut(client).commits.last_mut().expect("what is lost was submitted");
        commit.op = op;
    }

    /// Everything up to this op must survive.
    pub(crate) fn secure(&mut self, op: u64) {
        if let Some(floor) = self.floors.first_mut() {
            *floor = op.max(*floor);
        }
    }

    /// Without a journal: what was called after this op.
    pub(crate) fn called(&mut self, kind: RecordKind, after: u64) {
        self.ledger.calls.insert(after, kind);
    }

    /// That call had no op.
    pub(crate) fn not_called(&mut self, after: u64) {
        self.ledger.calls.remove(&after);
    }

    /// What the journal says about ops.
    pub(crate) fn journaled(&mut self, kinds: BTreeMap<u64, RecordKind>) {
        self.ledger.kinds.extend(kinds);
    }
}

/// Lives.
impl Book {
    /// The handle is gone. Judges what was seen through it; what was seen must survive if views show only what is
    /// durable.
    pub(crate) fn end_life(&mut self, is_shown_durable: bool) -> Result<(), Violation> {
        let shown = judge(std::mem::take(&mut self.sightings), &*self)?;
        if is_shown_durable {
            self.secure(shown);
        }
        Ok(())
    }

    /// Everything that was acknowledged must survive, however it was committed: only the process ended.
    pub(crate) fn secure_acknowledged(&mut self) {
        self.secure(self.acknowledged);
    }

    /// The journal itself says of everything that must survive that it was there.
    pub(crate) fn witness_all(&mut self) {
        let [floor, ..] = self.floors;
        self.floors = [floor; FLOORS];
    }

    /// The file has said that acknowledged ops are lost, and was told to go on with those up to `op`. False if too
    /// little is known to say what that ought to show.
    pub(crate) fn give_up(&mut self, op: u64) -> bool {
        self.floors = [0; FLOORS];
        if op >= self.op_boot {
            return true;
        }
        self.ledger.cut(op);
        self.versions.iter_mut().flatten().for_each(Vec::clear);
        self.pages.iter_mut().for_each(|page| page.commits.clear());
        let deeds: Vec<Deed> = self.ledger.batches.values().cloned().collect();
        for effect in deeds.iter().flat_map(|deed| deed.effects.iter()) {
            let versions = self.versions_mut(effect.tree, effect.place);
            versions.clear();
            versions.extend(effect.put.map(|put| Version { index: 0, put: Some(put) }));
        }
        self.is_exact
    }

    /// What must be there at the next open, if so many places of the journal are damaged: it, or the journal says that
    /// it is lost.
    pub(crate) fn floor(&self, damaged: usize) -> u64 {
        self.floors.get(damaged).copied().unwrap_or(0)
    }

    /// A new life begins with the ops up to `op`. Gives how many commits of the life before each client finds.
    pub(crate) fn survivors(&self, op: u64) -> Vec<Window> {
        let survivors = |page: &Page| {
            let known = page.commits.iter().filter(|commit| commit.op.is_some_and(|known| known <= op));
            let low = length(known.count());
            let is_open = page.commits.get(index_of(low)).is_some_and(|commit| commit.op.is_none());
            Window { low, high: if is_open { low + 1 } else { low } }
        };
        self.pages.iter().map(survivors).collect()
    }

    /// From now on the state is certain: of each client as many commits as `sets` says, and the ops up to `op`.
    pub(crate) fn adopt(&mut self, op: u64, sets: &Sets, plots: &[Plot]) {
        let cuts: Vec<u32> = sets.iter().map(|set| *set.first().expect("a set is not empty")).collect();
        for (plot, places) in plots.iter().zip(&mut self.versions) {
            for (place, versions) in (0..).zip(places) {
                let cut = *cuts.get(index_of(plot.owner(place))).expect("a place has an owner");
                let put = shown(versions, cut);
                *versions = put.map(|put| Version { index: 0, put: Some(put) }).into_iter().collect();
            }
        }
        for (page, (cut, set)) in self.pages.iter_mut().zip(cuts.iter().zip(sets)) {
            // Who knows no op of a commit that may have survived cannot say where it stands in the order.
            self.is_exact &= set.len() == 1;
            for commit in page.commits.drain(..).take(index_of(*cut)) {
                match commit.op {
                    Some(op) => drop(self.ledger.batches.insert(op, commit.deed)),
                    None => self.is_exact = false,
                }
            }
            page.acknowledged = 0;
        }
        self.ledger.cut(op);
        (self.op_boot, self.acknowledged) = (op, op);
        self.floors = [op; FLOORS];
    }

    /// What is known of all ops up to the last boot; none if the order of some is not known.
    pub(crate) fn ledger(&self) -> Option<&Ledger> {
        self.is_exact.then_some(&self.ledger)
    }
}

impl Ops for Book {
    fn lower(&self, client: usize, index: u32) -> u64 {
        let Some(before) = index.checked_sub(1) else { return self.op_boot };
        match self.commit(client, before) {
            Some(Commit { op: Some(op), .. }) => *op,
            Some(_) => self.lower(client, before) + 1,
            None => u64::MAX,
        }
    }

    fn upper(&self, client: usize, index: u32) -> u64 {
        let Some(before) = index.checked_sub(1) else { return self.op_boot };
        self.commit(client, before).and_then(|commit| commit.op).unwrap_or(u64::MAX)
    }
}

/// Reads.
impl Book {
    /// What a read that begins and ends now may show of each client.
    pub(crate) fn windows(&self) -> Vec<Window> {
        let window = |page: &Page| Window { low: page.acknowledged, high: length(page.commits.len()) };
        self.pages.iter().map(window).collect()
    }

    /// How many commits of each client the rows of a scan may stem from. The scan passed all of `span`; the lower ends
    /// of the windows are from before it, the upper ones from after its view was fixed.
    pub(crate) fn explain(
        &self,
        plot: &Plot,
        tree: usize,
        span: &Span,
        rows: &[Row],
        windows: &[Window],
    ) -> Result<Sets, Violation> {
        let mut sets: Sets = windows.iter().map(|window| (window.low..=window.high).collect()).collect();
        let ascending: Vec<Row> =
            if span.is_descending { rows.iter().rev().copied().collect() } else { rows.to_vec() };
        let mut rows = ascending.into_iter().peekable();
        for place in span.min..=span.max {
            let found = rows.next_if(|row| row.place == place);
            let set = sets.get_mut(index_of(plot.owner(place))).expect("a place has an owner");
            let versions = self.versions(tree, place);
            let before = set.clone();
            set.retain(|index| is_shown(versions, *index, found));
            if set.is_empty() {
                let name = plot.tree.name();
                let owner = plot.owner(place);
                return Err(Violation::new(format!(
                    "{name} at place {place}: found {found:?}; after any of the commits {before:?} of client \
                     {owner} it ought to be one of {versions:?}"
                )));
            }
        }
        match rows.next() {
            None => Ok(sets),
            Some(row) => Err(Violation::new(format!(
                "{} gives {row:?} out of its order, or twice, or outside {span:?}",
                plot.tree.name()
            ))),
        }
    }

    /// Keeps a sighting for the judgement at the end of the life.
    pub(crate) fn sight(&mut self, sighting: Sighting) {
        self.sightings.push(sighting);
    }

    fn commit(&self, client: usize, index: u32) -> Option<&Commit> {
        self.pages.get(client).and_then(|page| page.commits.get(index_of(index)))
    }

    fn versions(&self, tree: usize, place: Place) -> &[Version] {
        let places = self.versions.get(tree).expect("a tree of the schema");
        places.get(index_of(place)).expect("a place of the pool")
    }

    fn versions_mut(&mut self, tree: usize, place: Place) -> &mut Vec<Version> {
        let places = self.versions.get_mut(tree).expect("a tree of the schema");
        places.get_mut(index_of(place)).expect("a place of the pool")
    }

    fn page_mut(&mut self, client: u32) -> &mut Page {
        self.pages.get_mut(index_of(client)).expect("a client of the scenario")
    }
}

fn index_of(number: u32) -> usize {
    understory_format::usize_of(number)
}

fn length(count: usize) -> u32 {
    u32::try_from(count).expect("a life is short")
}

/// What a place shows after so many commits of its owner.
fn shown(versions: &[Version], index: u32) -> Option<u32> {
    versions.iter().rev().find(|version| version.index <= index).and_then(|version| version.put)
}

/// Whether a place shows this after so many commits of its owner.
fn is_shown(versions: &[Version], index: u32, found: Option<Row>) -> bool {
    match (shown(versions, index), found) {
        (None, None) => true,
        (Some(put), Some(row)) => row.number.is_none_or(|number| number == put),
        _ => false,
    }
}
