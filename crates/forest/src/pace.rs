//! How the work of a half-bar is spread over its beats.
//!
//! The work of a half-bar is known when it begins: the values of all inputs of all its jobs. Each beat gets
//! an equal part, in bytes, of what is left, rounded up, so that the last beat ends with nothing left.
//! Within a beat the part is given to the first jobs of the fixed order that have work left, a few at a time and in
//! equal parts, so that workers can run them at the same time; what one of them cannot use goes to the next.
//!
//! # Invariants
//! - The quotas of a half-bar sum up to its work (`Pace::is_done` at its end).
//! - A quota depends on the plan and the beat alone, never on what I/O has done so far.
//! - At the end of a beat at most [`LANES`] jobs are begun and not done, so that the blocks of so many jobs are held
//!   in memory from beat to beat, however many jobs there are (test).

use understory_format::u64_of;

/// Jobs that share the part of a beat. Quotas decide addresses, so this is no matter of how many workers there are.
pub(crate) const LANES: usize = 4;

/// The work of one half-bar that is not handed out yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    bytes_left: u64,
}

impl Pace {
    /// The pace of a half-bar with this much input, in bytes of values.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes_left: bytes }
    }

    /// Takes the part of one beat: gives each job its quota in values, in order. `jobs` is, for each, the
    /// values it has left and the size of one in bytes.
    pub(crate) fn take_beat(&mut self, beats_left: u64, jobs: &[(u64, u64)]) -> Vec<u64> {
        assert!(beats_left > 0, "the half-bar of a beat has that beat left");
        let mut budget = self.bytes_left.div_ceil(beats_left);
        let mut quotas = vec![0; jobs.len()];
        // A round ends a job at least, or uses the budget up.
        while budget > 0 {
            let open = jobs.iter().zip(&mut quotas).filter(|((values, _), quota)| *values > **quota);
            let open: Vec<_> = open.take(LANES).collect();
            if open.is_empty() {
                break;
            }
            let part = budget.div_ceil(u64_of(open.len()));
            for (&(values, value_size), quota) in open {
                let more = (values - *quota).min(part.min(budget).div_ceil(value_size));
                *quota += more;
                budget = budget.saturating_sub(more * value_size);
                self.bytes_left -= more * value_size;
            }
        }
        quotas
    }

    /// Whether all work of the half-bar has been handed out.
    pub(crate) fn is_done(&self) -> bool {
        self.bytes_left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spreads `jobs` over `beats`; gives the values handed out per beat and job.
    fn check(jobs: &[(u64, u64)], beats: u64, expected: &[&[u64]]) {
        let mut left = jobs.to_vec();
        let mut pace = Pace::new(jobs.iter().map(|(values, size)| values * size).sum());
        for (beat, expected) in (0..beats).zip(expected) {
            let quotas = pace.take_beat(beats - beat, &left);
            assert_eq!(quotas, *expected, "beat {beat}");
            for (job, quota) in left.iter_mut().zip(&quotas) {
                job.0 -= quota;
            }
        }
        assert!(pace.is_done());
        assert!(left.iter().all(|(values, _)| *values == 0));
    }

    #[test]
    fn nothing_to_do() {
        check(&[], 2, &[&[], &[]]);
        check(&[(0, 16)], 2, &[&[0], &[0]]);
    }

    #[test]
    fn equal_parts_in_order() {
        check(&[(4, 10), (4, 10)], 4, &[&[1, 1], &[1, 1], &[1, 1], &[1, 1]]);
        // Of five jobs the last waits until one of the first four is done.
        let jobs = [(4, 10), (1, 10), (4, 10), (4, 10), (2, 10)];
        check(&jobs, 3, &[&[2, 1, 2, 0, 0], &[2, 0, 2, 1, 0], &[0, 0, 0, 3, 2]]);
    }

    #[test]
    fn a_part_that_is_no_multiple_of_a_value_rounds_up() {
        check(&[(3, 10), (1, 7)], 2, &[&[2, 1], &[1, 0]]);
        check(&[(1, 100)], 4, &[&[1], &[0], &[0], &[0]]);
    }

    #[test]
    fn the_last_beat_ends_it() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..2_000 {
            let mut jobs: Vec<_> = (0..rng.u64(0..9)).map(|_| (rng.u64(0..50), rng.u64(1..40))).collect();
            let all = jobs.clone();
            let mut pace = Pace::new(jobs.iter().map(|(values, size)| values * size).sum());
            let beats = rng.u64(1..20);
            for beat in 0..beats {
                let quotas = pace.take_beat(beats - beat, &jobs);
                for (job, quota) in jobs.iter_mut().zip(quotas) {
                    job.0 = job.0.checked_sub(quota).expect("a job is given what it has at most");
                }
                let begun = jobs.iter().zip(&all).filter(|(left, all)| left.0 > 0 && left.0 < all.0);
                assert!(begun.count() <= LANES, "a few jobs at a time");
            }
            assert!(pace.is_done());
            assert!(jobs.iter().all(|(values, _)| *values == 0));
        }
    }
}
