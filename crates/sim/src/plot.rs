//! A tree and who owns which of its places.
//!
//! # Invariants
//! - Every place has one owner (test).

use fastrand::Rng;

use crate::tree::{Place, Tree};

/// How the places of a tree are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// One block of neighbours for each client.
    Blocks,
    /// Every so-many-th place.
    Stripes,
}

/// A tree, divided among clients.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) tree: Box<dyn Tree>,
    pub(crate) split: Split,
    pub(crate) client_count: u32,
}

/// How a client chooses among its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// All alike.
    Uniform,
    /// Nine of ten times one of the first tenth.
    Hot,
    /// One after the other, round and round.
    Sequential,
    /// Beside the one before.
    Near,
}

impl Plot {
    /// Who writes to a place.
    pub(crate) fn owner(&self, place: Place) -> u32 {
        match self.split {
            Split::Stripes => place % self.client_count,
            Split::Blocks => {
                let guess = u64::from(place) * u64::from(self.client_count) / u64::from(self.count());
                let guess = u32::try_from(guess).expect("at most the number of clients");
                if guess + 1 < self.client_count && self.start(guess + 1) <= place {
                    guess + 1
                } else {
                    guess
                }
            }
        }
    }

    /// Places of one client, at least one.
    pub(crate) fn own_count(&self, client: u32) -> u32 {
        match self.split {
            Split::Stripes => (self.count() - client).div_ceil(self.client_count),
            Split::Blocks => self.start(client + 1) - self.start(client),
        }
    }

    /// A client's place by number, from 0.
    pub(crate) fn own(&self, client: u32, number: u32) -> Place {
        match self.split {
            Split::Stripes => number * self.client_count + client,
            Split::Blocks => self.start(client) + number,
        }
    }

    /// One of a client's places; `last` is the number of the one before, and is moved.
    pub(crate) fn pick(&self, rng: &mut Rng, client: u32, habit: Habit, last: &mut u32) -> Place {
        let count = self.own_count(client);
        *last = match habit {
            Habit::Uniform => rng.u32(0..count),
            Habit::Hot if rng.u8(0..10) > 0 => rng.u32(0..(count / 10).max(1)),
            Habit::Hot => rng.u32(0..count),
            Habit::Sequential => *last + 1,
            Habit::Near => *last + rng.u32(0..3) + count - 1,
        } % count;
        self.own(client, *last)
    }

    fn count(&self) -> u32 {
        self.tree.place_count()
    }

    fn start(&self, client: u32) -> u32 {
        let start = u64::from(client) * u64::from(self.count()) / u64::from(self.client_count);
        u32::try_from(start).expect("at most the number of places")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tree;

    #[test]
    fn every_place_has_one_owner() {
        for client_count in 1..=4 {
            for split in [Split::Blocks, Split::Stripes] {
                for count in [8, 9, 31, 250] {
                    let tree = tree(0, &mut Rng::with_seed(1), count);
                    let plot = Plot { tree, split, client_count };
                    let mut owned = 0;
                    for client in 0..client_count {
                        for number in 0..plot.own_count(client) {
                            assert_eq!(plot.owner(plot.own(client, number)), client, "{plot:?}");
                            owned += 1;
                        }
                    }
                    assert_eq!(owned, plot.count());
                }
            }
        }
    }
}
