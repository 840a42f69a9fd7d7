//! The clock of the forest: which part of its bar a beat is, and which target levels compact in it.
//!
//! A bar is `beats_per_bar` beats, a half-bar half of that. Odd target levels compact in the first half-bar
//! of a bar, even ones (with memtable into level 0) in the second, so that no level is ever the source of
//! one compaction and the target of another at the same time.
//!
//! # Not here
//! What is compacted: that is the plan of each tree. When a checkpoint falls due: that is the facade's.

use understory_format::{Beat, Geometry, Level};

/// Which half of its bar a half-bar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Compacts into odd levels; what is due becomes free at its end.
    First,
    /// Compacts into even levels, memtables into level 0 among them; the bar ends with it.
    Second,
}

/// The division of beats into half-bars and bars.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    beats_per_bar: u64,
    levels: u8,
}

impl Schedule {
    /// The schedule of a file of this geometry.
    ///
    /// # Panics
    /// If the geometry is not valid.
    #[must_use]
    pub fn new(geometry: &Geometry) -> Self {
        assert!(geometry.beats_per_bar >= 2, "geometry is validated before it gets here");
        assert!(geometry.beats_per_bar.is_multiple_of(2), "geometry is validated before it gets here");
        Self { beats_per_bar: u64::from(geometry.beats_per_bar), levels: geometry.levels }
    }

    /// Beats of one bar.
    #[must_use]
    pub fn beats_per_bar(&self) -> u64 {
        self.beats_per_bar
    }

    /// Beats of one half-bar.
    #[must_use]
    pub fn beats_per_half(&self) -> u64 {
        self.beats_per_bar / 2
    }

    /// The half that `beat` belongs to.
    #[must_use]
    pub fn half(&self, beat: Beat) -> Half {
        if self.position(beat) < self.beats_per_half() { Half::First } else { Half::Second }
    }

    /// Whether a half-bar ends with the close of `beat`.
    #[must_use]
    pub fn ends_half_bar(&self, beat: Beat) -> bool {
        (self.position(beat) + 1).is_multiple_of(self.beats_per_half())
    }

    /// Whether a bar ends with the close of `beat`.
    #[must_use]
    pub fn ends_bar(&self, beat: Beat) -> bool {
        self.position(beat) + 1 == self.beats_per_bar
    }

    /// Whether a bar begins with `beat`.
    #[must_use]
    pub fn begins_bar(&self, beat: Beat) -> bool {
        self.position(beat) == 0
    }

    /// Beats of the half-bar of `beat` that are not closed before it, `beat` included.
    #[must_use]
    pub fn beats_left_in_half(&self, beat: Beat) -> u64 {
        self.beats_per_half() - self.position(beat) % self.beats_per_half()
    }

    /// The levels that compaction writes to in a half, upper ones first.
    ///
    /// # Panics
    /// Never: the geometry is valid.
    pub fn targets(&self, half: Half) -> impl Iterator<Item = Level> + use<> {
        let parity = match half {
            Half::First => 1,
            Half::Second => 0,
        };
        (0..self.levels).filter(move |level| level % 2 == parity).map(|level| {
            Level::new(level).expect("a validated geometry has fewer levels than a Level can hold")
        })
    }

    fn position(&self, beat: Beat) -> u64 {
        beat.get() % self.beats_per_bar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(beats_per_bar: u16, beat: u64, half: Half, ends_half: bool, ends_bar: bool, left: u64) {
        let geometry = Geometry { beats_per_bar, ..Geometry::small() };
        let schedule = Schedule::new(&geometry);
        let beat = Beat::new(beat);
        assert_eq!(schedule.half(beat), half);
        assert_eq!(schedule.ends_half_bar(beat), ends_half);
        assert_eq!(schedule.ends_bar(beat), ends_bar);
        assert_eq!(schedule.beats_left_in_half(beat), left);
    }

    #[test]
    fn a_bar_of_four() {
        check(4, 0, Half::First, false, false, 2);
        check(4, 1, Half::First, true, false, 1);
        check(4, 2, Half::Second, false, false, 2);
        check(4, 3, Half::Second, true, true, 1);
        check(4, 4, Half::First, false, false, 2);
    }

    #[test]
    fn the_shortest_bar() {
        check(2, 6, Half::First, true, false, 1);
        check(2, 7, Half::Second, true, true, 1);
    }

    #[test]
    fn targets_alternate() {
        let schedule = Schedule::new(&Geometry::small());
        let levels = |half| schedule.targets(half).map(|level| level.get()).collect::<Vec<_>>();
        assert_eq!(levels(Half::First), [1, 3, 5]);
        assert_eq!(levels(Half::Second), [0, 2, 4, 6]);
    }
}
