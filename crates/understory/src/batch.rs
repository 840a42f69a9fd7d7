//! A batch: what one commit puts and removes, in any number of trees, to be applied whole or not at all.
//!
//! Effects are kept per tree in the order in which they were given, as the journal has them; the last effect on a
//! key wins. A batch can be cleared and filled again, and then allocates nothing.

use std::any::TypeId;
use std::fmt;

use understory_forest::Trees;
use understory_format::journal::part_size;
use understory_format::{PartHeader, Record, TreeId, effect_size, u32_of, u64_of};

/// Puts and removes over several trees, committed together by [`Database::commit`](crate::Database::commit).
#[derive(Debug, Default)]
pub struct Batch {
    parts: Vec<Part>,
    size: u64,
    len: u64,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `record` into the tree of its type, over whatever has its key.
    pub fn put<R: Record>(&mut self, record: &R) {
        self.push(record, false);
    }

    /// Removes the record of `key` from the tree of `R`. A key that is not there is no error.
    pub fn remove<R: Record>(&mut self, key: R::Key) {
        self.push(&R::tombstone(key), true);
    }

    /// Puts and removes in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it takes of a beat's share, in bytes: for each put or remove the size of the tree's record and a
    /// constant for finding it again. The file's batch limit bounds it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        for part in &mut self.parts {
            part.clear();
        }
        self.size = 0;
        self.len = 0;
    }

    /// The parts that have effects.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.count > 0)
    }

    fn push<R: Record>(&mut self, record: &R, tombstone: bool) {
        self.part::<R>().push(record.as_bytes(), tombstone);
        self.size += effect_size(u32_of(size_of::<R>()));
        self.len += 1;
    }

    fn part<R: Record>(&mut self) -> &mut Part {
        let wanted = TypeId::of::<R>();
        let position = self.parts.iter().position(|part| part.record == wanted);
        let position = position.unwrap_or_else(|| {
            self.parts.push(Part::of::<R>());
            self.parts.len() - 1
        });
        self.parts.get_mut(position).expect("found or just pushed")
    }
}

/// The effects on one tree, without its type.
pub(crate) struct Part {
    record: TypeId,
    name: &'static str,
    value_size: u32,
    find: fn(&Trees) -> Option<TreeId>,
    count: u32,
    /// Back to back, in the order in which they were given.
    values: Vec<u8>,
    /// The indexes of tombstones.
    tombstones: Vec<u32>,
}

impl Part {
    fn of<R: Record>() -> Self {
        Self {
            record: TypeId::of::<R>(),
            name: R::NAME,
            value_size: u32_of(size_of::<R>()),
            find: |trees| trees.tree::<R>().map(understory_tree::Tree::id),
            count: 0,
            values: Vec::new(),
            tombstones: Vec::new(),
        }
    }

    fn push(&mut self, value: &[u8], tombstone: bool) {
        if tombstone {
            self.tombstones.push(self.count);
        }
        self.values.extend_from_slice(value);
        // More effects than this counts are over every batch limit, which is told before they are looked at.
        self.count = self.count.saturating_add(1);
    }

    fn clear(&mut self) {
        self.count = 0;
        self.values.clear();
        self.tombstones.clear();
    }

    pub(crate) fn tree_name(&self) -> &'static str {
        self.name
    }

    /// The tree of its records, if the database has one.
    pub(crate) fn tree(&self, trees: &Trees) -> Option<TreeId> {
        (self.find)(trees)
    }

    /// Bytes of it in the journal.
    pub(crate) fn encoded_size(&self) -> u64 {
        part_size(self.value_size, self.count, !self.tombstones.is_empty())
    }

    /// Writes it to the start of `body`; gives what is behind it.
    pub(crate) fn encode<'a>(&self, tree: TreeId, body: &'a mut [u8]) -> &'a mut [u8] {
        let has_tombstones = !self.tombstones.is_empty();
        let header = PartHeader { tree, value_size: self.value_size, count: self.count, has_tombstones };
        let (mut slots, rest) = header.start(body);
        slots.values().copy_from_slice(&self.values);
        for &index in &self.tombstones {
            slots.set_tombstone(index);
        }
        rest
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("tree", &self.name).field("count", &self.count).finish_non_exhaustive()
    }
}

/// A batch with the trees of its parts, ready for the journal.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    parts: smallvec::SmallVec<[(TreeId, &'a Part); 8]>,
    /// Bytes of its effects, as a beat counts them.
    pub(crate) effects: u64,
    /// Bytes of it in the journal.
    pub(crate) size: u64,
}

impl<'a> Body<'a> {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self { parts: smallvec::SmallVec::new(), effects: 0, size: 0 }
    }

    /// The effects of `batch`, or the name of a tree that there is not.
    pub(crate) fn of(batch: &'a Batch, trees: &Trees) -> Result<Self, &'static str> {
        let with_tree = |part: &'a Part| part.tree(trees).map(|tree| (tree, part)).ok_or(part.tree_name());
        let parts = batch.parts().map(with_tree).collect::<Result<_, _>>()?;
        let size = batch.parts().map(Part::encoded_size).sum();
        Ok(Self { parts, effects: batch.size(), size })
    }

    /// Number of parts.
    pub(crate) fn part_count(&self) -> u32 {
        u32::try_from(self.parts.len()).expect("a batch has a part for each tree at most")
    }

    /// Writes all parts into `bytes`, which is as long as `size`.
    pub(crate) fn encode(&self, bytes: &mut [u8]) {
        assert_eq!(u64_of(bytes.len()), self.size, "the record has room for just the parts");
        let rest = self.parts.iter().fold(bytes, |rest, (tree, part)| part.encode(*tree, rest));
        assert!(rest.is_empty(), "the size is that of all parts");
    }
}
