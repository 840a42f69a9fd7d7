//! The compactions of one half-bar: planned at its start, run in slices beat by beat, finished at its end.
//!
//! Each job that has work in a beat gets its quota and a reservation of its own when the beat opens, in the
//! order of the jobs, so that the addresses it draws do not depend on when it runs.
//!
//! # Invariants
//! - Every slice that was handed out is run, and its reservation forfeited, before the next is (asserted).
//! - At the end of the half-bar all work was handed out and done (asserted there).
//!
//! # Not here
//! What is planned (`Plan`), how much of it falls to a beat (`Pace`), what becomes of the outcomes (the forest).

use understory_compaction::{Job, Outcome};
use understory_format::{Level, TreeId};
use understory_grid::{Grid, GridError, Reservation};
use understory_table::TableError;

use crate::pace::Pace;

/// The jobs of the current half-bar, by target level and tree.
#[derive(Debug, Default)]
pub(crate) struct HalfBar {
    jobs: Vec<Active>,
    pace: Pace,
}

#[derive(Debug)]
struct Active {
    job: Box<dyn Job>,
    /// The work of the open beat; none once it is joined, or if the job has none in this beat.
    slice: Option<Slice>,
}

#[derive(Debug)]
struct Slice {
    /// In input values.
    quota: u64,
    reservation: Reservation,
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
    pub(crate) fn new(jobs: Vec<Box<dyn Job>>) -> Self {
        let bytes = jobs.iter().map(|job| job.remaining() * job.value_size()).sum();
        let jobs = jobs.into_iter().map(|job| Active { job, slice: None }).collect();
        Self { jobs, pace: Pace::new(bytes) }
    }

    /// Gives every job its quota and its addresses for the beat that opens, the first of the `beats_left`.
    pub(crate) fn begin_beat(&mut self, grid: &Grid, beats_left: u64) -> Result<(), GridError> {
        let work: Vec<_> =
            self.jobs.iter().map(|Active { job, .. }| (job.remaining(), job.value_size())).collect();
        let quotas = self.pace.take_beat(beats_left, &work);
        for (Active { job, slice }, quota) in self.jobs.iter_mut().zip(quotas) {
            assert!(slice.is_none(), "the beat before was joined");
            if quota > 0 {
                let reservation = grid.reserve(job.blocks_bound(quota))?;
                *slice = Some(Slice { quota, reservation });
            }
        }
        Ok(())
    }

    /// What is to be done in the open beat, in bytes of input values.
    #[cfg(test)]
    pub(crate) fn work_of_beat(&self) -> u64 {
        let quota = |active: &Active| active.slice.as_ref().map_or(0, |slice| slice.quota);
        self.jobs.iter().map(|active| quota(active) * active.job.value_size()).sum()
    }

    /// Runs what the jobs have to do in the open beat.
    pub(crate) fn join(&mut self, grid: &Grid) -> Result<(), TableError> {
        for Active { job, slice } in &mut self.jobs {
            if let Some(Slice { quota, mut reservation }) = slice.take() {
                let result = job.run(quota, &mut reservation);
                grid.forfeit(reservation);
                result?;
            }
        }
        Ok(())
    }

    /// What the jobs change, in their order. Nothing has changed yet.
    pub(crate) fn finish(self) -> Result<Vec<Finished>, TableError> {
        assert!(self.pace.is_done(), "the last beat of a half-bar takes all that is left");
        let finish = |Active { job, slice }: Active| {
            assert!(slice.is_none(), "the last beat was joined");
            Ok(Finished { tree: job.tree(), target: job.target(), outcome: job.finish()? })
        };
        self.jobs.into_iter().map(finish).collect()
    }
}

#[cfg(test)]
mod tests;
