//! Memtables, manifest, lookups and scans of one tree.
