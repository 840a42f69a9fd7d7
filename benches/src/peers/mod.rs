//! Other engines, each set up as its users would for such a load. Keys are big-endian where an engine compares bytes,
//! so that they sort as ours.

pub(crate) mod fjalls;
pub(crate) mod lmdbs;
pub(crate) mod redbs;
pub(crate) mod rocks;
