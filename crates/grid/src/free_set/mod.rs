//! Which blocks of the grid are free, and which are released but not yet free.
//!
//! A block goes through `free -> acquired -> released -> free`. Released blocks stay readable until they are
//! free: for that they pass through three generations.
//!
//! ```text
//! release() -> fresh --checkpoint--> older --checkpoint--> due --free_due()--> free
//! ```
//!
//! A checkpoint stores the acquired blocks, `older` and `fresh` as they are before it moves the generations on.
//! Open reads these two back as `due` and `older`: what the running node has after that checkpoint.
//!
//! Addresses are handed out from *reservations*. A reservation of `n` blocks covers the lowest range above all
//! other live reservations that has exactly `n` free blocks, and hands them out from the lowest up. So jobs that
//! run side by side get the same addresses whatever the order in which they ask, provided that they reserved in a
//! fixed order.
//!
//! # Invariants
//! - `due`, `older` and `fresh` are disjoint subsets of `acquired` ([`FreeSet::verify`]).
//! - Live reservations are disjoint, and no block becomes free while there is one (asserted in `free_due`).
//! - No address beyond the limit is handed out (`agrees_with_the_model`).
//! - After a checkpoint, the set read back equals the running one (`decoded_equals_the_running_set`).
//! - No address is handed out that may have no space behind it (R18, asserted in `acquire`).
//!
//! # Not here
//! The size of the file (`space`), the blocks that carry the encoding (`trailer`), locks (the grid has one around
//! the whole set).

use std::ops::Range;

use smallvec::SmallVec;
use understory_format::{BlockAddress, Corruption, Expected, u64_of};

mod bit_set;
mod encoding;
#[cfg(test)]
mod tests;

use bit_set::{BitSet, WORD_BITS};

/// The most blocks that a grid may have.
pub(crate) const LIMIT_MAX: u64 = 1 << 32;
/// Up to this limit the room of all sets is taken at once; a set of a larger grid grows by doubling.
const LIMIT_AT_ONCE: u64 = 1 << 24;

/// A promise of free blocks, to be drawn with [`FreeSet::acquire`] and given back with [`FreeSet::forfeit`].
///
/// It is not given back by being dropped: a checkpoint asserts that none is left over.
#[must_use = "a reservation has to be forfeited"]
#[derive(Debug, PartialEq, Eq)]
pub struct Reservation {
    id: u64,
    /// Bits below are not free or were drawn.
    next: u64,
    /// The first bit beyond the range.
    end: u64,
    left: u64,
}

impl Reservation {
    /// How many blocks can still be drawn.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Live {
    id: u64,
    end: u64,
    /// Blocks promised at the start; how many were drawn is known when it comes back.
    count: u64,
}

/// A reservation could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Blocks asked for.
    pub needed: u64,
    /// Blocks that are free and not promised to another reservation.
    pub free: u64,
}

/// Counts of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Blocks in use, the released ones included.
    pub acquired: u64,
    /// Blocks released but not yet free.
    pub released: u64,
    /// Blocks below the limit that are free, whether promised or not.
    pub free: u64,
    /// The highest address in use, or 0 if none is.
    pub highest: u64,
}

/// The free set. See the [module](self) for what it does.
#[derive(Clone, Debug)]
pub struct FreeSet {
    acquired: BitSet,
    due: BitSet,
    older: BitSet,
    fresh: BitSet,
    /// Blocks that may be handed out: addresses `1..=limit`.
    limit: u64,
    /// Free blocks within the file that may have no space behind them. A matter of the file alone, in no checkpoint.
    holes: BitSet,
    acquired_count: u64,
    released_count: u64,
    /// Every bit below is acquired.
    full_below: u64,
    live: SmallVec<[Live; 16]>,
    next_id: u64,
}

impl FreeSet {
    /// An empty set that hands out the addresses `1..=limit`.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        let limit = limit.min(LIMIT_MAX);
        let room = if limit <= LIMIT_AT_ONCE { limit } else { 0 };
        Self {
            acquired: BitSet::with_capacity(room),
            due: BitSet::with_capacity(room),
            older: BitSet::with_capacity(room),
            fresh: BitSet::with_capacity(room),
            holes: BitSet::default(),
            limit,
            acquired_count: 0,
            released_count: 0,
            full_below: 0,
            live: SmallVec::new(),
            next_id: 0,
        }
    }

    /// Hands out the addresses `1..=limit` from now on.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = limit.min(LIMIT_MAX);
    }

    /// Whether the block is in use (released blocks are, until they are free).
    #[must_use]
    pub fn is_acquired(&self, address: BlockAddress) -> bool {
        self.acquired.contains(bit_of(address))
    }

    /// Whether the block is released and waits to be free.
    #[must_use]
    pub fn is_released(&self, address: BlockAddress) -> bool {
        let bit = bit_of(address);
        self.fresh.contains(bit) || self.older.contains(bit) || self.due.contains(bit)
    }

    /// Counts of blocks. Costs a look at the last word of the set.
    #[must_use]
    pub fn space(&self) -> Space {
        Space {
            acquired: self.acquired_count,
            released: self.released_count,
            free: self.limit.saturating_sub(self.acquired_count),
            highest: self.highest(),
        }
    }

    /// Blocks released before the previous checkpoint: what [`FreeSet::free_due`] would free.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.due.count()
    }

    /// The highest address in use, or 0 if none is.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.acquired.last().map_or(0, |bit| bit + 1)
    }

    /// The highest address that may be drawn from a live reservation or is in use, or 0.
    #[must_use]
    pub fn highest_promised(&self) -> u64 {
        self.highest().max(self.live_end())
    }

    /// How many reservations were made and not forfeited.
    #[must_use]
    pub fn reservations(&self) -> usize {
        self.live.len()
    }

    /// The highest address that `reserve(count)` would promise. Nothing changes.
    ///
    /// # Errors
    /// [`Exhausted`] if there are not that many free blocks above all live reservations.
    pub fn plan(&self, count: u64) -> Result<u64, Exhausted> {
        if count == 0 {
            return Ok(self.live_end());
        }
        let end = self.acquired.after_clear(self.start(), count);
        if end > self.limit {
            let free = self.limit.saturating_sub(self.acquired_count);
            return Err(Exhausted { needed: count, free: free.saturating_sub(self.promised()) });
        }
        Ok(end)
    }

    /// How high the addresses of a file have to go so that `count` blocks below its end are free and not promised; `None`
    /// if those up to `in_file` are enough. All acquired and promised blocks are among these.
    ///
    /// # Errors
    /// [`Exhausted`] if there are not that many.
    pub(crate) fn back_target(&self, count: u64, in_file: u64) -> Result<Option<u64>, Exhausted> {
        let used = self.acquired_count + self.promised();
        let missing = count.saturating_sub(in_file.min(self.limit).saturating_sub(used));
        if missing == 0 {
            return Ok(None);
        }
        let highest = in_file.saturating_add(missing);
        if highest > self.limit {
            return Err(Exhausted { needed: count, free: self.limit.saturating_sub(used) });
        }
        Ok(Some(highest))
    }

    /// The first holes that a reservation would promise whose highest address is this one, as [`plan`](Self::plan) gave
    /// it; as a range of addresses.
    pub(crate) fn hole_to_reserve(&self, highest: u64) -> Option<Range<u64>> {
        self.hole_within(self.start()..highest)
    }

    /// The first holes among the lowest `count` free blocks that are not promised, whichever of the free ones those are.
    pub(crate) fn hole_to_back(&self, count: u64) -> Option<Range<u64>> {
        self.holes.first_from(0)?;
        self.hole_within(0..self.behind_lowest(count))
    }

    /// The first bit behind the lowest `count` free ones that are not promised, wherever those that are lie.
    fn behind_lowest(&self, count: u64) -> u64 {
        match count.saturating_add(self.promised()) {
            0 => 0,
            count => self.acquired.after_clear(0, count),
        }
    }

    fn hole_within(&self, bits: Range<u64>) -> Option<Range<u64>> {
        let first = self.holes.first_from(bits.start).filter(|first| *first < bits.end)?;
        let mut end = first + 1;
        while end < bits.end && self.holes.contains(end) {
            end += 1;
        }
        Some(first + 1..end + 1)
    }

    /// Notes that these addresses have space behind them.
    pub(crate) fn fill(&mut self, addresses: &Range<u64>) {
        for address in addresses.clone() {
            self.holes.remove(address - 1);
        }
    }

    /// Notes that nobody knows whether the free blocks of a file with so many have space behind them.
    pub(crate) fn doubt(&mut self, in_file: u64) {
        for bit in (0..in_file).filter(|bit| !self.acquired.contains(*bit)) {
            self.holes.insert(bit);
        }
    }

    /// Makes holes of the first stretch of at least `least` addresses from `from` up to `in_file` that are free and not
    /// promised, but for the lowest `spare` ones; gives it, if it was not all holes before.
    pub(crate) fn hollow(&mut self, from: u64, in_file: u64, spare: u64, least: u64) -> Option<Range<u64>> {
        let mut start = self.behind_lowest(spare).max(self.live_end()).max(from.saturating_sub(1));
        loop {
            start = self.acquired.first_clear(start);
            if start >= in_file {
                return None;
            }
            let end = self.acquired.first_from(start).unwrap_or(in_file).min(in_file);
            if end - start >= least && self.holes.first_clear(start) < end {
                for bit in start..end {
                    self.holes.insert(bit);
                }
                return Some(start + 1..end + 1);
            }
            start = end;
        }
    }

    /// Blocks promised and not drawn.
    fn promised(&self) -> u64 {
        self.live.iter().map(|live| live.count).sum()
    }

    /// Promises the `count` lowest free blocks above all live reservations.
    ///
    /// # Errors
    /// [`Exhausted`] if there are not that many; then nothing has changed.
    pub fn reserve(&mut self, count: u64) -> Result<Reservation, Exhausted> {
        self.note_full();
        let start = self.start();
        let end = self.plan(count)?.max(start);
        let id = self.next_id;
        self.next_id += 1;
        self.live.push(Live { id, end, count });
        Ok(Reservation { id, next: start, end, left: count })
    }

    /// Draws the lowest free block of the reservation.
    ///
    /// # Panics
    /// If the reservation has been used up, or is of another set: who reserves also counts.
    pub fn acquire(&mut self, reservation: &mut Reservation) -> BlockAddress {
        assert!(reservation.left > 0, "a reservation is sized for all that is drawn from it");
        let bit = self.acquired.first_clear(reservation.next);
        assert!(bit < reservation.end, "a reservation covers as many free blocks as it promises");
        assert!(!self.holes.contains(bit), "a block has space before it is handed out");
        let live = self.live.iter_mut().find(|live| live.id == reservation.id);
        let live = live.expect("the reservation is one of this set");
        live.count -= 1;
        reservation.next = bit + 1;
        reservation.left -= 1;
        self.insert(bit);
        address_of(bit)
    }

    /// Gives back what was not drawn.
    ///
    /// # Panics
    /// If the reservation is not of this set.
    pub fn forfeit(&mut self, reservation: Reservation) {
        let Reservation { id, .. } = reservation;
        let at = self.live.iter().position(|live| live.id == id);
        let _ = self.live.remove(at.expect("the reservation is one of this set"));
    }

    /// Marks a block as no longer needed after the next checkpoint.
    ///
    /// # Panics
    /// If the block is free or was released before.
    pub fn release(&mut self, address: BlockAddress) {
        assert!(self.is_acquired(address), "{address} is released but was not acquired");
        assert!(!self.is_released(address), "{address} is released twice");
        self.fresh.insert(bit_of(address));
        self.released_count += 1;
    }

    /// Takes back a [`FreeSet::release`] made since the last checkpoint.
    pub(crate) fn unrelease(&mut self, address: BlockAddress) {
        assert!(self.fresh.remove(bit_of(address)), "{address} was not released since the last checkpoint");
        self.released_count -= 1;
    }

    /// Frees what was released before the previous checkpoint; gives the number of blocks.
    ///
    /// # Panics
    /// If there is a live reservation: its range would no longer hold what it promises.
    pub fn free_due(&mut self) -> u64 {
        assert!(self.live.is_empty(), "no block becomes free while there are reservations");
        let freed = self.due.count();
        self.acquired.remove_all(&self.due);
        self.due.clear();
        self.acquired_count -= freed;
        self.released_count -= freed;
        self.full_below = 0;
        freed
    }

    /// Moves the generations on, as a checkpoint does after it encoded the set.
    ///
    /// What is still due joins what now becomes due, as the encoding has it.
    pub fn rotate(&mut self) {
        self.due.insert_all(&self.older);
        std::mem::swap(&mut self.older, &mut self.fresh);
        self.fresh.clear();
    }

    /// Appends the canonical encoding to `out`, as it belongs into the checkpoint that is being taken.
    ///
    /// What is still due was released before the previous checkpoint too, and is written with it.
    ///
    /// # Panics
    /// If there is a live reservation.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.live.is_empty(), "a checkpoint is taken without reservations");
        let mut before = std::borrow::Cow::Borrowed(&self.older);
        if !self.due.words().is_empty() {
            before.to_mut().insert_all(&self.due);
        }
        encoding::encode([&self.acquired, &before, &self.fresh], out);
    }

    /// Reads back the set after the checkpoint that `bytes` belongs to. `trailers` are the blocks that carry
    /// `bytes`: acquired after the encoding. `highest` is the highest address in use, theirs included.
    ///
    /// # Errors
    /// [`Corruption`] if the bytes are no encoding, or disagree with themselves, `trailers` or `highest`.
    pub fn decode(
        bytes: &[u8],
        trailers: impl IntoIterator<Item = BlockAddress>,
        highest: u64,
        limit: u64,
    ) -> Result<Self, Corruption> {
        let highest_max = u128::from(LIMIT_MAX);
        if highest > LIMIT_MAX {
            return Err(wrong("block_count_max", Expected::AtMost(highest_max), highest));
        }
        let [acquired, before, since] = encoding::decode(bytes, highest)?;
        let mut set = Self::new(limit);
        set.acquired.insert_all(&acquired);
        set.due.insert_all(&before);
        set.older.insert_all(&since);
        set.check_decoded()?;
        for trailer in trailers {
            if trailer.get() > highest {
                return Err(wrong("free_set.trailer", Expected::AtMost(u128::from(highest)), trailer.get()));
            }
            if !set.acquired.insert(bit_of(trailer)) {
                return Err(wrong("free_set.trailer", Expected::Rule("a free block"), trailer.get()));
            }
        }
        if set.highest() != highest {
            return Err(wrong("block_count_max", Expected::Exactly(u128::from(set.highest())), highest));
        }
        set.acquired_count = set.acquired.count();
        set.released_count = set.due.count() + set.older.count();
        Ok(set)
    }

    /// The most bytes that the encoding of a set takes whose highest address is `highest`.
    pub(crate) fn encoded_size_max(highest: u64) -> u64 {
        encoding::size_max(highest)
    }

    fn check_decoded(&self) -> Result<(), Corruption> {
        let released = [("free_set.older", &self.due), ("free_set.fresh", &self.older)];
        for (field, set) in released {
            if let Some(bit) = set.first_outside(&self.acquired) {
                return Err(wrong(field, Expected::Rule("an acquired block"), bit + 1));
            }
        }
        match self.due.first_common(&self.older) {
            Some(bit) => Err(wrong("free_set.fresh", Expected::Rule("released once"), bit + 1)),
            None => Ok(()),
        }
    }

    /// Checks the invariants between the sets.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn verify(&self) {
        let generations = [&self.due, &self.older, &self.fresh];
        for generation in generations {
            assert_eq!(generation.first_outside(&self.acquired), None, "what is released is acquired");
        }
        assert_eq!(self.due.first_common(&self.older), None, "due and older are disjoint");
        assert_eq!(self.due.first_common(&self.fresh), None, "due and fresh are disjoint");
        assert_eq!(self.older.first_common(&self.fresh), None, "older and fresh are disjoint");
        assert_eq!(self.acquired_count, self.acquired.count(), "the count of acquired blocks is kept");
        let released: u64 = generations.into_iter().map(BitSet::count).sum();
        assert_eq!(self.released_count, released, "the count of released blocks is kept");
    }

    fn insert(&mut self, bit: u64) {
        assert!(self.acquired.insert(bit), "a block is acquired once");
        self.acquired_count += 1;
    }

    fn live_end(&self) -> u64 {
        self.live.iter().map(|live| live.end).max().unwrap_or(0)
    }

    /// Where the next reservation begins to look.
    fn start(&self) -> u64 {
        self.live_end().max(self.full_below)
    }

    /// Remembers how far the set is full, so that a search need not begin at the start.
    fn note_full(&mut self) {
        let words = u64_of(self.acquired.word_count());
        let mut word = self.full_below / WORD_BITS;
        while word < words && self.acquired.word(index_of(word)) == u64::MAX {
            word += 1;
        }
        self.full_below = word * WORD_BITS;
    }
}

/// Two sets are equal if they hold the same blocks in the same states; reservations are not looked at.
impl PartialEq for FreeSet {
    fn eq(&self, other: &Self) -> bool {
        let sets = |set: &Self| (set.acquired_count, set.released_count, set.limit);
        sets(self) == sets(other)
            && self.acquired == other.acquired
            && self.due == other.due
            && self.older == other.older
            && self.fresh == other.fresh
    }
}

impl Eq for FreeSet {}

fn bit_of(address: BlockAddress) -> u64 {
    address.get() - 1
}

fn address_of(bit: u64) -> BlockAddress {
    BlockAddress::new(bit + 1).expect("addresses start at 1")
}

fn index_of(value: u64) -> usize {
    usize::try_from(value).expect("what is below the limit of a grid fits into usize")
}

fn wrong(field: &'static str, expected: Expected, found: u64) -> Corruption {
    Corruption::new(field, expected, u128::from(found))
}
