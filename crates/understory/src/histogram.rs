//! Latencies by the logarithm of their length, in a fixed amount of memory.
//!
//! A bucket for each nanosecond up to 32, then 32 buckets for each doubling, up to 73 minutes; what took longer is in
//! the last. So a quantile is read with an error of at most 1/32, always to the longer side, from 10 KB, and a
//! recording is three atomic additions without a lock.
//!
//! Why no crate: `hdrhistogram` records through `&mut`, or through a recorder for each thread that allocates and is
//! waited for; and what of it is wanted here, the arithmetic of the buckets, is ten lines.
//!
//! # Invariants
//! - Each bucket begins behind the one before (`buckets_follow_one_another`).
//! - A quantile is never below that of the recorded values, and above by a 32nd at most
//!   (`quantiles_are_those_of_the_sorted_values`).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use understory_format::{u64_of, usize_of};

/// The logarithm of the buckets that one doubling has.
const FINE_BITS: u32 = 5;
const FINE: u64 = 1 << FINE_BITS;
/// Longer latencies are counted as this one.
const NANOS_MAX: u64 = (1 << 42) - 1;

fn bucket_of(nanos: u64) -> usize {
    let nanos = nanos.min(NANOS_MAX);
    let shift = nanos.checked_ilog2().unwrap_or(0).saturating_sub(FINE_BITS);
    // Doublings that are passed, each with `FINE` buckets; the first two share one width.
    usize_of(u32::try_from(u64::from(shift) * FINE + (nanos >> shift)).unwrap_or(u32::MAX))
}

/// The longest latency that a bucket counts, in nanoseconds.
fn end_of(bucket: usize) -> u64 {
    let bucket = u64_of(bucket);
    let shift = (bucket / FINE).saturating_sub(1);
    let fine = bucket - shift * FINE;
    ((fine + 1) << shift) - 1
}

fn bucket_count() -> usize {
    bucket_of(NANOS_MAX) + 1
}

/// Latencies as they were when [`Database::stats`](crate::Database::stats) was called. Costs 10 KB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: Box<[u64]>,
    total: Duration,
    max: Duration,
}

impl Default for Histogram {
    /// Of nothing.
    fn default() -> Self {
        Self { buckets: vec![0; bucket_count()].into(), total: Duration::ZERO, max: Duration::ZERO }
    }
}

impl Histogram {
    /// Latencies counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Their mean; 0 if there are none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let nanos = u64::try_from(self.total.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(nanos.checked_div(self.count()).unwrap_or(0))
    }

    /// The least latency that a part of `q` (from 0 to 1) of all does not exceed, or up to a 32nd more; 0 of none.
    /// `quantile(0.5)` is the median, `quantile(0.999)` is exceeded by one in a thousand.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = rank(q, self.count());
        let mut below = 0;
        let reaches = |count: &u64| {
            below += count;
            below >= rank && below > 0
        };
        let bucket = self.buckets.iter().position(reaches);
        bucket.map_or(Duration::ZERO, |bucket| Duration::from_nanos(end_of(bucket)).min(self.max))
    }

    /// Buckets that counted something: the longest latency of each, and how many it counted.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let counted = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(bucket, count)| (Duration::from_nanos(end_of(bucket)).min(self.max), *count))
    }

    /// Adds what another one counted, of another database or another time.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(own, other)| *own += other);
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// What was counted since `earlier`, which was taken from the same handle. Its maximum is exact if it is that of
    /// all time, and up to a 32nd too long else.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        let buckets: Box<[u64]> = pairs.map(|(now, then)| now.saturating_sub(*then)).collect();
        let total = self.total.saturating_sub(earlier.total);
        let max = match buckets.iter().rposition(|count| *count > 0) {
            None => Duration::ZERO,
            // Longer ones than it can tell may be in the last bucket.
            Some(last) if last + 1 == bucket_count() || self.max > earlier.max => self.max,
            Some(last) => Duration::from_nanos(end_of(last)).min(self.max),
        };
        Self { buckets, total, max }
    }
}

/// Which of `count` sorted values, from 1, is the quantile: a part of `q` is not above it.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a count of 53 bits is exact, and what is rounded is a rank among more than that"
)]
fn rank(q: f64, count: u64) -> u64 {
    ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(u64::from(count > 0), count)
}

/// Records latencies from any number of threads, without a lock.
pub(crate) struct Recorder {
    buckets: Box<[AtomicU64]>,
    total: AtomicU64,
    max: AtomicU64,
}

impl Default for Recorder {
    fn default() -> Self {
        let buckets = (0..bucket_count()).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, total: AtomicU64::new(0), max: AtomicU64::new(0) }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("total", &self.total).field("max", &self.max).finish_non_exhaustive()
    }
}

impl Recorder {
    pub(crate) fn record(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.buckets.get(bucket_of(nanos)).expect("the last bucket counts what is longer");
        self.total.fetch_add(nanos, Ordering::Relaxed);
        self.max.fetch_max(nanos, Ordering::Relaxed);
        // Behind the maximum, so that whoever finds a count finds no smaller maximum.
        bucket.fetch_add(1, Ordering::Release);
    }

    /// What was recorded so far. While others record, the sum may be a few latencies ahead of the count.
    pub(crate) fn get(&self) -> Histogram {
        Histogram {
            buckets: self.buckets.iter().map(|count| count.load(Ordering::Acquire)).collect(),
            total: Duration::from_nanos(self.total.load(Ordering::Relaxed)),
            max: Duration::from_nanos(self.max.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUANTILES: [f64; 9] = [0.0, 0.001, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0];

    fn of(nanos: &[u64]) -> Histogram {
        let recorder = Recorder::default();
        nanos.iter().for_each(|nanos| recorder.record(Duration::from_nanos(*nanos)));
        recorder.get()
    }

    #[test]
    fn buckets_follow_one_another() {
        assert_eq!(bucket_count(), 1216);
        assert_eq!((bucket_of(0), end_of(0)), (0, 0));
        for bucket in 1..bucket_count() {
            let first = end_of(bucket - 1) + 1;
            let last = end_of(bucket);
            assert_eq!((bucket_of(first), bucket_of(last)), (bucket, bucket));
            assert!(last - first <= first / FINE, "bucket {bucket} is from {first} to {last}");
        }
        assert_eq!(end_of(bucket_count() - 1), NANOS_MAX);
        assert_eq!(bucket_of(u64::MAX), bucket_count() - 1);
    }

    /// Against the sorted values: not below, and not above by more than a 32nd.
    fn check(mut nanos: Vec<u64>) {
        let histogram = of(&nanos);
        nanos.sort_unstable();
        let count = nanos.len();
        assert_eq!(histogram.count(), u64_of(count));
        assert_eq!(histogram.total(), nanos.iter().copied().map(Duration::from_nanos).sum());
        assert_eq!(histogram.max(), Duration::from_nanos(nanos.last().copied().unwrap_or(0)));
        for q in QUANTILES {
            // The least value such that so many are not above it.
            let exact = (1..=count).find(|rank| {
                let part = Duration::from_secs(u64_of(*rank)).as_secs_f64()
                    / Duration::from_secs(u64_of(count)).as_secs_f64();
                part >= q
            });
            let exact = exact.map_or(0, |rank| nanos[rank - 1]);
            let found = u64::try_from(histogram.quantile(q).as_nanos()).unwrap();
            assert!(found >= exact, "{q}: {found} for {exact} of {count}");
            assert!(found - exact <= exact / FINE, "{q}: {found} for {exact} of {count}");
        }
        let in_buckets: u64 = histogram.buckets().map(|(_, count)| count).sum();
        assert_eq!(in_buckets, u64_of(count));
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        check(vec![]);
        check(vec![0]);
        check(vec![31, 32, 33, 63, 64, 65]);
        check(vec![1_000_000; 7]);
        check((0..1000).collect());
        // One in a thousand is slow.
        check((0..5_000).map(|n| if n % 1000 == 7 { 80_000_000 } else { 9_000 + n }).collect());
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..200 {
            let bits = rng.u32(1..42);
            check((0..rng.usize(1..400)).map(|_| rng.u64(..) >> (64 - rng.u32(1..=bits))).collect());
        }
    }

    #[test]
    fn what_is_too_long_is_in_the_last_bucket() {
        let week = Duration::from_secs(7 * 24 * 3600);
        let recorder = Recorder::default();
        recorder.record(week);
        recorder.record(Duration::from_secs(1));
        let histogram = recorder.get();
        assert_eq!((histogram.max(), histogram.count()), (week, 2));
        assert_eq!(histogram.quantile(1.0), Duration::from_nanos(NANOS_MAX));
        assert_eq!(histogram.quantile(f64::NAN), histogram.quantile(0.0));
    }

    #[test]
    fn parts_merge_to_the_whole_and_a_part_is_left_without_the_other() {
        let mut rng = fastrand::Rng::with_seed(6);
        let all: Vec<u64> = (0..3_000).map(|_| rng.u64(..) >> (63 - rng.u32(0..40))).collect();
        for cut in [0, 1, 1_700, 3_000] {
            let (first, second) = all.split_at(cut);
            let mut merged = of(first);
            merged.merge(&of(second));
            assert_eq!(merged, of(&all));
            let left = of(&all).since(&of(first));
            let expected = of(second);
            assert_eq!((left.count(), left.total()), (expected.count(), expected.total()));
            assert!(QUANTILES.iter().all(|q| left.quantile(*q) >= expected.quantile(*q)));
            assert!(left.max() >= expected.max());
            assert!(left.max() <= expected.max() + expected.max() / 32, "{left:?}, {expected:?}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test races real threads")]
    fn threads_record_side_by_side() {
        let recorder = Recorder::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let recorder = &recorder;
                scope.spawn(move || {
                    (0..10_000).for_each(|n| recorder.record(Duration::from_nanos(4 * n + thread)));
                });
            }
        });
        assert_eq!(recorder.get(), of(&(0..40_000).collect::<Vec<_>>()));
    }
}
