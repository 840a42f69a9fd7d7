//! Which of the four superblock copies to believe: a pure function of what was read.
//!
//! An update writes two copies, syncs, writes the other two, syncs. It leaves alone, until its own first two are
//! synced, two copies that agree on the state before it. So whatever a crash leaves, at least two copies agree,
//! on the old state or on the new one.
//!
//! # Invariants
//! - What is chosen is the highest sequence that at least two copies hold with equal bytes
//!   (`every_combination_of_four_copies`).
//! - A single copy with a higher sequence is what a torn update leaves, and is passed over, but only if its parent
//!   is what was chosen. Otherwise a state between the two was durable and is lost: that is an error, not a step
//!   back (`a_lost_state_is_no_torn_update`).
//! - The slots that do not hold what was chosen come first in the order of writing.
//!
//! # Not here
//! Reading and writing the copies (`superblock`), what they mean (`open`).

use understory_format::Checksum;

/// Copies of the superblock in a file.
pub(crate) const COPY_COUNT: usize = 4;
/// Copies that must agree at open.
const OPEN_COUNT: usize = 2;

/// What was found in the place of one copy of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyState {
    /// A good copy.
    Valid {
        /// Number of the update that wrote it.
        sequence: u64,
        /// Checksum of the copy, equal in all copies of one update.
        checksum: Checksum,
        /// Checksum of the superblock before it.
        parent: Checksum,
    },
    /// A copy with a good checksum but of a format version that this release does not know.
    Version(u16),
    /// Begins like a superblock but fails its checksum, or does not decode.
    Corrupt,
    /// No superblock: other bytes are here.
    Foreign,
    /// The file ends before the end of the copy, or the device could not read it.
    Unreadable,
}

/// What to do with the four copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The slot of a copy that holds the chosen state.
    pub(crate) slot: usize,
    /// The highest sequence of any good copy.
    pub(crate) sequence_seen: u64,
    /// The slots in the order in which the next update writes them.
    pub(crate) write_order: [usize; COPY_COUNT],
    /// How many slots do not hold the chosen state.
    pub(crate) outside: usize,
}

/// Why no copy can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoChoice {
    /// There is no sign of a superblock.
    NotUnderstory,
    /// The superblock is of another format version.
    Version(u16),
    /// There are superblocks, but no state that must be the newest durable one.
    Lost,
}

/// Chooses the state to open.
pub(crate) fn choose(copies: &[CopyState; COPY_COUNT]) -> Result<Choice, NoChoice> {
    let other_version =
        copies.iter().find_map(|copy| if let CopyState::Version(v) = copy { Some(*v) } else { None });
    let version_count = copies.iter().filter(|copy| matches!(copy, CopyState::Version(_))).count();
    let best = best(copies);
    match (best, other_version) {
        (_, Some(version)) if version_count >= OPEN_COUNT => return Err(NoChoice::Version(version)),
        (None, Some(version)) => return Err(NoChoice::Version(version)),
        _ => {}
    }
    let Some(best) = best else {
        let ours = |copy: &CopyState| matches!(copy, CopyState::Valid { .. } | CopyState::Corrupt);
        return Err(if copies.iter().any(ours) { NoChoice::Lost } else { NoChoice::NotUnderstory });
    };
    check_others(copies, &best)?;
    Ok(arrange(copies, &best))
}

/// A state that enough copies hold.
#[derive(Clone, Copy)]
struct Best {
    sequence: u64,
    checksum: Checksum,
    parent: Checksum,
    count: usize,
}

fn best(copies: &[CopyState; COPY_COUNT]) -> Option<Best> {
    let states = copies.iter().filter_map(|copy| {
        let &CopyState::Valid { sequence, checksum, parent } = copy else { return None };
        Some(Best { sequence, checksum, parent, count: copies.iter().filter(|other| *other == copy).count() })
    });
    states.filter(|state| state.count >= OPEN_COUNT).max_by_key(|state| state.sequence)
}

fn check_others(copies: &[CopyState; COPY_COUNT], best: &Best) -> Result<(), NoChoice> {
    for copy in copies {
        let &CopyState::Valid { sequence, checksum, parent } = copy else { continue };
        if checksum == best.checksum {
            continue;
        }
        let rival = copies.iter().filter(|other| *other == copy).count() >= OPEN_COUNT;
        let connected = match sequence.cmp(&best.sequence) {
            // A torn update of what was chosen.
            std::cmp::Ordering::Greater => parent == best.checksum,
            // One sequence, two states: with equal weight nobody can say which.
            std::cmp::Ordering::Equal => !rival,
            // Two old ones are the state that the chosen update replaced; a single one may be older.
            std::cmp::Ordering::Less => !rival || checksum == best.parent,
        };
        if !connected {
            return Err(NoChoice::Lost);
        }
    }
    Ok(())
}

fn arrange(copies: &[CopyState; COPY_COUNT], best: &Best) -> Choice {
    let holds =
        |copy: &CopyState| matches!(copy, CopyState::Valid { checksum, .. } if *checksum == best.checksum);
    let mut write_order = [0, 1, 2, 3];
    // Stable: false, outside the quorum, sorts before true.
    write_order.sort_by_key(|&slot| copies.get(slot).is_some_and(holds));
    let slot = copies.iter().position(holds).expect("the chosen state is in a copy");
    let sequence =
        |copy: &CopyState| if let CopyState::Valid { sequence, .. } = copy { *sequence } else { 0 };
    Choice {
        slot,
        sequence_seen: copies.iter().map(sequence).max().unwrap_or(0),
        write_order,
        outside: COPY_COUNT - best.count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid(sequence: u64, identity: u128, parent: u128) -> CopyState {
        let (checksum, parent) = (Checksum::new(identity), Checksum::new(parent));
        CopyState::Valid { sequence, checksum, parent }
    }

    fn all_combinations<const N: usize>(states: [CopyState; N]) -> Vec<[CopyState; COPY_COUNT]> {
        let mut all = Vec::new();
        for number in 0..N.pow(4) {
            let digits = [0, 1, 2, 3].map(|place| states[number / N.pow(place) % N]);
            all.push(digits);
        }
        all
    }

    #[test]
    fn every_combination_of_four_copies() {
        let (old, new) = (valid(10, 0xA, 0x9), valid(12, 0xB, 0xA));
        let states = [old, new, CopyState::Corrupt, CopyState::Foreign, CopyState::Unreadable];
        for copies in all_combinations(states) {
            let count = |wanted: CopyState| copies.iter().filter(|copy| **copy == wanted).count();
            let chosen = match (count(old), count(new)) {
                (_, 2..) => Some(new),
                (2.., _) => Some(old),
                _ => None,
            };
            let found = choose(&copies);
            let Some(chosen) = chosen else {
                let ours = count(old) + count(new) + count(CopyState::Corrupt) > 0;
                let expected = if ours { NoChoice::Lost } else { NoChoice::NotUnderstory };
                assert_eq!(found, Err(expected), "{copies:?}");
                continue;
            };
            let found = found.unwrap();
            assert_eq!(copies[found.slot], chosen, "{copies:?}");
            assert_eq!(found.sequence_seen, if count(new) > 0 { 12 } else { 10 });
            let mut order = found.write_order;
            let kept = order[2..].iter().filter(|slot| copies[**slot] == chosen).count();
            assert_eq!(kept, 2, "two good copies stay until two new ones are synced: {copies:?}");
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3]);
        }
    }

    fn check(copies: [CopyState; COPY_COUNT], expected: Result<u64, NoChoice>) {
        // Whatever the order of the slots.
        for rotation in 0..COPY_COUNT {
            let mut rotated = copies;
            rotated.rotate_left(rotation);
            let found = choose(&rotated).map(|choice| {
                let CopyState::Valid { sequence, .. } = rotated[choice.slot] else { panic!("a bad copy") };
                sequence
            });
            assert_eq!(found, expected, "{rotated:?}");
        }
    }

    #[test]
    fn known_outcomes() {
        let (a, b, c) = (valid(2, 0x2, 0x1), valid(3, 0x3, 0x2), valid(4, 0x4, 0x3));
        let bad = CopyState::Corrupt;
        check([b, a, a, a], Ok(2));
        check([b, b, a, a], Ok(3));
        check([a, b, b, b], Ok(3));
        check([bad, bad, c, c], Ok(4));
        check([bad, bad, b, c], Err(NoChoice::Lost));
        check([bad, bad, bad, a], Err(NoChoice::Lost));
        check([CopyState::Foreign; 4], Err(NoChoice::NotUnderstory));
        check([CopyState::Unreadable; 4], Err(NoChoice::NotUnderstory));
    }

    #[test]
    fn a_lost_state_is_no_torn_update() {
        let (a, c) = (valid(2, 0x2, 0x1), valid(4, 0x4, 0x3));
        // 4 was made when 3 was durable, and 3 is gone.
        check([a, a, a, c], Err(NoChoice::Lost));
        check([a, a, c, c], Err(NoChoice::Lost));
        // A single old copy is one whose writes were lost; three newer ones leave no doubt.
        check([a, c, c, c], Ok(4));
    }

    #[test]
    fn two_states_of_one_sequence() {
        let (one, other) = (valid(3, 0x3, 0x2), valid(3, 0xF3, 0x2));
        check([one, one, one, other], Ok(3));
        check([one, one, other, other], Err(NoChoice::Lost));
    }

    #[test]
    fn torn_updates_one_after_another() {
        let old = valid(2, 0x2, 0x1);
        let (first, second) = (valid(4, 0x4, 0x2), valid(6, 0x6, 0x2));
        check([first, second, old, old], Ok(2));
        let choice = choose(&[old, first, old, second]).unwrap();
        assert_eq!((choice.sequence_seen, choice.write_order), (6, [1, 3, 0, 2]));
    }

    #[test]
    fn other_versions() {
        let (old, newer) = (valid(2, 0x2, 0x1), CopyState::Version(7));
        check([newer; 4], Err(NoChoice::Version(7)));
        check([newer, newer, old, old], Err(NoChoice::Version(7)));
        check([newer, CopyState::Corrupt, CopyState::Corrupt, old], Err(NoChoice::Version(7)));
        check([newer, old, old, old], Ok(2));
    }
}
