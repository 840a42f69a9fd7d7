//! Other engines, each set up as its users would for such a load. Keys are big-endian, so that they sort as ours.

pub(crate) mod fjalls;
pub(crate) mod rocks;
