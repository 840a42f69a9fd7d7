//! How many of its oldest blocks the log rewrites in a half-bar, and why it stays bounded.
//!
//! Let `E` be the records of a block. A half-bar appends `e` edits at most, and then the records that it keeps of
//! the oldest blocks. While the log has no more than `target(t)` blocks, at `t` live tables, it keeps none and
//! releases dead blocks only. Beyond that it takes its oldest blocks until it is back at the target, but reads at
//! most
//!
//! ```text
//! C = 2 * (a + 1)      where a = ceil(e / E)
//! ```
//!
//! of them: twice what edits can add, since old blocks may be full of live records, and one block more for each half-bar,
//! since a checkpoint may close a block that is nearly empty. Dead blocks among them are not read and do not count.
//!
//! # The bound
//! Let `T` be the largest number of live tables so far and `A` the largest `a`. At the end of each half-bar, and after
//! each checkpoint, the log has at most
//!
//! ```text
//! max(target(T) + A, 2 * ceil(T / E) + 2 * A + 1) + floor(T / 2E)      blocks, target(t) = 2 * ceil(t / E) + SLACK.
//! ```
//!
//! *Growth.* A checkpoint closes the open block, which counts as one already. A half-bar that keeps `r` records opens at
//! most `ceil((e + r) / E) <= a + ceil(r / E)` blocks.
//!
//! *A half-bar below full rate*, which reads fewer than `C` blocks, was planned to end at the target: it ends with
//! `target + A` at most. That includes one that has no more closed blocks to take, as what is left then is an open block
//! and `ceil(t / E)` at most.
//!
//! *Half-bars at full rate* come in passes. A pass begins with `n` blocks and ends with the half-bar that takes the last
//! of these. A record that is kept from one of them is newer afterwards, so a pass keeps `R <= T` of their records,
//! each once. With `c` the sum of `C` over the half-bars of the pass so far, half of which is the sum of `a + 1`, the log
//! has grown by
//!
//! ```text
//! sum(a + ceil(r / E)) - c    <=  min(c / 2, T / E - c / 2)  <=  T / 2E:      the last term of the bound.
//! ```
//!
//! (The first, because `ceil(r / E) <= C`; the second, because `ceil(r / E) < r / E + 1`.) When the pass ends, all that
//! is left was written in it, and all but its last half-bar took from the `n` blocks alone: `c <= n - 1 + C`. So there are
//! at most `T / E + (n - 1 + C) / 2` blocks (what the last half-bar took beyond the `n` and kept, it also released). The
//! recurrence `m = T / E + (m - 1 + C) / 2` has the fixed point `m = 2T / E + C - 1 = 2T / E + 2A + 1`: a pass that
//! begins with at most `max(target(T) + A, m)` blocks ends with at most as many. The first pass begins after a half-bar
//! below full rate; or when the log is opened, where the number of blocks found takes part in the maximum.
//!
//! # Invariants
//! - What is chosen depends on the live counts of the blocks, the number of live tables and the plan's edits, and so is
//!   the same after the log was opened again.
//! - The bound is never passed, and it is nearly reached (asserted by the log; `the_bound_is_...`).
//!
//! # Not here
//! Reading and appending: `compaction`.

use understory_format::u64_of;

/// Blocks beyond twice what the live tables need, before anything is rewritten: so that the log of a small forest, most
/// of whose blocks a checkpoint closed early, is not rewritten all the time.
const SLACK: u64 = 4;

/// The pace of a log whose blocks hold this many records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    capacity: u64,
}

/// The oldest blocks of a log, which are to be given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Blocks, from the oldest on.
    pub(crate) blocks: usize,
    /// Live records in them.
    pub(crate) records: u64,
}

impl Pace {
    pub(crate) fn new(capacity: u64) -> Self {
        assert!(capacity > 0, "a block has room for records");
        Self { capacity }
    }

    /// Records of a block.
    pub(crate) fn capacity(self) -> u64 {
        self.capacity
    }

    fn blocks_of(self, records: u64) -> u64 {
        records.div_ceil(self.capacity)
    }

    /// The most blocks that a log with so many live tables has without rewriting any.
    pub(crate) fn target(self, tables: u64) -> u64 {
        2 * self.blocks_of(tables) + SLACK
    }

    /// The most blocks that are read in a half-bar of so many edits.
    pub(crate) fn reads_max(self, edits: u64) -> u64 {
        2 * (self.blocks_of(edits) + 1)
    }

    /// The most blocks of a log that had `blocks_at_open` when it was opened, and since then at most so many live tables
    /// at the start of a half-bar, and edits in one. See the [module](self) for the proof.
    pub(crate) fn blocks_max(self, tables_max: u64, edits_max: u64, blocks_at_open: u64) -> u64 {
        let edited = self.blocks_of(edits_max);
        let below_full_rate = self.target(tables_max) + edited;
        let fixed_point = 2 * self.blocks_of(tables_max) + 2 * edited + 1;
        let burst = tables_max / (2 * self.capacity);
        blocks_at_open.max(below_full_rate).max(fixed_point) + burst
    }

    /// The blocks that a half-bar of so many edits gives up. `live` counts the live records of the closed blocks, oldest
    /// first; `block_count` is that of all blocks, the open one included.
    pub(crate) fn choose(
        self,
        live: impl Iterator<Item = u32>,
        block_count: u64,
        tables: u64,
        edits: u64,
    ) -> Choice {
        let (target, reads_max) = (self.target(tables), self.reads_max(edits));
        let (mut choice, mut reads) = (Choice::default(), 0);
        for live in live {
            let left = block_count - u64_of(choice.blocks) + self.blocks_of(choice.records);
            if left <= target || (live > 0 && reads == reads_max) {
                break;
            }
            reads += u64::from(live > 0);
            choice.blocks += 1;
            choice.records += u64::from(live);
        }
        choice
    }
}

#[cfg(test)]
mod tests;
