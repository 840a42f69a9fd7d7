//! Where an op falls: in the open beat, in the next one, or in the next half-bar.
//!
//! A beat has a share of bytes of effects and, with a journal, a share of the ring (R1). The sequencer keeps one of
//! these ahead of the ops that it stages, the applier keeps one at those that are applied; they agree, because both
//! see the same ops.
//!
//! # Not here
//! What a close does: the applier, and the forest.

use understory_format::{Beat, Geometry, charge};

/// Where an op of some size falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// In the open beat.
    Open,
    /// In the next beat of the same half-bar.
    NextBeat,
    /// In the next half-bar.
    NextHalf,
}

/// A beat, and what is used of its shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    share: u64,
    ring_share: u64,
    beats_per_half: u64,
    beat_in_half: u64,
    effects: u64,
    charge: u64,
}

impl Clock {
    /// At the start of `beat`.
    pub(crate) fn new(geometry: &Geometry, beat: Beat) -> Self {
        let beats_per_half = u64::from(geometry.beats_per_bar) / 2;
        Self {
            share: geometry.share_size.into(),
            ring_share: if geometry.has_journal() { geometry.ring_share() } else { u64::MAX },
            beats_per_half,
            beat_in_half: beat.get() % beats_per_half,
            effects: 0,
            charge: 0,
        }
    }

    /// Where an op with so many bytes of effects falls. One that is within the batch limit fits an empty beat.
    pub(crate) fn room(&self, effects: u64) -> Room {
        let fits = self.effects + effects <= self.share && self.charge + charge(effects) <= self.ring_share;
        match () {
            () if fits => Room::Open,
            () if self.beat_in_half + 1 < self.beats_per_half => Room::NextBeat,
            () => Room::NextHalf,
        }
    }

    /// Counts an op of the open beat.
    pub(crate) fn add(&mut self, effects: u64) {
        self.effects += effects;
        self.charge = self.charge.saturating_add(charge(effects));
    }

    /// The open beat ends.
    pub(crate) fn close(&mut self) {
        self.beat_in_half = (self.beat_in_half + 1) % self.beats_per_half;
        (self.effects, self.charge) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_close_before_what_would_exceed_them() {
        use Room::{NextBeat, NextHalf, Open};
        fn check(geometry: Geometry, ops: &[u64], expected: &[Room]) {
            let mut clock = Clock::new(&geometry, Beat::ZERO);
            for (op, expected) in ops.iter().zip(expected) {
                let room = clock.room(*op);
                assert_eq!(room, *expected, "{op} of {ops:?}");
                if room != Open {
                    clock.close();
                }
                clock.add(*op);
            }
        }
        // Shares of 16 KiB, two beats to a half-bar.
        let share = 16 << 10;
        let small = Geometry::small();
        check(small, &[share, 1, share, share], &[Open, NextBeat, NextHalf, NextBeat]);
        check(small, &[share - 1, 1, 0, 0, 1], &[Open, Open, Open, Open, NextBeat]);
        // A ring's share is 20 KiB: five ops of a sector each, whatever their effects.
        check(small.with_journal(), &[0, 1, 2, 3, 4, 5], &[Open, Open, Open, Open, Open, NextBeat]);
        check(small.with_journal(), &[share, 0, 0], &[Open, NextBeat, Open]);
        check(small, &[0; 40], &[Open; 40]);
    }
}
