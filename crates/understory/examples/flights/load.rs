//! Loading: every flight with its index entries in one batch, as many flights to a commit as the file allows.

use crate::record::{ByCarrier, ByDay, ByDest, ByOrigin, ByTailnum, Flight};
use crate::{Failure, Plan};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;
use understory::{Batch, Database, Geometry, Options, Schema};

/// Flights in a commit, where the batch limit of the file does not say fewer.
const FLIGHTS_PER_COMMIT: u64 = 1_000;

/// What loading did.
pub(crate) struct Loaded {
    pub(crate) commits: u64,
    /// Flights and index entries.
    pub(crate) records: u64,
    /// Of the records, without anything of the engine's.
    pub(crate) record_bytes: u64,
    /// From the first commit to the end of the checkpoint.
    pub(crate) took: Duration,
}

/// The flights and their five indexes.
pub(crate) fn schema() -> Schema {
    Schema::new()
        .tree::<Flight>()
        .tree::<ByCarrier>()
        .tree::<ByOrigin>()
        .tree::<ByDest>()
        .tree::<ByTailnum>()
        .tree::<ByDay>()
}

/// Creates a file and commits all flights to it, the last checkpoint included.
pub(crate) fn load(plan: &Plan, flights: &[Flight]) -> Result<(Database, Loaded), Failure> {
    let options = Options::default().memory(plan.memory).geometry(plan.geometry);
    let db = Database::create(&plan.path, &schema(), &options)?;
    let bar = progress(flights.len(), plan.name)?;
    let mut loaded = Loaded { commits: 0, records: 0, record_bytes: 0, took: Duration::ZERO };
    let (result, took) = crate::timed(|| -> Result<(), Failure> {
        let mut batch = Batch::new();
        for flights in flights.chunks(flights_per_commit(&plan.geometry, flights)?) {
            batch.clear();
            flights.iter().for_each(|flight| loaded.record_bytes += put(&mut batch, flight));
            db.commit(&batch)?;
            loaded.commits += 1;
            loaded.records += batch.len();
            bar.inc(flights.len().try_into()?);
        }
        Ok(db.checkpoint()?)
    });
    result?;
    bar.finish_and_clear();
    loaded.took = took;
    Ok((db, loaded))
}

/// As many as fit a batch, each with all its index entries, but no more than are usual.
fn flights_per_commit(geometry: &Geometry, flights: &[Flight]) -> Result<usize, Failure> {
    let Some(complete) = flights.iter().find(|flight| flight.by_tailnum().is_some()) else {
        return Ok(1);
    };
    let mut batch = Batch::new();
    put(&mut batch, complete);
    let most = u64::from(geometry.batch_size_max) / batch.size();
    Ok(most.clamp(1, FLIGHTS_PER_COMMIT).try_into()?)
}

/// Puts a flight and all its index entries; gives back their size in bytes.
fn put(batch: &mut Batch, flight: &Flight) -> u64 {
    batch.put(flight);
    batch.put(&flight.by_carrier());
    batch.put(&flight.by_origin());
    batch.put(&flight.by_dest());
    batch.put(&flight.by_day());
    let mut size = Flight::SIZE_WITH_INDEXES;
    match flight.by_tailnum() {
        Some(entry) => batch.put(&entry),
        None => size -= size_of::<ByTailnum>(),
    }
    size.try_into().expect("a flight is small")
}

/// A bar on a terminal, nothing elsewhere.
fn progress(flights: usize, title: &'static str) -> Result<ProgressBar, Failure> {
    let style = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} flights, {per_sec}, {eta} left")?;
    Ok(ProgressBar::new(flights.try_into()?).with_style(style).with_message(title))
}
