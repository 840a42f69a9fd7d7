//! Parts of a batch: effects on one tree each, in the order in which they were given.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Corruption, Expected, at_least, at_most, exactly, rule};
use crate::layout::layout;
use crate::record::VALUE_SIZE_MAX;
use crate::units::{TreeId, u32_of, u64_of, usize_of};

layout! {
    /// Header of a part of a batch in the journal. Behind it: the bitmap of tombstones, if flagged, and the values.
    pub struct JournalPartWire: 12 = "journal-part" {
        /// The tree.
        0: tree_id: U16,
        /// Bit 0: there are tombstones, and so a bitmap with a bit for each effect, the first in bit 0 of its first
        /// byte, zeros behind the last. The other bits are zero.
        2: flags: U16,
        /// Bytes of each value.
        4: value_size: U32,
        /// Effects; at least 1.
        8: count: U32,
    }
}

/// Bytes of a part's header.
pub const PART_HEADER_SIZE: usize = size_of::<JournalPartWire>();

const HAS_TOMBSTONES: u16 = 1;

/// What a part says before its effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// The tree.
    pub tree: TreeId,
    /// Bytes of each value, 1 to 16,000.
    pub value_size: u32,
    /// Effects, from 1.
    pub count: u32,
    /// Whether there are tombstones among them.
    pub has_tombstones: bool,
}

/// Bytes of a part: header, bitmap and values.
#[must_use]
pub fn part_size(value_size: u32, count: u32, has_tombstones: bool) -> u64 {
    let bitmap = if has_tombstones { bitmap_size(count) } else { 0 };
    u64_of(PART_HEADER_SIZE) + u64::from(bitmap) + u64::from(value_size) * u64::from(count)
}

const fn bitmap_size(count: u32) -> u32 {
    count.div_ceil(8)
}

impl PartHeader {
    /// Writes the header at the start of `body`, and gives the slots of its effects, all of them zero and no
    /// tombstones, and what is behind the part.
    ///
    /// # Panics
    /// If the part does not fit, or is one that no batch has.
    pub fn start<'a>(&self, body: &'a mut [u8]) -> (PartSlots<'a>, &'a mut [u8]) {
        assert!(self.count > 0, "a part has effects");
        assert!(self.value_size > 0, "values have bytes");
        assert!(usize_of(self.value_size) <= VALUE_SIZE_MAX, "values have at most 16000 bytes");
        let size = part_size(self.value_size, self.count, self.has_tombstones);
        let size = usize::try_from(size).expect("a part fits its body, and so memory");
        let (part, rest) = body.split_at_mut(size);
        part.fill(0);
        let (header, effects) = part.split_at_mut(PART_HEADER_SIZE);
        let wire = JournalPartWire {
            tree_id: self.tree.get().into(),
            flags: if self.has_tombstones { HAS_TOMBSTONES } else { 0 }.into(),
            value_size: self.value_size.into(),
            count: self.count.into(),
        };
        header.copy_from_slice(wire.as_bytes());
        let bitmap = if self.has_tombstones { usize_of(bitmap_size(self.count)) } else { 0 };
        let (tombstones, values) = effects.split_at_mut(bitmap);
        (PartSlots { tombstones, values, value_size: usize_of(self.value_size) }, rest)
    }
}

/// The places of a part's effects, to be filled.
#[derive(Debug)]
pub struct PartSlots<'a> {
    tombstones: &'a mut [u8],
    values: &'a mut [u8],
    value_size: usize,
}

impl PartSlots<'_> {
    /// The bytes of effect `index`, from 0.
    ///
    /// # Panics
    /// If there is none.
    pub fn value(&mut self, index: u32) -> &mut [u8] {
        let start = usize_of(index) * self.value_size;
        self.values.get_mut(start..start + self.value_size).expect("an effect of the part")
    }

    /// Makes effect `index` a tombstone.
    ///
    /// # Panics
    /// If there is none, or the part has no tombstones.
    pub fn set_tombstone(&mut self, index: u32) {
        let byte = self.tombstones.get_mut(usize_of(index / 8)).expect("an effect of a part with tombstones");
        *byte |= 1 << (index % 8);
    }

    /// The bytes of all effects, back to back.
    pub fn values(&mut self) -> &mut [u8] {
        self.values
    }
}

/// One part in the bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartView<'a> {
    tree: TreeId,
    value_size: u32,
    count: u32,
    /// Empty if there are no tombstones.
    tombstones: &'a [u8],
    values: &'a [u8],
}

impl<'a> PartView<'a> {
    /// The tree.
    #[must_use]
    pub const fn tree(&self) -> TreeId {
        self.tree
    }

    /// Bytes of each value.
    #[must_use]
    pub const fn value_size(&self) -> u32 {
        self.value_size
    }

    /// Effects; at least 1.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether there are tombstones among the effects.
    #[must_use]
    pub const fn has_tombstones(&self) -> bool {
        !self.tombstones.is_empty()
    }

    /// The bitmap of tombstones: bit `i % 8` of byte `i / 8` for effect `i`. `None` if there are none.
    #[must_use]
    pub fn tombstones(&self) -> Option<&'a [u8]> {
        self.has_tombstones().then_some(self.tombstones)
    }

    /// Whether effect `index`, from 0, is a tombstone; false if there is no such effect.
    #[must_use]
    #[inline]
    pub fn is_tombstone(&self, index: u32) -> bool {
        self.tombstones.get(usize_of(index / 8)).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }

    /// The values of all effects, back to back.
    #[must_use]
    pub const fn values(&self) -> &'a [u8] {
        self.values
    }

    /// The effects in order: value, and whether it is a tombstone.
    pub fn effects(&self) -> impl ExactSizeIterator<Item = (&'a [u8], bool)> + use<'a> {
        let part = *self;
        let values = self.values.chunks_exact(usize_of(self.value_size));
        values.enumerate().map(move |(index, value)| (value, part.is_tombstone(u32_of(index))))
    }

    /// Checks the part against what the schema says of its tree: the size of its values, `None` if there is no
    /// such tree.
    ///
    /// # Errors
    /// The tree or the size that is wrong.
    pub fn check(&self, value_size: Option<u32>) -> Result<(), Corruption> {
        let expected = Expected::Rule("a tree of the schema");
        let value_size =
            value_size.ok_or_else(|| Corruption::new("tree_id", expected, self.tree.get().into()))?;
        exactly("value_size", value_size, self.value_size)
    }

    /// The part at the start of `body`, and what is behind it.
    fn read(body: &'a [u8]) -> Result<(Self, &'a [u8]), Corruption> {
        let header = u64_of(PART_HEADER_SIZE);
        let (wire, behind) = JournalPartWire::ref_from_prefix(body).map_err(|_| {
            Corruption::new("part", Expected::AtLeast(header.into()), u64_of(body.len()).into())
        })?;
        let expected = Expected::AtLeast(1);
        let tree = TreeId::new(wire.tree_id.get()).ok_or_else(|| Corruption::new("tree_id", expected, 0))?;
        at_most("flags", HAS_TOMBSTONES, wire.flags.get())?;
        at_least("value_size", 1_u8, wire.value_size.get())?;
        at_most("value_size", u64_of(VALUE_SIZE_MAX), wire.value_size.get())?;
        at_least("count", 1_u8, wire.count.get())?;
        let short = || {
            let expected = Expected::Rule("effects that lie within the record");
            Corruption::new("count", expected, wire.count.get().into())
        };
        let (count, value_size) = (wire.count.get(), wire.value_size.get());
        let bitmap = if wire.flags.get() == HAS_TOMBSTONES { usize_of(bitmap_size(count)) } else { 0 };
        let values = usize::try_from(u64::from(count) * u64::from(value_size)).map_err(|_| short())?;
        let (tombstones, behind) = behind.split_at_checked(bitmap).ok_or_else(short)?;
        let (values, behind) = behind.split_at_checked(values).ok_or_else(short)?;
        let part = Self { tree, value_size, count, tombstones, values };
        part.check_bitmap()?;
        Ok((part, behind))
    }

    fn check_bitmap(&self) -> Result<(), Corruption> {
        let Some(&last) = self.tombstones.last() else { return Ok(()) };
        let used = (self.count - 1) % 8 + 1;
        let padding = u32::from(last).checked_shr(used).unwrap_or(0);
        rule("tombstones", "zero behind the last effect", padding == 0, last)?;
        let some = self.tombstones.iter().any(|&byte| byte != 0);
        rule("tombstones", "at least one, as it is flagged", some, 0_u8)
    }
}

/// The parts of a record's body. Ends after the first that is wrong.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Parts<'a> {
    /// The parts of this body.
    #[must_use]
    pub const fn new(body: &'a [u8], part_count: u32) -> Self {
        Self { rest: body, left: part_count }
    }

    /// Checks that nothing is behind the last part.
    ///
    /// # Errors
    /// There is.
    pub fn finish(&self) -> Result<(), Corruption> {
        exactly("part_count", 0_u8, self.left)?;
        let rest = u64_of(self.rest.len());
        rule("size", "the parts of the record and nothing behind them", rest == 0, rest)
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<PartView<'a>, Corruption>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        match PartView::read(self.rest) {
            Ok((part, rest)) => {
                self.rest = rest;
                Some(Ok(part))
            }
            Err(error) => {
                self.left = 0;
                Some(Err(error))
            }
        }
    }
}
