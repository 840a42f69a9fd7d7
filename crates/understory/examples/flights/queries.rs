//! The answers from the database: every question goes to an index, flights are fetched by the keys found there.

use crate::Failure;
use crate::answers::{self, AIRCRAFT, Answers, BUSIEST, Counts, ROUTE};
use crate::plain;
use crate::record::{self, ByCarrier, ByDay, ByDest, ByOrigin, ByTailnum, Flight};
use crate::source;
use std::cmp::Ordering;
use std::path::Path;
use std::time::Duration;
use understory::{Database, Error, Record};

/// The answers, and how long each took, in the order of [`Answers::all`].
pub(crate) struct Answered {
    pub(crate) answers: Answers,
    pub(crate) took: [Duration; 7],
}

/// Asks everything.
pub(crate) fn answer(db: &Database) -> Result<Answered, Failure> {
    let (carriers, t0) = crate::timed(|| count(db, |entry: &ByCarrier| name(&entry.carrier)));
    let (origins, t1) = crate::timed(|| count(db, |entry: &ByOrigin| name(&entry.origin)));
    let (destinations, t2) = crate::timed(|| count(db, |entry: &ByDest| name(&entry.dest)));
    let (forwards, t3) = crate::timed(|| aircraft(db, false));
    let (backwards, t4) = crate::timed(|| aircraft(db, true));
    let (days, t5) = crate::timed(|| count(db, day));
    let (route, t6) = crate::timed(|| route(db));
    let answers = Answers {
        carriers: carriers?,
        origins: origins?,
        destinations: answers::busiest(destinations?, BUSIEST),
        aircraft: forwards?,
        aircraft_backwards: backwards?,
        busiest_day: answers::busiest(days?, 1),
        route: route?,
    };
    Ok(Answered { answers, took: [t0, t1, t2, t3, t4, t5, t6] })
}

/// Fetches every flight of the CSV by its key; counts those whose record holds exactly what their row does.
pub(crate) fn count_equal_rows(db: &Database, data: &Path) -> Result<u64, Failure> {
    let mut equal = 0;
    source::for_each_flight(data, |row| {
        let id = Flight::from_row(row)?.id.get();
        let found = db.get::<Flight>(id)?;
        equal += u64::from(found.is_some_and(|flight| flight.to_row() == *row));
        Ok(())
    })?;
    Ok(equal)
}

/// The number of records in the tree of `R`, which must come in the strict order of their keys.
pub(crate) fn count_in_order<R: Record>(db: &Database) -> Result<u64, Failure> {
    let (mut count, mut last) = (0, None);
    for record in db.scan::<R>(..)? {
        let key = record?.key();
        if last >= Some(key) {
            return Err(format!("{}: {key:?} does not come after {last:?}", R::NAME).into());
        }
        (count, last) = (count + 1, Some(key));
    }
    Ok(count)
}

/// How often each name occurs in an index whose order puts equal names beside each other.
fn count<R: Record>(db: &Database, name: impl Fn(&R) -> String) -> Result<Counts, Failure> {
    let mut counts = Counts::new();
    for entry in db.scan::<R>(..)? {
        let name = name(&entry?);
        match counts.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => counts.push((name, 1)),
        }
    }
    Ok(counts)
}

fn aircraft(db: &Database, backwards: bool) -> Result<Vec<String>, Failure> {
    let tailnum = record::padded(AIRCRAFT)?;
    let range = (tailnum, u64::MIN)..=(tailnum, u64::MAX);
    if backwards {
        flights(db, db.scan_rev::<ByTailnum>(range)?.map(|entry| Ok(entry?.id.get())))
    } else {
        flights(db, db.scan::<ByTailnum>(range)?.map(|entry| Ok(entry?.id.get())))
    }
}

fn route(db: &Database) -> Result<Vec<String>, Failure> {
    let (origin, dest) = (record::padded(ROUTE.0)?, record::padded(ROUTE.1)?);
    let origins = db.scan::<ByOrigin>((origin, u64::MIN)..=(origin, u64::MAX))?;
    let dests = db.scan::<ByDest>((dest, u64::MIN)..=(dest, u64::MAX))?;
    let both = intersect(origins.map(|entry| Ok(entry?.id.get())), dests.map(|entry| Ok(entry?.id.get())));
    flights(db, both)
}

/// The keys that are in both of two ascending scans: whichever is behind goes on until they meet.
fn intersect(
    mut left: impl Iterator<Item = Result<u64, Error>>,
    mut right: impl Iterator<Item = Result<u64, Error>>,
) -> impl Iterator<Item = Result<u64, Error>> {
    let mut next = move || -> Result<Option<u64>, Error> {
        let (mut a, mut b) = (left.next().transpose()?, right.next().transpose()?);
        while let (Some(from_left), Some(from_right)) = (a, b) {
            match from_left.cmp(&from_right) {
                Ordering::Less => a = left.next().transpose()?,
                Ordering::Greater => b = right.next().transpose()?,
                Ordering::Equal => return Ok(Some(from_left)),
            }
        }
        Ok(None)
    };
    std::iter::from_fn(move || next().transpose())
}

/// The flights of some keys, as answers list them.
fn flights(db: &Database, keys: impl Iterator<Item = Result<u64, Error>>) -> Result<Vec<String>, Failure> {
    keys.map(|key| {
        let key = key?;
        let flight = db.get::<Flight>(key)?.ok_or_else(|| format!("flight {key} is in an index only"))?;
        plain::line(&flight.to_row())
    })
    .collect()
}

fn name(bytes: &[u8]) -> String {
    record::text(bytes).to_owned()
}

fn day(entry: &ByDay) -> String {
    answers::day(entry.year.get(), entry.month, entry.day)
}
