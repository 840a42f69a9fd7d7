//! The records that every engine gets: distinct 16-byte keys and 128 bytes of value that nothing can compress.
//!
//! # Invariants
//! - Record `n` of an order is the same in each run and for each engine.
//! - Random keys are distinct: they end in `n` itself.

use crate::suite::float;
use std::ops::Range;

/// Bytes of a value.
pub(crate) const VALUE_SIZE: usize = 128;
/// Bytes of a record, the key included.
pub(crate) const RECORD_SIZE: u64 = 144;

/// Bytes that values are cut from. Cutting is much cheaper than making each anew, and as hard to compress.
const POOL_SIZE: usize = 1 << 20;

/// One record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) key: u128,
    pub(crate) value: [u8; VALUE_SIZE],
}

/// In which order keys come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Random,
    Sequential,
}

/// Makes records.
#[derive(Debug)]
pub(crate) struct Samples {
    pool: Vec<u8>,
    order: Order,
}

impl Samples {
    pub(crate) fn new(order: Order) -> Samples {
        let mut pool = vec![0; POOL_SIZE];
        fastrand::Rng::with_seed(1).fill(&mut pool);
        Samples { pool, order }
    }

    /// The key of record `n`.
    pub(crate) fn key(&self, n: u64) -> u128 {
        match self.order {
            Order::Sequential => u128::from(n),
            Order::Random => u128::from(mix(n)) << 64 | u128::from(n),
        }
    }

    /// What the first bytes of the value of record `n` say, by which a read is checked.
    pub(crate) fn mark(n: u64) -> [u8; 8] {
        n.to_le_bytes()
    }

    /// Record `n`.
    pub(crate) fn sample(&self, n: u64) -> Sample {
        let start = usize::try_from(mix(!n)).expect("64-bit") % (POOL_SIZE - VALUE_SIZE);
        let mut value = [0; VALUE_SIZE];
        value.copy_from_slice(self.pool.get(start..start + VALUE_SIZE).expect("the pool is longer"));
        value.get_mut(..8).expect("values are longer").copy_from_slice(&Self::mark(n));
        Sample { key: self.key(n), value }
    }

    /// Replaces what `batch` holds by the records of a range.
    pub(crate) fn fill(&self, batch: &mut Vec<Sample>, range: Range<u64>) {
        batch.clear();
        batch.extend(range.map(|n| self.sample(n)));
    }

    /// Makes the records of a batch those from `first` on, but for the values behind their marks: much cheaper than
    /// [`fill`](Self::fill), so that little but the engine is measured.
    pub(crate) fn renew(&self, batch: &mut [Sample], first: u64) {
        for (n, sample) in (first..).zip(batch) {
            sample.key = self.key(n);
            sample.value.first_chunk_mut().map(|mark| *mark = Self::mark(n)).expect("values are longer");
        }
    }
}

/// Numbers of records, some much more often than others: the k-th as often as 1 / k^0.99 says (YCSB's Zipf).
pub(crate) struct Skewed {
    /// How often those up to a number come.
    sums: Vec<f64>,
    random: fastrand::Rng,
}

impl Skewed {
    pub(crate) fn new(count: u64) -> Skewed {
        let mut sum = 0.0;
        let sums = (1..=count)
            .map(|k| {
                sum += float(k).powf(-0.99);
                sum
            })
            .collect();
        Skewed { sums, random: fastrand::Rng::with_seed(4) }
    }

    /// The next number, below the count.
    pub(crate) fn next(&mut self) -> u64 {
        let place = self.random.f64() * self.sums.last().copied().unwrap_or_default();
        let index = self.sums.partition_point(|sum| *sum <= place);
        u64::try_from(index.min(self.sums.len() - 1)).expect("64-bit")
    }
}

/// A bijection on 64 bits that spreads (the finaliser of splitmix64).
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
