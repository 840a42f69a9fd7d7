//! The merge against a plain sort: exhaustively for three small sources; from seeds, for many larger ones, in `fuzz`.

mod fuzz;

use understory_format::Key;
use understory_grid::GridError;

use super::{Counts, Merge, Step, Tombstones};
use crate::test_rows::{Named, Row, Short, Tied};
use crate::{Direction, Entry, Source, TableError};

/// A key's number, a tag that tells versions apart, and whether it is a tombstone.
type Item = (u64, u32, bool);

const DIRECTIONS: [Direction; 2] = [Direction::Ascending, Direction::Descending];
const TOMBSTONES: [Tombstones; 2] = [Tombstones::Keep, Tombstones::Drop];

fn error() -> TableError {
    TableError::Grid(GridError::NoBuffers)
}

/// A source over a list; while `failures` are left, one `load` in four fails. A `load` makes a window of up to seven
/// entries available.
struct ListSource<R> {
    rows: Vec<Entry<R>>,
    direction: Direction,
    at: usize,
    /// Where the window ends: entries below this one are there.
    loaded: usize,
    failures: u32,
    random: fastrand::Rng,
}

impl<R: Row> ListSource<R> {
    /// `items` in ascending order, equal keys newest first.
    fn new(items: &[Item], direction: Direction, failures: u32) -> Self {
        let row = |&(number, tag, tombstone): &Item| Entry { value: R::row(number, tag), tombstone };
        let mut rows: Vec<_> = items.iter().map(row).collect();
        if direction == Direction::Descending {
            rows.sort_by_key(|entry| core::cmp::Reverse(entry.value.key()));
        }
        let random = fastrand::Rng::with_seed(u64::from(failures));
        Self { rows, direction, at: 0, loaded: 0, failures, random }
    }
}

impl<R: Row> Source<R> for ListSource<R> {
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        if self.at == self.loaded {
            if self.failures > 0 && self.random.u8(..4) == 0 {
                self.failures -= 1;
                return Err(error());
            }
            self.loaded = self.rows.len().min(self.at + self.random.usize(1..8));
        }
        Ok(self.rows.get(self.at).map(|entry| entry.value.key().prefix()))
    }

    fn entry(&self) -> Entry<&R> {
        assert!(self.at < self.loaded);
        let entry = &self.rows[self.at];
        Entry { value: &entry.value, tombstone: entry.tombstone }
    }

    fn advance(&mut self) {
        assert!(self.at < self.loaded);
        self.at += 1;
    }

    fn stretch(&self, bound: Option<R::Key>) -> usize {
        let is_before = |key| match (bound, self.direction) {
            (None, _) => true,
            (Some(bound), Direction::Ascending) => key < bound,
            (Some(bound), Direction::Descending) => key > bound,
        };
        let window = &self.rows[self.at..self.loaded];
        let goes_on = |pair: &&[Entry<R>]| {
            let [one, next] = pair else { unreachable!("windows of two") };
            !next.tombstone && next.value.key() != one.value.key() && is_before(next.value.key())
        };
        1 + window.windows(2).take_while(goes_on).count()
    }
}

/// What is consumed, one after another, with whether it is emitted: a stable sort by key.
fn oracle(sources: &[Vec<Item>], direction: Direction, tombstones: Tombstones) -> Vec<(Item, bool)> {
    let mut all: Vec<Item> = sources.iter().flatten().copied().collect();
    match direction {
        Direction::Ascending => all.sort_by_key(|item| item.0),
        Direction::Descending => all.sort_by_key(|item| core::cmp::Reverse(item.0)),
    }
    let mut last = None;
    let emits = |item: &Item| {
        let is_newest = last.replace(item.0) != Some(item.0);
        is_newest && !(item.2 && tombstones == Tombstones::Drop)
    };
    let emitted: Vec<bool> = all.iter().map(emits).collect();
    all.into_iter().zip(emitted).collect()
}

fn item<R: Row>(entry: Entry<&R>) -> Item {
    (R::number(entry.value.key()), entry.value.tag(), entry.tombstone)
}

struct Case<'a> {
    sources: &'a [Vec<Item>],
    direction: Direction,
    tombstones: Tombstones,
    failures: u32,
}

impl Case<'_> {
    fn merge<R: Row>(&self) -> Merge<R, ListSource<R>> {
        let source = |items: &Vec<Item>| ListSource::new(items, self.direction, self.failures);
        Merge::new(self.sources.iter().map(source).collect(), self.direction, self.tombstones)
    }

    /// The sources, if they can be read at a glance.
    fn shown(&self) -> String {
        let count: usize = self.sources.iter().map(Vec::len).sum();
        if count < 20 { format!("{:?}", self.sources) } else { format!("{count} items") }
    }

    /// Steps of `budget`, each compared with the oracle; a failing step is tried again for what it left.
    fn check_steps<R: Row>(&self, expected: &[(Item, bool)], budget: u64) {
        let mut merge = self.merge::<R>();
        let mut given = Vec::new();
        loop {
            let before = merge.counts();
            let mut failures = 0;
            let step = loop {
                let done = merge.counts().consumed - before.consumed;
                let sink = |entry: Entry<&R>| {
                    given.push(item(entry));
                    Ok::<_, TableError>(())
                };
                match merge.step(budget - done, sink) {
                    Ok(step) => break step,
                    Err(_) => failures += 1,
                }
            };
            assert!(self.failures > 0 || failures == 0);
            let counts = merge.counts();
            let consumed = usize::try_from(counts.consumed).unwrap();
            assert!(step.is_done || counts.consumed == before.consumed + budget, "stops at its budget");
            let emitted: Vec<Item> =
                expected[..consumed].iter().filter(|(_, is_emitted)| *is_emitted).map(|e| e.0).collect();
            assert_eq!(given, emitted, "after {consumed} of {}", self.shown());
            assert_eq!(counts.consumed, counts.emitted + counts.dropped);
            if step.is_done {
                assert_eq!(consumed, expected.len(), "everything is consumed");
                assert!(merge.is_done().unwrap());
                break;
            }
        }
    }

    /// The next entry, however often it fails.
    fn insist<R: Row>(&self, merge: &mut Merge<R, ListSource<R>>) -> Option<Item> {
        loop {
            match merge.next() {
                Ok(found) => return found.map(item),
                Err(_) => assert!(self.failures > 0),
            }
        }
    }

    fn check_next<R: Row>(&self, expected: &[(Item, bool)]) {
        let mut merge = self.merge::<R>();
        for (item_expected, _) in expected.iter().filter(|(_, is_emitted)| *is_emitted) {
            assert_eq!(self.insist(&mut merge), Some(*item_expected), "in {}", self.shown());
        }
        assert_eq!(self.insist(&mut merge), None);
        assert_eq!(merge.counts().consumed, u64::try_from(expected.len()).unwrap());
    }
}

fn check<R: Row>(sources: &[Vec<Item>], budgets: &[u64], failures: u32) {
    for direction in DIRECTIONS {
        for tombstones in TOMBSTONES {
            let case = Case { sources, direction, tombstones, failures };
            let expected = oracle(sources, direction, tombstones);
            budgets.iter().for_each(|&budget| case.check_steps::<R>(&expected, budget));
            case.check_next::<R>(&expected);
        }
    }
}

/// Every way for a source to hold at most two of three neighbouring keys, with and without tombstones.
fn tiny_sources(tag: u32) -> Vec<Vec<Item>> {
    let marks = [false, true];
    let one = |number| marks.map(|tombstone| vec![(number, tag, tombstone)]);
    let two = |a, b| {
        let both = marks.map(|x| marks.map(|y| vec![(a, tag, x), (b, tag, y)]));
        both.into_iter().flatten()
    };
    let ones = [6, 7, 8].into_iter().flat_map(one);
    let twos = [(6, 7), (6, 8), (7, 8)].into_iter().flat_map(|(a, b)| two(a, b));
    [vec![]].into_iter().chain(ones).chain(twos).collect()
}

#[test]
fn three_tiny_sources_exhaustively() {
    let (newest, middle, oldest) = (tiny_sources(0), tiny_sources(1), tiny_sources(2));
    for a in &newest {
        for b in &middle {
            for c in &oldest {
                check::<Tied>(&[a.clone(), b.clone(), c.clone()], &[1, u64::MAX], 0);
            }
        }
    }
}

#[test]
fn no_source_and_empty_ones() {
    check::<Short>(&[], &[1, u64::MAX], 0);
    check::<Short>(&[vec![], vec![]], &[1, u64::MAX], 0);
}

#[test]
fn ends_of_the_key_space() {
    let ends = |tag| vec![(0, tag, false), (u64::MAX, tag, tag == 1)];
    check::<Short>(&[ends(0), vec![], ends(1), ends(2)], &[1, 2, u64::MAX], 0);
}

#[test]
fn a_failed_sink_gets_the_entry_again() {
    let sources = [vec![(1, 0, false), (2, 0, false)], vec![(1, 1, false), (3, 1, true)]];
    let case = Case {
        sources: &sources,
        direction: Direction::Ascending,
        tombstones: Tombstones::Keep,
        failures: 0,
    };
    let mut merge = case.merge::<Short>();
    let mut given = Vec::new();
    let mut fail = true;
    let step = loop {
        let sink = |entry: Entry<&Short>| {
            fail = !fail;
            if !fail {
                return Err(error());
            }
            given.push(item(entry));
            Ok(())
        };
        if let Ok(step) = merge.step(u64::MAX, sink) {
            break step;
        }
    };
    assert_eq!(given, [(1, 0, false), (2, 0, false), (3, 1, true)]);
    assert_eq!(merge.counts(), Counts { consumed: 4, emitted: 3, dropped: 1 });
    assert!(step.is_done);
}

#[test]
fn a_step_looks_no_further_than_its_budget() {
    let sources = [vec![(1, 0, false), (2, 0, false)]];
    let case = Case {
        sources: &sources,
        direction: Direction::Ascending,
        tombstones: Tombstones::Keep,
        failures: 0,
    };
    let mut merge = case.merge::<Short>();
    let mut step = |budget| merge.step(budget, |_| Ok::<_, TableError>(())).unwrap();
    let took = |count, is_done| {
        let counts = Counts { consumed: count, emitted: count, dropped: 0 };
        Step { counts, is_done }
    };
    assert_eq!(step(0), took(0, false));
    assert_eq!(step(2), took(2, false));
    assert_eq!(step(1), took(0, true));
    assert_eq!(step(0), took(0, false), "nothing was asked");
}

#[test]
fn boxed_sources_merge() {
    let sources: Vec<Box<dyn Source<Short>>> =
        vec![Box::new(ListSource::new(&[(1, 0, false)], Direction::Ascending, 0))];
    let mut merge = Merge::new(sources, Direction::Ascending, Tombstones::Keep);
    assert_eq!(merge.next().unwrap().map(item), Some((1, 0, false)));
    assert!(merge.next().unwrap().is_none());
    assert_eq!(merge.sources().len(), 1);
    assert_eq!(Short::key_of(7), 7);
}
