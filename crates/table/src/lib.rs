//! Immutable tables, memtables and the merge and sort kernels of Understory.

mod entry;
mod range;

pub use entry::{Entry, Found};
pub use range::{Direction, KeyRange};
