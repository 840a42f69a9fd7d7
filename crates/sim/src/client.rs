//! Somebody who uses a database: commits to places of its own, reads any.
//!
//! # Invariants
//! - A client has one commit under way at a time, and tells the book before and after.
//!
//! # Not here
//! What is right: `book`, `sighting`, `verdict`.

use std::collections::VecDeque;

use fastrand::Rng;
use understory::{Batch, Durability, Error};
use understory_format::RecordKind;

use crate::chronicle::{Deed, Effect};
use crate::handle::{Glance, Handle};
use crate::plot::Habit;
use crate::scenario::BatchSize;
use crate::trace::Violation;
use crate::tree::{Cursor, Row, Span};
use crate::verdict::{self, Refusal};

/// Scans that a client holds open at a time.
const HELD_MAX: usize = 3;
/// Actions after the handle takes no more writes.
const LAST_READS: u32 = 4;

/// What a client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Commit,
    Get,
    Scan,
    Hold,
    Checkpoint,
    Settle,
    Sync,
    /// A batch that is one effect over the limit.
    Oversize,
    Ask,
}

/// Somebody who uses a database.
pub(crate) struct Client<'a> {
    handle: Handle<'a>,
    rng: Rng,
    /// Its number, for who commits.
    own: Option<u32>,
    habit: Habit,
    /// By tree, the number of the place that was picked last.
    last: Vec<u32>,
    held: VecDeque<Held<'a>>,
    /// Actions left.
    left: u32,
    takes_writes: bool,
}

/// A scan that stays open while other things are done.
struct Held<'a> {
    tree: usize,
    span: Span,
    cursor: Box<dyn Cursor + 'a>,
    glance: Glance,
    rows: Vec<Row>,
}

impl<'a> Client<'a> {
    /// A client with this number, or one that only reads.
    pub(crate) fn new(handle: Handle<'a>, own: Option<u32>, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let habits = [Habit::Uniform, Habit::Hot, Habit::Sequential, Habit::Near];
        let habit = rng.choice(habits).expect("there are habits");
        let last = handle.scenario.plots.iter().map(|_| 0).collect();
        let left = handle.scenario.action_count;
        Self { handle, rng, own, habit, last, held: VecDeque::new(), left, takes_writes: true }
    }

    /// Does all its actions.
    pub(crate) fn run(mut self) -> Result<(), Violation> {
        while self.left > 0 {
            self.left -= 1;
            if self.handle.tap.is_crashed() {
                return Ok(());
            }
            let action = self.choose();
            self.act(action)?;
            self.step_held()?;
        }
        while let Some(held) = self.held.pop_front() {
            self.advance(held, usize::MAX)?;
        }
        Ok(())
    }

    fn choose(&mut self) -> Action {
        let mix = &self.handle.scenario.mix;
        let writes = self.own.is_some() && self.takes_writes;
        let moves = writes && self.own == Some(0);
        let weight = |is_on: bool, weight: u32| if is_on { weight } else { 0 };
        let weights = [
            (Action::Commit, weight(writes, mix.commit)),
            (Action::Get, mix.get + 1),
            (Action::Scan, mix.scan + u32::from(!writes)),
            (Action::Hold, weight(self.held.len() < HELD_MAX, mix.hold)),
            (Action::Checkpoint, weight(moves, mix.checkpoint)),
            (Action::Settle, weight(moves, mix.settle)),
            (Action::Sync, weight(writes, mix.sync)),
            (Action::Oversize, weight(writes, 1)),
            (Action::Ask, 1),
        ];
        let total = weights.iter().map(|(_, weight)| *weight).sum();
        let mut drawn = self.rng.u32(0..total);
        for (action, weight) in weights {
            match drawn.checked_sub(weight) {
                Some(rest) => drawn = rest,
                None => return action,
            }
        }
        Action::Get
    }

    fn act(&mut self, action: Action) -> Result<(), Violation> {
        match action {
            Action::Commit => self.commit(),
            Action::Get => self.get(),
            Action::Scan => self.scan(),
            Action::Hold => self.hold(),
            Action::Checkpoint => self.call("checkpoint", Some(RecordKind::Drain)),
            Action::Settle => self.call("settle", Some(RecordKind::Settle)),
            Action::Sync => self.call("sync", None),
            Action::Oversize => self.oversize(),
            Action::Ask => {
                let _op = self.handle.ask_op();
                Ok(())
            }
        }
    }
}

/// Commits.
impl Client<'_> {
    fn commit(&mut self) -> Result<(), Violation> {
        let Some(client) = self.own else { return Ok(()) };
        let number = self.handle.book.lock().number();
        let (batch, deed) = self.compose(client, number);
        let mix = &self.handle.scenario.mix;
        let is_buffered = self.rng.u32(0..100) < mix.buffered_percent;
        let durability = if is_buffered { Durability::Buffered } else { Durability::Synced };
        let effects = deed.effects.len();
        self.handle.trace.note(&[1, client.into(), number.into()], || {
            format!("client {client}: commits batch {number} of {effects} effects, {durability:?}")
        });
        self.handle.book.lock().submit(client, deed);
        let result = self.handle.database.commit_with(&batch, durability);
        self.handle.trace.note(&[2, client.into()], || match &result {
            Ok(op) => format!("client {client}: batch {number} is {op}"),
            Err(error) => format!("client {client}: batch {number}: {error}"),
        });
        let mut book = self.handle.book.lock();
        match result {
            Ok(op) => {
                self.handle.tally.count(if is_buffered { "commits, buffered" } else { "commits, synced" });
                self.handle.tally.add("effects", understory_format::u64_of(effects));
                let is_durable = !is_buffered && self.handle.scenario.geometry.has_journal();
                book.acknowledge(client, op.get(), is_durable)
            }
            Err(error) => {
                let refusal = verdict::of_write(&error, &self.handle.tap.harm())?;
                match self.refused(refusal) {
                    Refusal::NotNow | Refusal::Never => book.refuse(client),
                    Refusal::Unknown(op) => book.lose(client, op),
                }
                Ok(())
            }
        }
    }

    /// What an error means; keeps in mind if the handle takes no more writes.
    fn refused(&mut self, refusal: Refusal) -> Refusal {
        self.handle.tally.count(match refusal {
            Refusal::NotNow => "write: not now",
            Refusal::Never => "write: never",
            Refusal::Unknown(_) => "write: unknown",
        });
        if refusal != Refusal::NotNow {
            self.takes_writes = false;
            self.left = self.left.min(LAST_READS);
        }
        refusal
    }

    /// A batch of a size that the mix wants, and what it does.
    fn compose(&mut self, client: u32, number: u32) -> (Batch, Deed) {
        let limit = u64::from(self.handle.scenario.geometry.batch_size_max);
        let (bytes, count) = match self.handle.scenario.mix.batch {
            BatchSize::Single => (limit, self.rng.usize(0..=1).max(self.rng.usize(0..=1))),
            BatchSize::Few => (limit, self.rng.usize(0..=8)),
            BatchSize::Full => (limit, usize::MAX),
            BatchSize::Mixed => (self.rng.u64(0..=limit), usize::MAX),
        };
        let mut batch = Batch::new();
        let mut effects = Vec::new();
        while effects.len() < count && self.add(&mut batch, &mut effects, client, number, bytes) {}
        let deed = Deed { effects: effects.into(), size: batch.size() };
        (batch, deed)
    }

    /// Adds an effect if one fits; of the trees, those that still fit.
    fn add(
        &mut self,
        batch: &mut Batch,
        effects: &mut Vec<Effect>,
        client: u32,
        number: u32,
        bytes: u64,
    ) -> bool {
        let plots = &self.handle.scenario.plots;
        let room = bytes.saturating_sub(batch.size());
        let fits = |tree: &usize| {
            let plot = plots.get(*tree).expect("a tree of the schema");
            understory_format::effect_size(plot.tree.value_size()) <= room
        };
        let fitting: Vec<usize> = (0..plots.len()).filter(fits).collect();
        let Some(tree) = self.rng.choice(fitting) else { return false };
        let plot = plots.get(tree).expect("a tree of the schema");
        let last = self.last.get_mut(tree).expect("one for each tree");
        let place = plot.pick(&mut self.rng, client, self.habit, last);
        let is_remove = self.rng.u32(0..100) < self.handle.scenario.mix.remove_percent;
        if is_remove {
            plot.tree.remove(batch, place);
        } else {
            plot.tree.put(batch, place, number);
        }
        effects.push(Effect { tree, place, put: (!is_remove).then_some(number) });
        true
    }

    /// A batch over the limit is refused, and nothing changes.
    fn oversize(&mut self) -> Result<(), Violation> {
        let Some(client) = self.own else { return Ok(()) };
        let limit = u64::from(self.handle.scenario.geometry.batch_size_max);
        let mut batch = Batch::new();
        let mut effects = Vec::new();
        while batch.size() <= limit {
            let _added = self.add(&mut batch, &mut effects, client, 0, u64::MAX);
        }
        match self.handle.database.commit(&batch) {
            Err(Error::BatchTooLarge { .. }) => Ok(()),
            other => {
                let size = batch.size();
                Err(Violation::new(format!("a batch of {size} bytes over the limit of {limit}: {other:?}")))
            }
        }
    }

    /// A call that makes durable what was committed; one that moves the clock has this kind of op.
    fn call(&mut self, name: &'static str, kind: Option<RecordKind>) -> Result<(), Violation> {
        let database = self.handle.database;
        let before = self.handle.ask_op();
        let kind = kind.unwrap_or(RecordKind::Drain);
        let has_journal = self.handle.scenario.geometry.has_journal();
        if !has_journal {
            self.handle.book.lock().called(kind, before);
        }
        self.handle.trace.note(&[3, before], || format!("{:?}: calls {name} after op {before}", self.own));
        let result = match name {
            "checkpoint" => database.checkpoint(),
            "settle" => database.settle(),
            _ => database.sync(),
        };
        self.handle.trace.note(&[4, before], || format!("{:?}: {name}: {result:?}", self.own));
        match result {
            Ok(()) => {
                self.handle.tally.count(name);
                self.handle.book.lock().secure(before);
            }
            Err(error) => {
                let refusal = verdict::of_call(&error, &self.handle.tap.harm())?;
                let _refusal = self.refused(refusal);
            }
        }
        let after = self.handle.ask_op();
        if !has_journal {
            let mut book = self.handle.book.lock();
            if after == before {
                book.not_called(before);
            }
            // What follows the first op of a call are drains.
            (before + 1..after).for_each(|drained| book.called(RecordKind::Drain, drained));
        }
        Ok(())
    }
}

/// Reads.
impl<'a> Client<'a> {
    fn tree(&mut self) -> usize {
        self.rng.usize(0..self.handle.scenario.plots.len())
    }

    fn get(&mut self) -> Result<(), Violation> {
        let tree = self.tree();
        let plot = self.handle.scenario.plots.get(tree).expect("a tree of the schema");
        let place = self.rng.u32(0..plot.tree.place_count());
        let mut glance = self.handle.glance();
        let found = plot.tree.get(self.handle.database, place);
        self.handle.fix(&mut glance);
        let span = Span { min: place, max: place, ..Span::all(plot.tree.as_ref(), false) };
        match found {
            Ok(row) => {
                self.handle.tally.count("gets");
                let rows: Vec<Row> = row.into_iter().collect();
                self.handle.judge(tree, &span, &rows, &glance)?;
            }
            Err(error) => {
                self.handle.tally.count(verdict::of_read(&error, &self.handle.tap.harm())?);
            }
        }
        if self.rng.u8(0..4) == 0
            && let Err(error) = plot.tree.get_beside(self.handle.database, place)
        {
            self.handle.tally.count(verdict::of_read(&error, &self.handle.tap.harm())?);
        }
        Ok(())
    }

    fn span(&mut self, tree: usize) -> Span {
        let plot = self.handle.scenario.plots.get(tree).expect("a tree of the schema");
        if self.rng.bool() {
            Span::all(plot.tree.as_ref(), self.rng.bool())
        } else {
            Span::random(&mut self.rng, 0..plot.tree.place_count())
        }
    }

    fn scan(&mut self) -> Result<(), Violation> {
        let tree = self.tree();
        let span = self.span(tree);
        let limit = if self.rng.bool() { usize::MAX } else { self.rng.usize(1..60) };
        let (rows, glance, is_whole) = self.handle.rows(tree, &span, limit)?;
        self.handle.tally.count("scans");
        self.conclude(tree, &span, &rows, &glance, is_whole)
    }

    /// Judges the part of a span that a scan came through.
    fn conclude(
        &self,
        tree: usize,
        span: &Span,
        rows: &[Row],
        glance: &Glance,
        is_whole: bool,
    ) -> Result<(), Violation> {
        if is_whole {
            self.handle.judge(tree, span, rows, glance)
        } else if rows.is_empty() {
            Ok(())
        } else {
            self.handle.judge(tree, &span.passed(rows.last().copied()), rows, glance)
        }
    }

    fn hold(&mut self) -> Result<(), Violation> {
        let tree = self.tree();
        let span = self.span(tree);
        let handle = self.handle;
        let plot = handle.scenario.plots.get(tree).expect("a tree of the schema");
        let mut glance = handle.glance();
        match plot.tree.scan(handle.database, &span) {
            Ok(cursor) => {
                handle.fix(&mut glance);
                self.held.push_back(Held { tree, span, cursor, glance, rows: Vec::new() });
            }
            Err(error) => handle.tally.count(verdict::of_read(&error, &handle.tap.harm())?),
        }
        Ok(())
    }

    /// Goes on with one of the scans that are held.
    fn step_held(&mut self) -> Result<(), Violation> {
        if self.rng.u8(0..3) > 0 {
            return Ok(());
        }
        let count = self.rng.usize(1..20);
        match self.held.pop_front() {
            Some(held) => self.advance(held, count),
            None => Ok(()),
        }
    }

    fn advance(&mut self, mut held: Held<'a>, count: usize) -> Result<(), Violation> {
        for _ in 0..count {
            match held.cursor.next() {
                Some(Ok(row)) => held.rows.push(row),
                None => {
                    self.handle.tally.count("scans, held");
                    return self.conclude(held.tree, &held.span, &held.rows, &held.glance, true);
                }
                Some(Err(error)) => {
                    self.handle.tally.count(verdict::of_read(&error, &self.handle.tap.harm())?);
                    return self.conclude(held.tree, &held.span, &held.rows, &held.glance, false);
                }
            }
        }
        self.held.push_back(held);
        Ok(())
    }
}
