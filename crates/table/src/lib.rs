//! Immutable tables, memtables and the merge and sort kernels of Understory.
