//! The same answers from a plain pass over the CSV: no engine, no records, only text.
//!
//! # Not here
//! [`Flight`](crate::record::Flight) and its key, on purpose: an error in them must not be in both answers.

use crate::Failure;
use crate::answers::{self, AIRCRAFT, Answers, BUSIEST, Counts, ROUTE};
use crate::record::column;
use crate::source::{self, ABSENT};
use csv::StringRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the pass found.
pub(crate) struct Plain {
    pub(crate) answers: Answers,
    pub(crate) rows: u64,
    /// Flights of which the data does not say which aircraft it was.
    pub(crate) without_aircraft: u64,
}

/// What makes a flight unique, in the order in which answers list flights.
type Identity = (String, String, u16, String);

#[derive(Default)]
struct Pass {
    carriers: BTreeMap<String, u64>,
    origins: BTreeMap<String, u64>,
    destinations: BTreeMap<String, u64>,
    days: BTreeMap<String, u64>,
    aircraft: BTreeMap<Identity, String>,
    route: BTreeMap<Identity, String>,
    identities: BTreeSet<Identity>,
    without_aircraft: u64,
}

/// Reads all flights and answers all questions; two flights with the same identity are an error.
pub(crate) fn pass(folder: &Path) -> Result<Plain, Failure> {
    let mut pass = Pass::default();
    let rows = source::for_each_flight(folder, |row| pass.take(row))?;
    let without_aircraft = pass.without_aircraft;
    Ok(Plain { answers: pass.answers(), rows, without_aircraft })
}

impl Pass {
    fn take(&mut self, row: &StringRecord) -> Result<(), Failure> {
        let text = |name| column(row, name);
        let identity = identity(row)?;
        if !self.identities.insert(identity.clone()) {
            return Err(format!("{identity:?} is there twice").into());
        }
        count(&mut self.carriers, text("carrier")?.to_owned());
        count(&mut self.origins, text("origin")?.to_owned());
        count(&mut self.destinations, text("dest")?.to_owned());
        count(
            &mut self.days,
            answers::day(text("year")?.parse()?, text("month")?.parse()?, text("day")?.parse()?),
        );
        match text("tailnum")? {
            ABSENT => self.without_aircraft += 1,
            AIRCRAFT => drop(self.aircraft.insert(identity.clone(), line(row)?)),
            _ => {}
        }
        if (text("origin")?, text("dest")?) == ROUTE {
            self.route.insert(identity, line(row)?);
        }
        Ok(())
    }

    fn answers(self) -> Answers {
        let aircraft: Vec<String> = self.aircraft.into_values().collect();
        Answers {
            carriers: counts(self.carriers),
            origins: counts(self.origins),
            destinations: answers::busiest(counts(self.destinations), BUSIEST),
            aircraft_backwards: aircraft.iter().rev().cloned().collect(),
            aircraft,
            busiest_day: answers::busiest(counts(self.days), 1),
            route: self.route.into_values().collect(),
        }
    }
}

/// A flight as answers list it.
pub(crate) fn line(row: &StringRecord) -> Result<String, Failure> {
    let text = |name| column(row, name);
    Ok(format!(
        "{} {}{} {}-{} {} {}",
        text("time_hour")?,
        text("carrier")?,
        text("flight")?,
        text("origin")?,
        text("dest")?,
        text("tailnum")?,
        text("dep_time")?,
    ))
}

fn identity(row: &StringRecord) -> Result<Identity, Failure> {
    let text = |name| column(row, name).map(str::to_owned);
    Ok((text("time_hour")?, text("carrier")?, text("flight")?.parse()?, text("origin")?))
}

fn count(counts: &mut BTreeMap<String, u64>, name: String) {
    *counts.entry(name).or_default() += 1;
}

fn counts(counts: BTreeMap<String, u64>) -> Counts {
    counts.into_iter().collect()
}
