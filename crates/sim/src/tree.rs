//! One tree of a simulated database, without its record type: places instead of keys.
//!
//! A tree has a pool of keys that nearly collide. A *place* is a number in that pool, in key order, so that model,
//! workload and oracle handle numbers only. The places are divided among the clients, in one block each or in stripes,
//! so that each client knows all about its own, while their records share tables and pages.
//!
//! # Invariants
//! - Every record that a read gives is one that a batch could have put at a place of the pool, else the read is
//!   [`ReadError::Wrong`].
//!
//! # Not here
//! Which records ought to be there: `book`.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::{Bound, Range};

use fastrand::Rng;
use understory::{Batch, Database, Error, Key, Scan, Schema};
use understory_testkit::{KeyPool, KeyShape, Ordinal};

use crate::records::{Line, Mark, Name, Quad, Sheet, SimRecord, Tiny};

/// A key's number in its tree's pool, in key order.
pub(crate) type Place = u32;

/// A record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// The batch that put it; `None` where records are all key.
    pub(crate) number: Option<u32>,
}

/// Why a read gave no answer that could be right.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The engine says that it cannot.
    #[error(transparent)]
    Engine(Box<Error>),
    /// The engine gave a record that nobody put.
    #[error("{0}")]
    Wrong(String),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Engine(Box::new(error))
    }
}

/// The places that a scan is about, and in which words it asks for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// The first place and the last, both in it.
    pub(crate) min: Place,
    pub(crate) max: Place,
    pub(crate) edges: [Edge; 2],
    pub(crate) is_descending: bool,
}

/// How one end of a range is given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edge {
    /// The key itself, included.
    At,
    /// The pool's next key outside the range, excluded; none if there is none.
    Outside,
    /// What stands right beside the pool's next key outside the range, included.
    Beside,
}

impl Span {
    /// All places of a tree.
    pub(crate) fn all(tree: &dyn Tree, is_descending: bool) -> Self {
        Self { min: 0, max: tree.place_count() - 1, edges: [Edge::Outside; 2], is_descending }
    }

    /// Some places, asked for in some words.
    pub(crate) fn random(rng: &mut Rng, within: Range<Place>) -> Self {
        let (a, b) = (rng.u32(within.clone()), rng.u32(within));
        let edge = |rng: &mut Rng| match rng.u8(0..3) {
            0 => Edge::At,
            1 => Edge::Outside,
            _ => Edge::Beside,
        };
        let edges = [edge(rng), edge(rng)];
        Self { min: a.min(b), max: a.max(b), edges, is_descending: rng.bool() }
    }

    /// The part of it that a scan had passed when it gave `row` as its last.
    pub(crate) fn passed(mut self, last: Option<Row>) -> Self {
        match last {
            Some(row) if self.is_descending => self.min = row.place,
            Some(row) => self.max = row.place,
            None => {}
        }
        self
    }
}

/// The rows of a scan.
pub(crate) trait Cursor: Send {
    /// The next one.
    fn next(&mut self) -> Option<Result<Row, ReadError>>;
}

/// A tree, by places.
pub(crate) trait Tree: Send + Sync + Debug {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Size of a record, in bytes.
    fn value_size(&self) -> u32;
    /// Keys in its pool, at least one.
    fn place_count(&self) -> u32;
    /// The schema with this tree.
    fn declare(&self, schema: Schema) -> Schema;
    /// Adds a put to a batch, with contents of this number.
    fn put(&self, batch: &mut Batch, place: Place, number: u32);
    /// Adds a remove to a batch.
    fn remove(&self, batch: &mut Batch, place: Place);
    /// Reads one place.
    fn get(&self, database: &Database, place: Place) -> Result<Option<Row>, ReadError>;
    /// Reads the keys right beside a place, where nothing may be unless they are places too.
    fn get_beside(&self, database: &Database, place: Place) -> Result<(), ReadError>;
    /// Starts a scan.
    fn scan<'a>(&'a self, database: &'a Database, span: &Span) -> Result<Box<dyn Cursor + 'a>, ReadError>;
}

/// The kinds of trees that there are.
pub(crate) const KIND_COUNT: usize = 6;

/// A tree of the given kind with about `count` keys.
pub(crate) fn tree(kind: usize, rng: &mut Rng, count: usize) -> Box<dyn Tree> {
    match kind {
        0 => Typed::<Tiny>::boxed(rng, count),
        1 => Typed::<Mark>::boxed(rng, count),
        2 => Typed::<Line>::boxed(rng, count),
        3 => Typed::<Quad>::boxed(rng, count),
        4 => Typed::<Name>::boxed(rng, count),
        _ => Typed::<Sheet>::boxed(rng, count),
    }
}

#[derive(Debug)]
struct Typed<R: SimRecord> {
    /// Ascending.
    keys: Vec<R::Key>,
    record: PhantomData<fn() -> R>,
}

impl<R: SimRecord> Typed<R> {
    fn boxed(rng: &mut Rng, count: usize) -> Box<dyn Tree> {
        let shapes =
            [KeyShape::Adjacent, KeyShape::Spread, KeyShape::Random, KeyShape::EqualEnds, KeyShape::Mixed];
        let shape = rng.choice(shapes).expect("there are shapes");
        let keys = KeyPool::<R::Key>::new(rng, shape, count.max(8)).keys().to_vec();
        Box::new(Self { keys, record: PhantomData })
    }

    fn key(&self, place: Place) -> R::Key {
        let index = usize::try_from(place).expect("places are few");
        *self.keys.get(index).expect("a place is in the pool")
    }

    fn place(&self, key: R::Key) -> Option<Place> {
        let index = self.keys.binary_search(&key).ok()?;
        u32::try_from(index).ok()
    }

    fn row(&self, record: &R) -> Result<Row, ReadError> {
        let place = self.place(record.key());
        match place {
            Some(place) if record.is_genuine() => Ok(Row { place, number: record.number() }),
            _ => Err(ReadError::Wrong(format!("{} at place {place:?}: nobody put {record:?}", R::NAME))),
        }
    }

    fn bounds(&self, span: &Span) -> (Bound<R::Key>, Bound<R::Key>) {
        let [low, high] = span.edges;
        let below = span.min.checked_sub(1).map(|place| self.key(place));
        let above = (span.max + 1 < self.place_count()).then(|| self.key(span.max + 1));
        let low = match (low, below) {
            (Edge::At, _) => Bound::Included(self.key(span.min)),
            (Edge::Outside, Some(below)) => Bound::Excluded(below),
            (Edge::Outside, None) => Bound::Unbounded,
            (Edge::Beside, below) => Bound::Included(below.and_then(Ordinal::after).unwrap_or(R::Key::MIN)),
        };
        let high = match (high, above) {
            (Edge::At, _) => Bound::Included(self.key(span.max)),
            (Edge::Outside, Some(above)) => Bound::Excluded(above),
            (Edge::Outside, None) => Bound::Unbounded,
            (Edge::Beside, above) => Bound::Included(above.and_then(Ordinal::before).unwrap_or(R::Key::MAX)),
        };
        (low, high)
    }

    /// Reads a key that is no place: nothing may be there.
    fn get_nothing(&self, database: &Database, key: Option<R::Key>) -> Result<(), ReadError> {
        let Some(key) = key.filter(|key| self.place(*key).is_none()) else {
            return Ok(());
        };
        match database.get::<R>(key)? {
            None => Ok(()),
            Some(record) => Err(ReadError::Wrong(format!("{}: nobody put {record:?}", R::NAME))),
        }
    }
}

impl<R: SimRecord> Tree for Typed<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn value_size(&self) -> u32 {
        u32::try_from(size_of::<R>()).expect("records are small")
    }

    fn place_count(&self) -> u32 {
        u32::try_from(self.keys.len()).expect("pools are small")
    }

    fn declare(&self, schema: Schema) -> Schema {
        schema.tree::<R>()
    }

    fn put(&self, batch: &mut Batch, place: Place, number: u32) {
        batch.put(&R::make(self.key(place), number));
    }

    fn remove(&self, batch: &mut Batch, place: Place) {
        batch.remove::<R>(self.key(place));
    }

    fn get(&self, database: &Database, place: Place) -> Result<Option<Row>, ReadError> {
        let key = self.key(place);
        let Some(record) = database.get::<R>(key)? else {
            return Ok(None);
        };
        let row = self.row(&record)?;
        if row.place == place {
            Ok(Some(row))
        } else {
            Err(ReadError::Wrong(format!("{}: place {place} was asked for, {} came", R::NAME, row.place)))
        }
    }

    fn get_beside(&self, database: &Database, place: Place) -> Result<(), ReadError> {
        let key = self.key(place);
        self.get_nothing(database, key.before())?;
        self.get_nothing(database, key.after())
    }

    fn scan<'a>(&'a self, database: &'a Database, span: &Span) -> Result<Box<dyn Cursor + 'a>, ReadError> {
        let range = self.bounds(span);
        let scan = if span.is_descending { database.scan_rev::<R>(range) } else { database.scan::<R>(range) };
        Ok(Box::new(TypedCursor { tree: self, scan: scan? }))
    }
}

struct TypedCursor<'a, R: SimRecord> {
    tree: &'a Typed<R>,
    scan: Scan<'a, R>,
}

impl<R: SimRecord> Cursor for TypedCursor<'_, R> {
    fn next(&mut self) -> Option<Result<Row, ReadError>> {
        let record = self.scan.next()?;
        Some(record.map_err(ReadError::from).and_then(|record| self.tree.row(&record)))
    }
}
