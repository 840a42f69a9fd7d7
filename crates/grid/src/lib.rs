//! Blocks by address: superblock, free set, cache, verified reads and writes, checkpoints.
