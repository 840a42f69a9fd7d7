//! What went wrong with the storage: where, and for how long. The oracle allows what follows from it, and nothing else.
//!
//! # Invariants
//! - Bytes are harmed only if something befell them: that a fault was planned is not enough.
//!
//! # Not here
//! Bringing faults: `tap`. Which errors are explained: `verdict`.

use std::ops::Range;

use understory::Geometry;
use understory_format::{BlockAddress, SUPERBLOCK_COPIES, u64_of};
use understory_io::{Operation, SimBefallen, SimFault};

use crate::zone::{Zone, Zones};

/// Bytes that are not what was written, or could not be read, or were read as something else.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scar {
    bytes: Range<u64>,
    /// Whether it is on the media, not in one read.
    lasts: bool,
    /// Whether it was there when the machine was started.
    is_old: bool,
}

/// What went wrong with a file.
#[derive(Clone, Debug)]
pub(crate) struct Harm {
    /// The machine crashed.
    pub(crate) crashed: bool,
    /// A write, a sync or a growth failed.
    pub(crate) write_failed: bool,
    /// There was no space, for a while.
    pub(crate) was_full: bool,
    /// Somebody cut the file.
    is_cut: bool,
    scars: Vec<Scar>,
    zones: Zones,
}

impl Harm {
    /// None, of a file with this geometry.
    pub(crate) fn new(geometry: &Geometry) -> Self {
        Self {
            crashed: false,
            write_failed: false,
            was_full: false,
            is_cut: false,
            scars: Vec::new(),
            zones: Zones::new(geometry),
        }
    }

    /// What of it is still so after a restart.
    pub(crate) fn that_lasts(&self) -> Self {
        // What a read of the grid gave was noticed, or is forgotten with the memory it was in. What reads of the ring or
        // of superblocks gave may have decided what an opening accepted.
        let is_grid = |scar: &Scar| self.zones.of(scar.bytes.start) == Zone::Grid;
        let scars = self.scars.iter().filter(|scar| scar.lasts || !is_grid(scar));
        let scars = scars.map(|scar| Scar { is_old: true, ..scar.clone() }).collect();
        Self { crashed: false, write_failed: false, was_full: false, scars, ..self.clone() }
    }

    /// These bytes of the file are not what was written.
    pub(crate) fn change(&mut self, bytes: Range<u64>) {
        self.scars.push(Scar { bytes, lasts: true, is_old: false });
    }

    /// Reads of these bytes fail, or give others.
    pub(crate) fn hide(&mut self, bytes: Range<u64>) {
        self.scars.push(Scar { bytes, lasts: false, is_old: false });
    }

    /// The file ends here.
    pub(crate) fn cut(&mut self, size: u64) {
        self.is_cut = true;
        self.change(size..u64::MAX);
    }

    /// This befell an operation of the simulated storage.
    pub(crate) fn befell(&mut self, befallen: &SimBefallen) {
        let SimBefallen { operation, offset, len, fault, .. } = *befallen;
        let bytes = |from: u64| from..from.saturating_add(u64_of(len));
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "what is left makes an operation fail, or not end"
        )]
        match fault {
            SimFault::Delay(_) => {}
            _ if operation == Operation::Read => self.hide(bytes(offset)),
            SimFault::Lose | SimFault::Flip => self.change(bytes(offset)),
            SimFault::Misdirect(to) => {
                self.change(bytes(offset));
                self.change(bytes(to));
            }
            // What a failed write leaves nobody counts on.
            _ => self.write_failed = true,
        }
    }

    /// The ring was read from end to end, and what it holds from now on is certain. Changes since the machine was started
    /// may have come behind the reader's back.
    pub(crate) fn ring_is_good(&mut self) {
        let ring = self.zones.ring();
        self.scars.retain(|scar| (scar.lasts && !scar.is_old) || !overlaps(&scar.bytes, &ring));
    }
}

/// Questions.
impl Harm {
    /// Whether anything has befallen bytes of the file.
    pub(crate) fn is_anywhere(&self) -> bool {
        !self.scars.is_empty()
    }

    /// Whether somebody cut the file.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// In how many places the ring was harmed since it was last read from end to end.
    pub(crate) fn ring_places(&self) -> usize {
        let ring = self.zones.ring();
        self.scars.iter().filter(|scar| overlaps(&scar.bytes, &ring)).count()
    }

    /// Whether the group that ought to be at this position of the journal may be gone.
    pub(crate) fn is_group_hit(&self, position: u64) -> bool {
        self.zones.group(position).iter().any(|bytes| self.is_hit(bytes))
    }

    /// Whether a block may not be what it was.
    pub(crate) fn is_block_hit(&self, address: BlockAddress) -> bool {
        self.zones.block(address).is_some_and(|bytes| self.is_hit(&bytes))
    }

    /// Whether the byte here may not be what it was.
    pub(crate) fn is_byte_hit(&self, offset: u64) -> bool {
        self.is_hit(&(offset..offset.saturating_add(1)))
    }

    /// How many copies of the superblock may not be what they were.
    pub(crate) fn superblocks_hit(&self) -> usize {
        (0..SUPERBLOCK_COPIES).filter(|copy| self.is_hit(&Zones::superblock(*copy))).count()
    }

    /// Whether a copy of the superblock ever was not what it should be, so that the newest may not have been seen.
    pub(crate) fn was_superblock_hit(&self) -> bool {
        let is_hit = |copy| self.scars.iter().any(|scar| overlaps(&scar.bytes, &Zones::superblock(copy)));
        (0..SUPERBLOCK_COPIES).any(is_hit)
    }

    fn is_hit(&self, bytes: &Range<u64>) -> bool {
        self.scars.iter().any(|scar| (scar.lasts || !scar.is_old) && overlaps(&scar.bytes, bytes))
    }
}

fn overlaps(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start.max(other.start) < one.end.min(other.end)
}

#[cfg(test)]
mod tests {
    use understory_io::IoCause;

    use super::*;

    fn geometry() -> Geometry {
        Geometry::small().with_journal()
    }

    fn block(number: u64) -> BlockAddress {
        BlockAddress::new(number).expect("a block")
    }

    fn befallen(operation: Operation, offset: u64, fault: SimFault) -> SimBefallen {
        SimBefallen { number: 0, operation, offset, len: 4096, fault }
    }

    /// Whether blocks 1 to 4 are hit, how many places of the ring, and how many superblocks.
    fn check(harm: &Harm, blocks: [bool; 4], ring_places: usize, superblocks: usize) {
        let found = [1, 2, 3, 4].map(|number| harm.is_block_hit(block(number)));
        assert_eq!(
            (found, harm.ring_places(), harm.superblocks_hit()),
            (blocks, ring_places, superblocks),
            "{harm:?}"
        );
    }

    #[test]
    fn what_is_hit() {
        let geometry = geometry();
        let (ring, grid) = (geometry.journal_offset(), geometry.grid_offset());
        let size = u64::from(geometry.block_size);
        let none = Harm::new(&geometry);
        check(&none, [false; 4], 0, 0);
        let changed = |bytes: Range<u64>| {
            let mut harm = none.clone();
            harm.change(bytes);
            harm
        };
        check(&changed(grid + size - 1..grid + size), [true, false, false, false], 0, 0);
        check(&changed(grid + size..grid + size + 1), [false, true, false, false], 0, 0);
        check(&changed(grid - 1..grid), [false; 4], 1, 0);
        check(&changed(grid - 1..grid + 1), [true, false, false, false], 1, 0);
        check(&changed(ring..ring + 1), [false; 4], 1, 0);
        check(&changed(ring - 1..ring), [false; 4], 0, 0);
        check(&changed(0..1), [false; 4], 0, 1);
        check(&changed(4096..4097), [false; 4], 0, 0);
        let second = Geometry::superblock_offset(1);
        check(&changed(second - 1..second + 1), [false; 4], 0, 1);
        check(&changed(0..second + 1), [false; 4], 0, 2);
        let mut cut = none.clone();
        cut.cut(grid + 2 * size);
        check(&cut, [false, false, true, true], 0, 0);
        assert!(cut.is_cut() && !changed(0..u64::MAX).is_cut());
    }

    #[test]
    fn groups_wrap_around_the_ring() {
        let geometry = geometry();
        let (ring, size) = (geometry.journal_offset(), geometry.journal_size);
        let share = geometry.ring_share();
        let hit = |bytes: Range<u64>, position: u64| {
            let mut harm = Harm::new(&geometry);
            harm.change(bytes);
            harm.is_group_hit(position)
        };
        assert!(hit(ring..ring + 1, 0) && hit(ring..ring + 1, 3 * size));
        assert!(hit(ring + share - 1..ring + share, 0) && !hit(ring + share..ring + share + 1, 0));
        assert!(!hit(ring..ring + 1, 4096));
        // The last sector, and what goes on at the beginning.
        let last = size - 4096;
        assert!(hit(ring + last..ring + size, last) && hit(ring..ring + 1, last));
        assert!(!hit(ring + share - 4096..ring + share - 4095, last));
        assert!(!hit(ring + size..ring + size + 1, last));
    }

    #[test]
    fn what_befell_operations() {
        let geometry = geometry();
        let grid = geometry.grid_offset();
        let size = u64::from(geometry.block_size);
        let other = grid + 2 * size;
        let check = |operation, fault, blocks, write_failed| {
            let mut harm = Harm::new(&geometry);
            harm.befell(&befallen(operation, grid, fault));
            check(&harm, blocks, 0, 0);
            assert_eq!(harm.write_failed, write_failed, "{operation} {fault:?}");
        };
        let (here, both) = ([true, false, false, false], [true, false, true, false]);
        let fail = SimFault::Fail(IoCause::Injected);
        check(Operation::Read, fail, here, false);
        check(Operation::Read, SimFault::Misdirect(other), here, false);
        check(Operation::Read, SimFault::Flip, here, false);
        check(Operation::Read, SimFault::Hang, here, false);
        check(Operation::Read, SimFault::Delay(std::time::Duration::ZERO), [false; 4], false);
        check(Operation::Write, fail, [false; 4], true);
        check(Operation::Write, SimFault::Hang, [false; 4], true);
        check(Operation::Write, SimFault::Lose, here, false);
        check(Operation::Write, SimFault::Misdirect(other), both, false);
        check(Operation::Sync, fail, [false; 4], true);
    }

    #[test]
    fn what_lasts() {
        let geometry = geometry();
        let (ring, grid) = (geometry.journal_offset(), geometry.grid_offset());
        let size = u64::from(geometry.block_size);
        let mut harm = Harm::new(&geometry);
        harm.hide(grid..grid + 1);
        harm.change(grid + size..grid + size + 1);
        harm.hide(ring..ring + 1);
        harm.hide(0..1);
        check(&harm, [true, true, false, false], 1, 1);
        assert!(harm.is_group_hit(0) && harm.was_superblock_hit());
        // What was read wrong then can still have decided how long the journal is, but damages nothing now.
        let mut harm = harm.that_lasts();
        check(&harm, [false, true, false, false], 1, 0);
        assert!(!harm.is_group_hit(0) && harm.was_superblock_hit());
        harm.hide(ring..ring + 1);
        harm.change(ring + 4096..ring + 4097);
        check(&harm, [false, true, false, false], 3, 0);
        harm.ring_is_good();
        check(&harm, [false, true, false, false], 1, 0);
        let mut harm = harm.that_lasts();
        check(&harm, [false, true, false, false], 1, 0);
        harm.ring_is_good();
        check(&harm, [false, true, false, false], 0, 0);
        assert!(harm.is_anywhere() && !Harm::new(&geometry).is_anywhere());
    }
}
