//! Values in arrival order, in chunks that are taken from a shared pool one at a time; a value never moves.
//!
//! A chunk holds `n` values, behind them `n` [`Rank`]s, and behind these for each value the rank's word of the version
//! of its key that it follows. The rank slots are a second array over the same indexes: at first the slot of a value
//! holds its own rank; once it is sorted with others, the slots of these values hold their ranks in key order (see
//! `run`). So a run needs no memory of its own, and all memory of a memtable but its hash index comes from the pool
//! as values arrive.
//!
//! # Invariants
//! - Value `i` is in chunk `i / n` at place `i % n`; there are exactly as many chunks as `len` values need.
//! - Indexes below `len` are valid for values and ranks (asserted per chunk when it is taken).

use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;

use understory_format::{Record, u32_of, usize_of};
use understory_io::{Buffer, Pool, prefetch_line};
use zerocopy::{FromBytes, IntoBytes};

use super::Full;
use crate::run::Rank;

/// Largest number of values in a memtable: a rank has 31 bits for the index of its value.
pub(crate) const VALUE_COUNT_LIMIT: u32 = 1 << 31;

/// Bytes that come into the caches together.
const CACHE_LINE: usize = 64;

/// Lines of a value that are prefetched; those behind follow by themselves.
const PREFETCH_LINES_MAX: usize = 4;

/// Division by a number that is known only at run time, as a multiplication.
///
/// Source: D. Lemire, O. Kaser, N. Kurz, Faster remainder by direct computation, 2019 (exact for 32 bits).
#[derive(Clone, Copy, Debug)]
struct Divisor {
    divisor: u32,
    /// `ceil(2^64 / divisor)`.
    inverse: u64,
}

impl Divisor {
    fn new(divisor: u32) -> Self {
        assert!(divisor > 1, "2^64 / 1 has no room in 64 bits");
        Self { divisor, inverse: u64::MAX / u64::from(divisor) + 1 }
    }

    /// Quotient and remainder.
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "both are at most the dividend"
    )]
    #[inline]
    fn divide(self, dividend: u32) -> (usize, usize) {
        let quotient = ((u128::from(self.inverse) * u128::from(dividend)) >> 64) as u32;
        (usize_of(quotient), usize_of(dividend - quotient * self.divisor))
    }
}

/// The word of a version that is none. No version that another follows has it: its index is below the last one.
pub(super) const NO_WORD: u32 = u32::MAX;

/// Bytes of a word in a chunk.
const WORD_SIZE: usize = size_of::<u32>();

/// Values, each with its rank and the word of the version before it, that a chunk has room for.
pub(super) const fn values_per_chunk<R>(chunk_size: usize) -> usize {
    chunk_size / (size_of::<R>() + size_of::<Rank>() + WORD_SIZE)
}

/// The chunks of one memtable.
pub(crate) struct Store<R> {
    pool: Pool,
    chunks: Vec<Buffer>,
    len: u32,
    len_max: u32,
    per_chunk: Divisor,
    /// Where in a chunk its ranks begin, and its words.
    ranks_start: usize,
    words_start: usize,
    record: PhantomData<R>,
}

impl<R: Record> Store<R> {
    /// An empty store over chunks of `pool`.
    pub(super) fn new(pool: Pool, len_max: u32) -> Self {
        assert!(len_max <= VALUE_COUNT_LIMIT, "a memtable has at most 2^31 values");
        let per_chunk = values_per_chunk::<R>(pool.buffer_size());
        assert!(per_chunk > 1, "a chunk must have room for two values");
        let chunks = usize_of(len_max).div_ceil(per_chunk).min(pool.count());
        Self {
            chunks: Vec::with_capacity(chunks),
            len: 0,
            len_max,
            per_chunk: Divisor::new(u32::try_from(per_chunk).expect("a chunk is below 4 GiB")),
            ranks_start: per_chunk * size_of::<R>(),
            words_start: per_chunk * (size_of::<R>() + size_of::<Rank>()),
            pool,
            record: PhantomData,
        }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn len_max(&self) -> u32 {
        self.len_max
    }

    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn chunk_size(&self) -> usize {
        self.pool.buffer_size()
    }

    /// Takes the chunks that `count` more values need from the pool.
    pub(super) fn take_chunks(&self, count: usize) -> Result<Vec<Buffer>, Full> {
        let len = usize_of(self.len) + count;
        if len > usize_of(self.len_max) {
            return Err(Full::Values { count_max: self.len_max });
        }
        let needed = len.div_ceil(usize_of(self.per_chunk.divisor)).saturating_sub(self.chunks.len());
        let mut chunks = Vec::with_capacity(needed);
        while chunks.len() < needed {
            let chunk = self.pool.take().ok_or(Full::Chunks { count: self.pool.count() })?;
            assert!(chunk.len() == self.pool.buffer_size());
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    /// Adds chunks of the pool for the next values.
    pub(super) fn add_chunks(&mut self, chunks: Vec<Buffer>) {
        self.chunks.extend(chunks);
    }

    /// Appends a value, with the word of its key's version before it. There is a chunk for it.
    #[inline]
    pub(super) fn append(&mut self, value: &R, rank: Rank, previous: u32) {
        assert!(rank.index() == self.len, "ranks of new values are in arrival order");
        let (chunk, place) = self.per_chunk.divide(self.len);
        let chunk = self.chunks.get_mut(chunk).expect("chunks were added for the value");
        let mut put = |start: usize, bytes: &[u8]| {
            let to = chunk.get_mut(start..start + bytes.len());
            to.expect("a place is below the values of a chunk").copy_from_slice(bytes);
        };
        put(place * size_of::<R>(), value.as_bytes());
        put(self.ranks_start + place * size_of::<Rank>(), rank.as_bytes());
        put(self.words_start + place * WORD_SIZE, &previous.to_le_bytes());
        self.len += 1;
    }

    /// The word of the version that a value follows; none if it is the first of its key.
    #[expect(clippy::indexing_slicing, reason = "indexes below len are valid")]
    pub(super) fn previous(&self, index: u32) -> Option<u32> {
        let (chunk, place) = self.per_chunk.divide(index);
        let start = self.words_start + place * WORD_SIZE;
        let bytes = self.chunks[chunk][start..start + WORD_SIZE].first_chunk();
        let word = u32::from_le_bytes(*bytes.expect("the slice has the size of a word"));
        (word != NO_WORD).then_some(word)
    }

    /// A value by its index.
    #[expect(clippy::indexing_slicing, reason = "per value; indexes below len are valid")]
    #[inline]
    pub(crate) fn value(&self, index: u32) -> &R {
        let (chunk, place) = self.per_chunk.divide(index);
        let start = place * size_of::<R>();
        let bytes = &self.chunks[chunk][start..start + size_of::<R>()];
        R::ref_from_bytes(bytes).expect("the slice has the size of a record, which has no alignment")
    }

    /// The rank in a slot.
    #[expect(clippy::indexing_slicing, reason = "per value; indexes below len are valid")]
    #[inline]
    pub(crate) fn rank(&self, slot: u32) -> Rank {
        let (chunk, place) = self.per_chunk.divide(slot);
        let start = self.ranks_start + place * size_of::<Rank>();
        let bytes = &self.chunks[chunk][start..start + size_of::<Rank>()];
        Rank::read_from_bytes(bytes).expect("the slice has the size of a rank")
    }

    /// The ranks of the first slots of `slots`, as far as they lie together; at least one if there are slots.
    #[expect(clippy::indexing_slicing, reason = "indexes below len are valid")]
    pub(crate) fn ranks(&self, slots: Range<u32>) -> &[Rank] {
        let (chunk, place) = self.per_chunk.divide(slots.start);
        let count = slots.len().min(usize_of(self.per_chunk.divisor) - place);
        let start = self.ranks_start + place * size_of::<Rank>();
        let bytes = &self.chunks[chunk][start..start + count * size_of::<Rank>()];
        <[Rank]>::ref_from_bytes(bytes)
            .expect("the slice has the size of some ranks, which have no alignment")
    }

    /// Puts ranks into the slots from `slot` on.
    #[expect(clippy::indexing_slicing, reason = "indexes below len are valid")]
    pub(crate) fn set_ranks(&mut self, mut slot: u32, mut ranks: &[Rank]) {
        while !ranks.is_empty() {
            let (chunk, place) = self.per_chunk.divide(slot);
            let count = ranks.len().min(usize_of(self.per_chunk.divisor) - place);
            let (now, later) = ranks.split_at(count);
            let start = self.ranks_start + place * size_of::<Rank>();
            self.chunks[chunk][start..start + count * size_of::<Rank>()].copy_from_slice(now.as_bytes());
            (slot, ranks) = (slot + u32_of(count), later);
        }
    }

    /// Brings a value nearer that is soon to be read.
    #[expect(clippy::indexing_slicing, reason = "per value; indexes below len are valid")]
    #[inline]
    pub(crate) fn prefetch_value(&self, index: u32) {
        let (chunk, place) = self.per_chunk.divide(index);
        let start = place * size_of::<R>();
        let value = &self.chunks[chunk][start..start + size_of::<R>()];
        value.chunks(CACHE_LINE).take(PREFETCH_LINES_MAX).for_each(prefetch_line);
    }

    /// Forgets all values and gives the chunks back.
    pub(super) fn reset(&mut self) {
        self.chunks.clear();
        self.len = 0;
    }
}

impl<R> fmt::Debug for Store<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("len", &self.len)
            .field("len_max", &self.len_max)
            .field("chunks", &self.chunks.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Divisor;

    #[test]
    fn divisor_is_exact() {
        for divisor in [2, 3, 5, 7, 255, 256, 257, 1 << 20, (1 << 31) - 1, u32::MAX] {
            let by = Divisor::new(divisor);
            let near = (0..4).flat_map(|n: u32| {
                let multiple = divisor.wrapping_mul(n);
                [multiple.wrapping_sub(1), multiple, multiple.wrapping_add(1)]
            });
            for dividend in near.chain([0, 1, u32::MAX - 1, u32::MAX]) {
                let (quotient, remainder) = by.divide(dividend);
                let expected = (usize::try_from(dividend / divisor), usize::try_from(dividend % divisor));
                assert_eq!((Ok(quotient), Ok(remainder)), expected, "{dividend} / {divisor}");
            }
        }
    }
}
