//! A tournament among sorted inputs that remembers the losers: who is next, and who would be after that.
//!
//! Each input enters with the rank of its head, a `u64` in which smaller comes first (a key prefix, inverted
//! for a descending merge). Comparing ranks is branch-free; only equal ranks ask the caller, who knows the
//! full keys and the age of the inputs. Node 1 is the root, the parent of node `n` is `n / 2`, and input `i`
//! of `n` has the leaf `n + i`, which works for any `n`. A node keeps the loser of its match, so that the path
//! of the winner holds everyone who lost to it directly, and the first of them is the [challenger]: as long
//! as the winner's next head comes before the challenger, the tree need not be touched.
//!
//! [challenger]: LoserTree::challenger
//!
//! # Invariants
//! - The winner comes before every other input that has a head; an input that ended never wins.
//! - The tree keeps its size: it allocates when it is built, and only for more than 16 inputs.
//!
//! # Source
//! Knuth, The Art of Computer Programming, volume 3, section 5.4.1 (replacement selection by a tree of losers).

use core::hint::select_unpredictable;

use smallvec::SmallVec;

/// Trees of up to this many inputs live beside their owner, not on the heap.
const INPUTS_INLINE: usize = 16;

/// An input with the rank of its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Smaller comes first.
    pub(crate) rank: u64,
    /// Number of the input, or [`Node::ENDED`]'s.
    pub(crate) input: usize,
}

impl Node {
    /// An input without a head: comes after every other, and it does not matter which input it is.
    pub(crate) const ENDED: Self = Self { rank: u64::MAX, input: usize::MAX };

    fn new(input: usize, rank: Option<u64>) -> Self {
        rank.map_or(Self::ENDED, |rank| Self { rank, input })
    }

    pub(crate) const fn is_ended(self) -> bool {
        self.input == usize::MAX
    }

    /// Whether `self` comes before `other`; `tie(a, b)` decides between inputs whose ranks are equal.
    #[inline]
    pub(crate) fn is_before(self, other: Self, tie: impl FnOnce(usize, usize) -> bool) -> bool {
        if self.rank != other.rank {
            self.rank < other.rank
        } else if self.is_ended() || other.is_ended() {
            other.is_ended() && !self.is_ended()
        } else {
            tie(self.input, other.input)
        }
    }
}

/// The tree of losers.
#[derive(Clone, Debug)]
pub(crate) struct LoserTree {
    /// By node; the first is unused, and there are as many as inputs.
    losers: SmallVec<[Node; INPUTS_INLINE]>,
    winner: Node,
}

impl LoserTree {
    /// Plays the whole tournament; `ranks` has one item for each input, none for an input that is empty.
    pub(crate) fn new(ranks: &[Option<u64>], mut tie: impl FnMut(usize, usize) -> bool) -> Self {
        let count = ranks.len();
        let leaves = ranks.iter().enumerate().map(|(input, rank)| Node::new(input, *rank));
        let mut winners: SmallVec<[Node; 2 * INPUTS_INLINE]> =
            core::iter::repeat_n(Node::ENDED, count).chain(leaves).collect();
        let mut losers: SmallVec<[Node; INPUTS_INLINE]> = core::iter::repeat_n(Node::ENDED, count).collect();
        for node in (1..count).rev() {
            let (Some(&left), Some(&right)) = (winners.get(2 * node), winners.get(2 * node + 1)) else {
                unreachable!("a node below the number of inputs has two children");
            };
            let right_wins = right.is_before(left, &mut tie);
            let (winner, loser) = if right_wins { (right, left) } else { (left, right) };
            if let (Some(won), Some(lost)) = (winners.get_mut(node), losers.get_mut(node)) {
                *won = winner;
                *lost = loser;
            }
        }
        Self { losers, winner: winners.get(1).copied().unwrap_or(Node::ENDED) }
    }

    /// The input whose head is next; [`Node::ENDED`] if all have ended.
    #[inline]
    pub(crate) fn winner(&self) -> Node {
        self.winner
    }

    /// The winner has a new head and still wins: the caller compared it with the [challenger](Self::challenger).
    #[inline]
    pub(crate) fn keep(&mut self, rank: u64) {
        self.winner.rank = rank;
    }

    /// The winner has a new head, or none any more: plays the matches on its path again.
    #[expect(clippy::indexing_slicing, reason = "per value; nodes on the path of a leaf are below the count")]
    #[inline]
    pub(crate) fn replay(&mut self, rank: Option<u64>, mut tie: impl FnMut(usize, usize) -> bool) {
        assert!(!self.winner.is_ended(), "a tournament that is over cannot go on");
        let count = self.losers.len();
        let mut winner = Node::new(self.winner.input, rank);
        let mut node = (count + self.winner.input) / 2;
        while node > 0 {
            let other = self.losers[node];
            let lost = other.is_before(winner, &mut tie);
            self.losers[node] = Node {
                rank: select_unpredictable(lost, winner.rank, other.rank),
                input: select_unpredictable(lost, winner.input, other.input),
            };
            winner = Node {
                rank: select_unpredictable(lost, other.rank, winner.rank),
                input: select_unpredictable(lost, other.input, winner.input),
            };
            node /= 2;
        }
        self.winner = winner;
    }

    /// Who would win without the winner: the first of those on its path. [`Node::ENDED`] if nobody is left.
    #[expect(clippy::indexing_slicing, reason = "per value; nodes on the path of a leaf are below the count")]
    #[inline]
    pub(crate) fn challenger(&self, mut tie: impl FnMut(usize, usize) -> bool) -> Node {
        let mut challenger = Node::ENDED;
        if self.winner.is_ended() {
            return challenger;
        }
        let mut node = (self.losers.len() + self.winner.input) / 2;
        while node > 0 {
            let other = self.losers[node];
            let first = other.is_before(challenger, &mut tie);
            challenger = Node {
                rank: select_unpredictable(first, other.rank, challenger.rank),
                input: select_unpredictable(first, other.input, challenger.input),
            };
            node /= 2;
        }
        challenger
    }
}

#[cfg(test)]
mod tests {
    use super::{LoserTree, Node};

    /// Merges `inputs` through the tree, with equal ranks to the lower input, and checks the challenger
    /// against a plain search at each step.
    fn check(inputs: &[Vec<u64>]) {
        let mut next = vec![0; inputs.len()];
        let head = |next: &[usize], input: usize| inputs[input].get(next[input]).copied();
        let heads: Vec<_> = (0..inputs.len()).map(|input| head(&next, input)).collect();
        let mut tree = LoserTree::new(&heads, |a, b| a < b);
        let mut merged = Vec::new();
        loop {
            let mut ahead: Vec<_> = (0..inputs.len()).filter_map(|i| Some((head(&next, i)?, i))).collect();
            ahead.sort_unstable();
            let node = |at: usize| ahead.get(at).map_or(Node::ENDED, |&(rank, input)| Node { rank, input });
            assert_eq!(tree.winner(), node(0), "winner of {ahead:?}");
            assert_eq!(tree.challenger(|a, b| a < b), node(1), "challenger in {ahead:?}");
            let winner = tree.winner();
            if winner.is_ended() {
                break;
            }
            merged.push((winner.rank, winner.input));
            next[winner.input] += 1;
            tree.replay(head(&next, winner.input), |a, b| a < b);
        }
        let mut expected: Vec<_> =
            inputs.iter().enumerate().flat_map(|(i, ranks)| ranks.iter().map(move |&r| (r, i))).collect();
        expected.sort_unstable();
        assert_eq!(merged, expected);
    }

    #[test]
    fn no_input_and_one() {
        check(&[]);
        check(&[vec![]]);
        check(&[vec![0, 0, 7, u64::MAX]]);
    }

    #[test]
    fn the_largest_rank_is_no_sentinel() {
        check(&[vec![u64::MAX], vec![], vec![u64::MAX, u64::MAX], vec![3]]);
    }

    #[test]
    fn any_number_of_inputs() {
        let mut random = fastrand::Rng::with_seed(11);
        for count in 0..40 {
            let inputs: Vec<Vec<u64>> = (0..count)
                .map(|_| {
                    let mut ranks: Vec<u64> = (0..random.usize(0..12)).map(|_| random.u64(0..20)).collect();
                    ranks.sort_unstable();
                    ranks
                })
                .collect();
            check(&inputs);
        }
    }
}
