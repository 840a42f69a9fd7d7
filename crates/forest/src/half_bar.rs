//! The compactions of one half-bar: planned at its start, run in slices beat by beat, finished at its end.
//!
//! Each job that has work in a beat gets its quota and a reservation of its own when the beat opens, in the
//! order of the jobs, so that the addresses it draws do not depend on when it runs. The slices of a beat run on the
//! machine's executor, as many at a time as it has workers, beside the commits of that beat; its close waits for them.
//!
//! # Invariants
//! - Every slice that was handed out is run, and its reservation forfeited, before the next is (asserted).
//! - At the end of the half-bar all work was handed out and done (asserted there).
//!
//! # Not here
//! What is planned (`Plan`), how much of it falls to a beat (`Pace`), what becomes of the outcomes (the forest).

use std::sync::Arc;

use understory_compaction::{Job, Outcome};
use understory_format::{Level, TreeId, u64_of};
use understory_grid::{Grid, GridError, Reservation};
use understory_io::{Join, trace_span};
use understory_table::{Counts as Values, TableError};

use crate::pace::Pace;
use crate::stats::Counts;

/// The jobs of the current half-bar, by target level and tree.
#[derive(Debug, Default)]
pub(crate) struct HalfBar {
    /// A job is away while its slice runs.
    jobs: Vec<Option<Box<dyn Job>>>,
    pace: Pace,
    /// The work of the open beat, in the order of the jobs; none before it is begun, and once it is joined.
    running: Vec<Join<Slice>>,
    /// What is to be done in the open beat, in bytes of input values.
    quota: u64,
    counts: Arc<Counts>,
}

/// The work of one job in one beat.
#[derive(Debug)]
struct Slice {
    /// The place of the job in the half-bar.
    place: usize,
    job: Box<dyn Job>,
    /// In input values.
    quota: u64,
    /// What the job had done before.
    before: Values,
    reservation: Reservation,
    result: Result<(), TableError>,
}

impl Slice {
    fn run(mut self) -> Self {
        let _span = trace_span!(
            DEBUG,
            "compaction_slice",
            tree = %self.job.tree(),
            target = %self.job.target(),
            quota = self.quota
        );
        self.result = self.job.run(self.quota, &mut self.reservation);
        self
    }
}

/// What one job changes, and where.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) tree: TreeId,
    pub(crate) target: Level,
    pub(crate) outcome: Outcome,
}

impl HalfBar {
    /// Takes the jobs in the order in which they reserve and are applied.
    pub(crate) fn new(jobs: Vec<Box<dyn Job>>, counts: Arc<Counts>) -> Self {
        let bytes = jobs.iter().map(|job| job.remaining() * job.value_size()).sum();
        counts.planned(u64_of(jobs.len()), bytes);
        let jobs = jobs.into_iter().map(Some).collect();
        Self { jobs, pace: Pace::new(bytes), counts, ..Self::default() }
    }

    /// The most blocks that all jobs take for tables, and the most edits they make, whatever the slices.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        // What a slice reserves for the end of a table that the next slice goes on with comes on top of what it takes.
        let blocks = |job: &dyn Job| job.blocks_bound(job.remaining()) + job.table_end_bound();
        let bounds = self.jobs().map(|job| (blocks(job), job.edits_bound()));
        bounds.fold((0, 0), |(blocks, edits), (more_blocks, more_edits)| {
            (blocks + more_blocks, edits + more_edits)
        })
    }

    /// Gives every job its quota and its addresses for the beat that opens, the first of the `beats_left`, and
    /// hands the work to the machine's executor.
    pub(crate) fn begin_beat(&mut self, grid: &Grid, beats_left: u64) -> Result<(), GridError> {
        assert!(self.running.is_empty(), "the beat before was joined");
        let work: Vec<_> = self.jobs().map(|job| (job.remaining(), job.value_size())).collect();
        let quotas = self.pace.take_beat(beats_left, &work);
        self.quota = work.iter().zip(&quotas).map(|((_, size), quota)| size * quota).sum();
        self.counts.given(self.quota);
        let mut slices = Vec::new();
        let places = self.jobs.iter_mut().enumerate().zip(quotas);
        for ((place, slot), quota) in places.filter(|(_, quota)| *quota > 0) {
            let job = slot.take().expect("jobs are at home between beats");
            let reservation = grid.reserve(job.blocks_bound(quota))?;
            let before = job.counts();
            slices.push(Slice { place, job, quota, before, reservation, result: Ok(()) });
        }
        // Only now that all addresses are reserved may one of them run, as without workers it does at once.
        self.running = slices.into_iter().map(|slice| grid.machine().spawn(|| slice.run())).collect();
        Ok(())
    }

    /// What is to be done in the open beat, in bytes of input values.
    #[cfg(test)]
    pub(crate) fn work_of_beat(&self) -> u64 {
        self.quota
    }

    /// Waits until what the jobs have to do in the open beat is done.
    pub(crate) fn join(&mut self, grid: &Grid) -> Result<(), TableError> {
        let running = std::mem::take(&mut self.running);
        let is_done = running.iter().all(Join::is_done);
        let wait = || running.into_iter().map(Join::wait).collect::<Vec<_>>();
        let slices = if is_done {
            wait()
        } else {
            let _span = trace_span!(DEBUG, "wait", cause = "the work of the beat before");
            self.counts.beat_waits.time(&*grid.machine().clock, wait)
        };
        let mut failed = Ok(());
        for Slice { place, job, before, reservation, result, .. } in slices {
            grid.forfeit(reservation);
            self.counts.worked(job.tree(), job.target(), job.value_size(), job.counts().since(before));
            *self.jobs.get_mut(place).expect("the place it was taken from") = Some(job);
            failed = failed.and(result);
        }
        failed
    }

    /// Waits until no job runs, whatever comes of it.
    pub(crate) fn stop(&mut self) {
        for slice in self.running.drain(..) {
            drop(slice.outcome());
        }
    }

    fn jobs(&self) -> impl Iterator<Item = &dyn Job> {
        self.jobs.iter().map(|job| job.as_deref().expect("jobs are at home between beats"))
    }

    /// What the jobs change, in their order. Nothing has changed yet.
    pub(crate) fn finish(self) -> Result<Vec<Finished>, TableError> {
        assert!(self.pace.is_done(), "the last beat of a half-bar takes all that is left");
        assert!(self.running.is_empty(), "the last beat was joined");
        let finish = |job: Option<Box<dyn Job>>| {
            let job = job.expect("jobs are at home between beats");
            Ok(Finished { tree: job.tree(), target: job.target(), outcome: job.finish()? })
        };
        self.jobs.into_iter().map(finish).collect()
    }
}

#[cfg(test)]
mod tests;
