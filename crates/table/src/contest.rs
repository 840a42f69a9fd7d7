//! Many sources read as one: the heads of all of them in order, dropping none.
//!
//! The sources stand in order of age, the newest first; of equal keys the newer source's comes first, so that
//! versions of a key leave newest first whether they are in one source or in several. The contest stays with
//! the winning source while its next head comes before the challenger, so that long runs from one source cost
//! one comparison a value; and it says who the challenger is, so that they can cost less.
//!
//! # Invariants
//! - Nothing is loaded before the first `load`. What failed to load is loaded again by the next `load`, and
//!   nothing else is, so that an error loses and repeats no entry.
//! - Heads are given in order of (key, source): checked in debug builds (a compare per value).
//!
//! # Not here
//! The sources: whoever runs a contest has them and gives them to each call, always the same ones. Dropping older
//! versions and tombstones, and counting: [`Merge`](crate::Merge).

use core::cmp::Ordering;
use core::marker::PhantomData;

use understory_format::Record;

use crate::loser_tree::{LoserTree, Node};
use crate::{Direction, Source, TableError};

/// What a contest is held among, by number: [`Source`]s, or what becomes one with something that it does not hold.
pub(crate) trait Sources<R: Record> {
    /// How many there are.
    fn count(&self) -> usize;
    /// [`Source::load`] of one.
    fn load(&mut self, input: usize) -> Result<Option<u64>, TableError>;
    /// [`Source::key`] of one.
    fn key(&self, input: usize) -> R::Key;
    /// [`Source::prefetch`] of all.
    fn prefetch(&mut self);
}

#[expect(clippy::indexing_slicing, reason = "per value; a contest knows no other inputs than the sources")]
impl<R: Record, S: Source<R>> Sources<R> for [S] {
    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn load(&mut self, input: usize) -> Result<Option<u64>, TableError> {
        self[input].load()
    }

    #[inline]
    fn key(&self, input: usize) -> R::Key {
        self[input].key()
    }

    fn prefetch(&mut self) {
        self.iter_mut().for_each(Source::prefetch);
    }
}

/// Wins of one source in a row from which on it is likely to go on.
const STREAK: u32 = 4;

/// What comes after the source that has the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenger {
    /// No other source has anything.
    Nobody,
    /// The source with this number.
    Source(usize),
    /// It does not pay to ask.
    Unknown,
}

/// How far the heads are known.
#[derive(Debug)]
enum State {
    /// These sources have been loaded, the first ones; the rest are still to be asked.
    Opening(Vec<Option<u64>>),
    /// All heads are known.
    Ready,
    /// The winner's source went on; its new head is not known.
    Passed,
}

/// A loser tree over sources.
#[derive(Debug)]
pub(crate) struct Contest<R> {
    direction: Direction,
    state: State,
    tree: LoserTree,
    /// The best of the losers, while the same source wins.
    challenger: Node,
    /// How often the same source has won since another did.
    streak: u32,
    record: PhantomData<fn() -> R>,
}

impl<R: Record> Contest<R> {
    /// A contest among sources that stand newest first, all opened in `direction`.
    pub(crate) fn new(direction: Direction) -> Self {
        Self {
            direction,
            state: State::Opening(Vec::new()),
            tree: LoserTree::new(&[], |_, _| false),
            challenger: Node::ENDED,
            streak: 0,
            record: PhantomData,
        }
    }

    /// A prefix as a rank, and back: inverted if larger keys come first.
    #[inline]
    fn flip(&self, prefix: u64) -> u64 {
        if self.direction.is_ascending() { prefix } else { !prefix }
    }

    #[cold]
    fn open<S: Sources<R> + ?Sized>(&mut self, sources: &mut S) -> Result<(), TableError> {
        let flip = if self.direction.is_ascending() { 0 } else { u64::MAX };
        let State::Opening(ranks) = &mut self.state else { return Ok(()) };
        if ranks.is_empty() {
            sources.prefetch();
        }
        for input in ranks.len()..sources.count() {
            ranks.push(sources.load(input)?.map(|prefix| prefix ^ flip));
        }
        let tie = |a, b| is_before(sources, self.direction, a, b);
        self.tree = LoserTree::new(ranks, tie);
        self.challenger = self.tree.challenger(tie);
        self.state = State::Ready;
        Ok(())
    }

    #[inline]
    fn follow<S: Sources<R> + ?Sized>(&mut self, sources: &mut S) -> Result<(), TableError> {
        let winner = self.tree.winner();
        let rank = sources.load(winner.input)?.map(|prefix| self.flip(prefix));
        self.state = State::Ready;
        let tie = |a, b| is_before(sources, self.direction, a, b);
        if let Some(rank) = rank {
            debug_assert!(rank >= winner.rank, "source {} goes backwards", winner.input);
            if (Node { rank, input: winner.input }).is_before(self.challenger, tie) {
                self.tree.keep(rank);
                self.streak = self.streak.saturating_add(1);
                return Ok(());
            }
        }
        self.streak = 0;
        self.tree.replay(rank, tie);
        self.challenger = self.tree.challenger(tie);
        Ok(())
    }

    /// Makes the head of all available: [`Source::load`].
    #[inline]
    pub(crate) fn load<S: Sources<R> + ?Sized>(
        &mut self,
        sources: &mut S,
    ) -> Result<Option<u64>, TableError> {
        match self.state {
            State::Ready => {}
            State::Passed => self.follow(sources)?,
            State::Opening(_) => self.open(sources)?,
        }
        let winner = self.tree.winner();
        Ok((!winner.is_ended()).then(|| self.flip(winner.rank)))
    }

    /// The number of the source that has the head, after a `load` that gave one.
    #[inline]
    pub(crate) fn winner(&self) -> usize {
        self.tree.winner().input
    }

    /// Who has the head after the winner's source, after a `load` that gave one: [`Challenger::Unknown`] unless the same
    /// source has won for a while, so that it pays to ask how far it goes on.
    #[inline]
    pub(crate) fn challenger(&self) -> Challenger {
        if self.challenger.is_ended() {
            Challenger::Nobody
        } else if self.streak >= STREAK {
            Challenger::Source(self.challenger.input)
        } else {
            Challenger::Unknown
        }
    }

    /// The winner's source goes past its head: the caller has it do so.
    #[inline]
    pub(crate) fn pass(&mut self) {
        assert!(matches!(self.state, State::Ready), "advance needs a head that was loaded");
        self.state = State::Passed;
    }
}

/// Whether the head of source `a` comes before that of `b`, by full key and then by age.
fn is_before<R: Record, S: Sources<R> + ?Sized>(
    sources: &S,
    direction: Direction,
    a: usize,
    b: usize,
) -> bool {
    match (sources.key(a).cmp(&sources.key(b)), direction) {
        (Ordering::Equal, _) => a < b,
        (order, Direction::Ascending) => order == Ordering::Less,
        (order, Direction::Descending) => order == Ordering::Greater,
    }
}
