//! Other engines, each set up as its users would for such a load. Keys are big-endian where an engine compares bytes,
//! so that they sort as ours.

/// What of the memory a full memtable takes at most, as a divisor, where an engine has such.
const MEMTABLE: u64 = 8;

pub(crate) mod fjalls;
pub(crate) mod lmdbs;
pub(crate) mod redbs;
pub(crate) mod rocks;
