//! A cache of fixed size: verified blocks or pages by `{address, checksum}`, with the CLOCK policy.
//!
//! The cache has no limit of its own: what it holds are buffers of a pool, and when the pool is empty its owner
//! calls [`Cache::evict`]. An entry that is used anywhere else is never given up, since that would free nothing.
//! A new entry starts untouched, so that what is read once (a scan, a compaction) leaves before what is read again.
//!
//! # Invariants
//! - A key stands for the same bytes for ever, because it holds their checksum: no entry is ever stale.
//! - An entry in use stays (`what_is_used_stays`).
//!
//! # Not here
//! Reading what is missing (`reads`), the pool.

use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashTable;
use parking_lot::Mutex;
use understory_format::{BlockAddress, Checksum, u64_of};

/// What a cached value, or a read in flight, is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) address: BlockAddress,
    /// The page in the block, or [`Key::WHOLE`].
    pub(crate) page: u32,
    pub(crate) checksum: Checksum,
}

impl Key {
    /// In place of a page: the whole block.
    pub(crate) const WHOLE: u32 = u32::MAX;

    fn hash(&self) -> u64 {
        // Checksums are spread evenly as they are; equal contents at several addresses are rare.
        let low = u64::try_from(self.checksum.get() & u128::from(u64::MAX)).expect("masked to 64 bits");
        low ^ self.address.get().wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// Something with shared memory.
pub(crate) trait Shared: Clone {
    /// Whether anybody but the one who holds this value uses its memory.
    fn in_use(&self) -> bool;
}

struct Slot<V> {
    key: Key,
    value: V,
    touched: bool,
}

struct Shard<V> {
    /// Indexes of `slots` by key.
    table: HashTable<usize>,
    slots: Vec<Option<Slot<V>>>,
    vacant: Vec<usize>,
    hand: usize,
    /// Lookups that found something. Counted here, where the lock is held anyway: one counter for all shards
    /// would be fought over by every reader.
    hits: u64,
}

/// The cache. See the [module](self).
pub(crate) struct Cache<V> {
    shards: Box<[Mutex<Shard<V>>]>,
    /// The shard where the next eviction looks first.
    hand: AtomicUsize,
}

impl<V: Shared> Cache<V> {
    /// A cache for about `capacity` entries. More are taken, at the price of an allocation.
    pub(crate) fn new(capacity: usize) -> Self {
        let shard_count = (capacity / 64).clamp(1, 16).next_power_of_two();
        // Keys do not spread evenly over shards; a quarter more room holds all but the rarest cases.
        let room = capacity / shard_count + capacity / shard_count / 4 + 8;
        let shards = (0..shard_count).map(|_| Mutex::new(Shard::new(room))).collect();
        Self { shards, hand: AtomicUsize::new(0) }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<V> {
        let hash = key.hash();
        self.shard(hash).lock().get(key, hash)
    }

    /// Whether there is such an entry; it does not count as used.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        let hash = key.hash();
        self.shard(hash).lock().find(key, hash).is_some()
    }

    /// Adds an entry, in place of one with the same key.
    pub(crate) fn insert(&self, key: Key, value: V) {
        let hash = key.hash();
        let replaced = self.shard(hash).lock().insert(key, hash, value);
        drop(replaced);
    }

    /// Gives up one entry that nobody else uses. False if there is none.
    pub(crate) fn evict(&self) -> bool {
        let first = self.hand.fetch_add(1, Ordering::Relaxed);
        (0..self.shards.len()).any(|step| {
            let shard = self.shards.get((first + step) % self.shards.len());
            let victim = shard.expect("the index is reduced to the number of shards").lock().evict();
            victim.is_some()
        })
    }

    /// How many lookups found something.
    pub(crate) fn hits(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().hits).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().table.len()).sum()
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard<V>> {
        let count = u64_of(self.shards.len());
        // The table uses the low and the top bits of the hash; these are others.
        let index = usize::try_from((hash >> 40) % count).expect("below the number of shards");
        self.shards.get(index).expect("the index is reduced to the number of shards")
    }
}

impl<V: Shared> Shard<V> {
    fn new(room: usize) -> Self {
        Self {
            table: HashTable::with_capacity(room),
            slots: Vec::with_capacity(room),
            vacant: Vec::with_capacity(room),
            hand: 0,
            hits: 0,
        }
    }

    fn find(&self, key: &Key, hash: u64) -> Option<usize> {
        let is_key =
            |&at: &usize| self.slots.get(at).and_then(Option::as_ref).is_some_and(|slot| slot.key == *key);
        self.table.find(hash, is_key).copied()
    }

    fn get(&mut self, key: &Key, hash: u64) -> Option<V> {
        let at = self.find(key, hash)?;
        let slot = self.slots.get_mut(at)?.as_mut()?;
        slot.touched = true;
        self.hits += 1;
        Some(slot.value.clone())
    }

    fn insert(&mut self, key: Key, hash: u64, value: V) -> Option<Slot<V>> {
        let slot = Slot { key, value, touched: false };
        if let Some(at) = self.find(&key, hash) {
            return self.slots.get_mut(at).and_then(|place| place.replace(slot));
        }
        let at = match self.vacant.pop() {
            Some(at) => {
                *self.slots.get_mut(at).expect("a vacant slot is a slot") = Some(slot);
                at
            }
            None => {
                self.slots.push(Some(slot));
                self.slots.len() - 1
            }
        };
        let Self { table, slots, .. } = self;
        let hash_of = |&at: &usize| slots.get(at).and_then(Option::as_ref).map_or(0, |slot| slot.key.hash());
        let _ = table.insert_unique(hash, at, hash_of);
        None
    }

    /// Two rounds: the first may only clear the marks.
    fn evict(&mut self) -> Option<V> {
        for _ in 0..2 * self.slots.len() {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len();
            let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { continue };
            if slot.value.in_use() {
                continue;
            }
            if std::mem::take(&mut slot.touched) {
                continue;
            }
            return self.remove(at);
        }
        None
    }

    fn remove(&mut self, at: usize) -> Option<V> {
        let slot = self.slots.get_mut(at)?.take()?;
        let entry = self.table.find_entry(slot.key.hash(), |&other| other == at);
        let _ = entry.expect("every slot in use is in the table").remove();
        self.vacant.push(at);
        Some(slot.value)
    }
}

impl<V> std::fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}
