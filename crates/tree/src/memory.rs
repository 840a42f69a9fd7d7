//! The memtables of a tree by age, and what of them a reader may see.
//!
//! All values that were ever appended to the tree since it was opened are counted: the *position* of a value is its
//! number in that count, and a memtable holds the positions from its *base* on. What is visible is a position too:
//! everything before it. So it means the same whatever was swapped and flushed since.
//!
//! ```text
//!      swap             flush, applied        swap                 swap
//! mutable ---> immutable -------------> flushed ---> retired -----------> used again
//! ```
//!
//! The memory of a memtable is used again only at the second swap after its flush was applied: a scan that began
//! before the flush can be read on until then.
//!
//! # Invariants
//! - Bases fall with age; of each memtable the base is its name (`verify`).
//! - Three bars are in memory at most, flushed values included: a swap lets go of what was flushed before the swap
//!   before it, whether or not there is something to swap.
//!
//! # Not here
//! The lock, and tables.

use understory_format::{Direction, KeyRange, Record};
use understory_table::{Found, MemReader, Memtable, Sealed};

/// A memtable and its place among all.
#[derive(Debug)]
struct Generation<M> {
    base: u64,
    memtable: M,
}

/// The memtables of one tree.
#[derive(Debug)]
pub(crate) struct Memory<R: Record> {
    mutable: Generation<Memtable<R>>,
    immutable: Option<Generation<Sealed<R>>>,
    /// Flushed since the last swap.
    flushed: Option<Generation<Sealed<R>>>,
    /// Flushed before the last swap and after the one before.
    retired: Option<Generation<Sealed<R>>>,
}

/// A memtable as part of a view: what of it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    base: u64,
    /// So many of its values.
    limit: u32,
}

impl Seen {
    /// A reader of what is seen.
    pub(crate) fn reader<R: Record>(self, range: KeyRange<R::Key>, direction: Direction) -> MemReader<R> {
        MemReader::new(range, direction, self.limit)
    }
}

/// A memtable is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// How many of the values from `base` on lie before `visible`; more than a memtable holds if all.
#[inline]
fn limit(base: u64, visible: u64) -> u32 {
    u32::try_from(visible.saturating_sub(base)).unwrap_or(u32::MAX)
}

impl<R: Record> Memory<R> {
    pub(crate) fn new(mutable: Memtable<R>) -> Self {
        let mutable = Generation { base: 0, memtable: mutable };
        Self { mutable, immutable: None, flushed: None, retired: None }
    }

    pub(crate) fn mutable(&self) -> &Memtable<R> {
        &self.mutable.memtable
    }

    pub(crate) fn mutable_mut(&mut self) -> &mut Memtable<R> {
        &mut self.mutable.memtable
    }

    /// The memtable that waits to be flushed.
    pub(crate) fn immutable(&self) -> Option<&Sealed<R>> {
        self.immutable.as_ref().map(|generation| &generation.memtable)
    }

    /// The position of the next value.
    pub(crate) fn end(&self) -> u64 {
        self.mutable.base + self.mutable.memtable.len()
    }

    /// What the memtables that are not flushed have of `key` before position `visible`.
    #[inline]
    pub(crate) fn get(&self, key: R::Key, visible: u64) -> Found<R> {
        let Generation { base, memtable } = &self.mutable;
        let found = memtable.get_below(key, limit(*base, visible));
        match &self.immutable {
            Some(Generation { base, memtable }) if found.is_absent() => {
                memtable.get_below(key, limit(*base, visible))
            }
            Some(_) | None => found,
        }
    }

    /// The memtables that are not flushed and have values before position `visible`, newest first.
    pub(crate) fn seen(&self, visible: u64) -> impl Iterator<Item = Seen> {
        let mutable = (self.mutable.base, self.mutable.memtable.len());
        let immutable =
            self.immutable.as_ref().map(|generation| (generation.base, generation.memtable.len()));
        let all = [Some(mutable), immutable].into_iter().flatten();
        let seen = all.filter(move |(base, len)| visible > *base && *len > 0);
        seen.map(move |(base, _)| Seen { base, limit: limit(base, visible) })
    }

    /// Gathers the next entries for a reader of what is seen.
    pub(crate) fn refill(&self, seen: Seen, reader: &mut MemReader<R>) -> Result<(), Gone> {
        if self.mutable.base == seen.base {
            self.mutable.memtable.refill(reader);
            return Ok(());
        }
        let sealed = [&self.immutable, &self.flushed, &self.retired];
        let generation = sealed.into_iter().flatten().find(|generation| generation.base == seen.base);
        generation.ok_or(Gone)?.memtable.refill(reader);
        Ok(())
    }

    /// Takes out what the next swap lets go of.
    pub(crate) fn take_retired(&mut self) -> Option<Sealed<R>> {
        self.retired.take().map(|generation| generation.memtable)
    }

    /// Ends a bar: what was flushed is retired; the mutable memtable, if it holds something, becomes immutable and
    /// `next` takes its place, else `next` is given back.
    pub(crate) fn swap(&mut self, next: Memtable<R>) -> Option<Memtable<R>> {
        assert!(self.immutable.is_none(), "every memtable is flushed within the bar after its own");
        assert!(self.retired.is_none(), "it was taken out before");
        assert!(next.is_empty(), "a memtable begins empty");
        self.retired = self.flushed.take();
        if self.mutable.memtable.is_empty() {
            return Some(next);
        }
        let next = Generation { base: self.end(), memtable: next };
        let Generation { base, memtable } = std::mem::replace(&mut self.mutable, next);
        self.immutable = Some(Generation { base, memtable: memtable.seal() });
        self.verify();
        None
    }

    /// The values of the immutable memtable are in tables now. All of them are before `visible`.
    pub(crate) fn flushed(&mut self, visible: u64) {
        let generation = self.immutable.take().expect("a flush writes the immutable memtable");
        let end = generation.base + generation.memtable.len();
        assert!(end <= visible, "what is flushed was published");
        assert!(self.flushed.is_none(), "one memtable is flushed in a bar");
        self.flushed = Some(generation);
    }

    fn verify(&self) {
        let sealed = [&self.immutable, &self.flushed, &self.retired];
        let bases = sealed.into_iter().flatten().map(|generation| generation.base);
        let mut newer = self.mutable.base;
        for base in bases {
            assert!(base < newer, "bases fall with age");
            newer = base;
        }
    }
}
