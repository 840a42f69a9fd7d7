//! One table as a level knows it: the durable description and its decoded keys.

use understory_format::{Beat, Corruption, Expected, Key, KeyRange, Place, TableInfo};

/// A value takes at least one byte, a block at most 1 MiB: no block holds more values than this.
const BLOCK_VALUE_COUNT_MAX: u64 = 1 << 20;

/// A table of a tree whose key type is `K`.
///
/// # Invariants
/// Checked by [`Table::new`]: `key_min <= key_max`, `age <= beat_min <= beat_max`, at least one value, no more
/// tombstones than values, and block and value count that can belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<K: Key> {
    /// What the manifest log keeps of the table.
    pub info: TableInfo,
    /// The smallest key, inclusive, decoded from `info`.
    pub key_min: K,
    /// The largest key, inclusive, decoded from `info`.
    pub key_max: K,
}

impl<K: Key> Table<K> {
    /// Decodes the keys of `info` and checks what a single table has to satisfy.
    ///
    /// # Errors
    /// The rule that `info` breaks, placed at the table's index block.
    pub fn new(info: TableInfo) -> Result<Self, Corruption> {
        let table = Self { info, key_min: K::decode(&info.key_min.0), key_max: K::decode(&info.key_max.0) };
        table.check_keys()?;
        table.check_counts()?;
        if info.beat_min > info.beat_max {
            return Err(table.corruption(
                "table.beat_max",
                Expected::AtLeast(info.beat_min.get().into()),
                info.beat_max.get().into(),
            ));
        }
        if info.age > info.beat_min {
            let expected = Expected::AtMost(info.beat_min.get().into());
            return Err(table.corruption("table.age", expected, info.age.get().into()));
        }
        Ok(table)
    }

    fn check_keys(&self) -> Result<(), Corruption> {
        let canonical =
            self.key_min.encode() == self.info.key_min && self.key_max.encode() == self.info.key_max;
        if !canonical {
            let rule = Expected::Rule("bytes beyond the key's size are zero");
            return Err(self.corruption("table.key", rule, 1));
        }
        if self.key_min > self.key_max {
            let rule = Expected::Rule("key_min <= key_max");
            return Err(self.corruption("table.key_max", rule, self.key_max.prefix().into()));
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), Corruption> {
        let TableInfo { value_count, tombstone_count, value_block_count, .. } = self.info;
        let blocks = u64::from(value_block_count);
        if blocks == 0 {
            return Err(self.corruption("table.value_block_count", Expected::AtLeast(1), 0));
        }
        if value_count < blocks {
            return Err(self.corruption(
                "table.value_count",
                Expected::AtLeast(blocks.into()),
                value_count.into(),
            ));
        }
        let value_count_max = blocks * BLOCK_VALUE_COUNT_MAX;
        if value_count > value_count_max {
            let expected = Expected::AtMost(value_count_max.into());
            return Err(self.corruption("table.value_count", expected, value_count.into()));
        }
        if tombstone_count > value_count {
            let expected = Expected::AtMost(value_count.into());
            return Err(self.corruption("table.tombstone_count", expected, tombstone_count.into()));
        }
        Ok(())
    }

    pub(crate) fn corruption(&self, field: &'static str, expected: Expected, found: u128) -> Corruption {
        Corruption::new(field, expected, found).at(Place::Block(self.info.index.address))
    }

    /// The keys of the table as a range.
    ///
    /// # Panics
    /// Never for a table made by [`Table::new`].
    pub fn range(&self) -> KeyRange<K> {
        KeyRange::new(self.key_min, self.key_max).expect("checked at construction")
    }

    /// Whether beat `beat` sees the table.
    pub fn is_visible(&self, beat: Beat) -> bool {
        self.info.beat_min <= beat && beat <= self.info.beat_max
    }

    /// Whether no compaction has replaced the table yet.
    pub fn is_live(&self) -> bool {
        self.info.beat_max == Beat::MAX
    }

    /// Whether some beat sees both tables.
    pub(crate) fn coexists(&self, other: &Self) -> bool {
        self.info.beat_min <= other.info.beat_max && other.info.beat_min <= self.info.beat_max
    }
}
