//! A batch: what one commit puts and removes, in any number of trees, to be applied whole or not at all.
//!
//! Effects are kept per tree in the order in which they were given; the last effect on a key wins. A batch
//! can be cleared and filled again, and then allocates nothing.

use std::any::{Any, TypeId};
use std::fmt;

use understory_forest::Forest;
use understory_format::{Record, effect_size, u32_of};
use understory_table::Full;

/// Puts and removes over several trees, committed together by [`Database::commit`](crate::Database::commit).
#[derive(Debug, Default)]
pub struct Batch {
    parts: Vec<Box<dyn Part>>,
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
        self.push(*record, false);
    }

    /// Removes the record of `key` from the tree of `R`. A key that is not there is no error.
    pub fn remove<R: Record>(&mut self, key: R::Key) {
        self.push(R::tombstone(key), true);
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

    pub(crate) fn parts(&self) -> impl Iterator<Item = &dyn Part> {
        self.parts.iter().map(AsRef::as_ref).filter(|part| part.len() > 0)
    }

    fn push<R: Record>(&mut self, record: R, tombstone: bool) {
        self.effects::<R>().0.push(Effect { record, tombstone });
        self.size += effect_size(u32_of(size_of::<R>()));
        self.len += 1;
    }

    fn effects<R: Record>(&mut self) -> &mut Effects<R> {
        let wanted = TypeId::of::<Effects<R>>();
        let position = self.parts.iter().position(|part| part.type_id_of_effects() == wanted);
        let position = position.unwrap_or_else(|| {
            self.parts.push(Box::new(Effects::<R>(Vec::new())));
            self.parts.len() - 1
        });
        let part = self.parts.get_mut(position).expect("found or just pushed");
        part.as_any_mut().downcast_mut().expect("chosen by this very type")
    }
}

struct Effect<R> {
    record: R,
    tombstone: bool,
}

struct Effects<R>(Vec<Effect<R>>);

/// The effects on one tree, without its type.
pub(crate) trait Part: Send + Sync + fmt::Debug {
    fn type_id_of_effects(&self) -> TypeId;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn tree_name(&self) -> &'static str;
    fn len(&self) -> usize;
    fn clear(&mut self);
    fn is_known(&self, forest: &Forest) -> bool;
    fn apply(&self, forest: &mut Forest) -> Result<(), Full>;
}

impl<R: Record> Part for Effects<R> {
    fn type_id_of_effects(&self) -> TypeId {
        TypeId::of::<Self>()
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn tree_name(&self) -> &'static str {
        R::NAME
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn is_known(&self, forest: &Forest) -> bool {
        forest.tree::<R>().is_some()
    }

    fn apply(&self, forest: &mut Forest) -> Result<(), Full> {
        let tree = forest.tree_mut::<R>().expect("commit asks is_known of every part first");
        self.0.iter().try_for_each(|effect| tree.put(&effect.record, effect.tombstone))
    }
}

impl<R: Record> fmt::Debug for Effects<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects").field("tree", &R::NAME).field("len", &self.0.len()).finish()
    }
}
