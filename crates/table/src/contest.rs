//! Many sources read as one: a source that gives the heads of its sources in order, dropping none.
//!
//! The sources stand in order of age, the newest first; of equal keys the newer source's comes first, so that
//! versions of a key leave newest first whether they are in one source or in several. The contest stays with
//! the winning source while its next head comes before the challenger, so that long runs from one source cost
//! one comparison a value.
//!
//! # Invariants
//! - Nothing is loaded before the first `load`. What failed to load is loaded again by the next `load`, and
//!   nothing else is, so that an error loses and repeats no entry.
//! - Heads are given in order of (key, source): checked in debug builds (a compare per value).
//!
//! # Not here
//! Dropping older versions and tombstones, and counting: [`Merge`](crate::Merge).

use core::cmp::Ordering;
use core::marker::PhantomData;

use understory_format::Record;

use crate::loser_tree::{LoserTree, Node};
use crate::{Direction, Entry, Source, TableError};

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
pub(crate) struct Contest<R, S> {
    sources: Vec<S>,
    direction: Direction,
    state: State,
    tree: LoserTree,
    /// The best of the losers, while the same source wins.
    challenger: Node,
    record: PhantomData<fn() -> R>,
}

impl<R: Record, S: Source<R>> Contest<R, S> {
    /// A contest among `sources`, the newest first, all opened in `direction`.
    pub(crate) fn new(sources: Vec<S>, direction: Direction) -> Self {
        Self {
            sources,
            direction,
            state: State::Opening(Vec::new()),
            tree: LoserTree::new(&[], |_, _| false),
            challenger: Node::ENDED,
            record: PhantomData,
        }
    }

    pub(crate) fn sources(&self) -> &[S] {
        &self.sources
    }

    /// A prefix as a rank, and back: inverted if larger keys come first.
    #[inline]
    fn flip(&self, prefix: u64) -> u64 {
        if self.direction.is_ascending() { prefix } else { !prefix }
    }

    #[cold]
    fn open(&mut self) -> Result<(), TableError> {
        let flip = if self.direction.is_ascending() { 0 } else { u64::MAX };
        let State::Opening(ranks) = &mut self.state else { return Ok(()) };
        if ranks.is_empty() {
            self.sources.iter_mut().for_each(Source::prefetch);
        }
        for source in self.sources.iter_mut().skip(ranks.len()) {
            ranks.push(source.load()?.map(|prefix| prefix ^ flip));
        }
        let tie = |a, b| is_before(&self.sources, self.direction, a, b);
        self.tree = LoserTree::new(ranks, tie);
        self.challenger = self.tree.challenger(tie);
        self.state = State::Ready;
        Ok(())
    }

    #[expect(clippy::indexing_slicing, reason = "per value; the winner is one of the sources")]
    #[inline]
    fn follow(&mut self) -> Result<(), TableError> {
        let winner = self.tree.winner();
        let rank = self.sources[winner.input].load()?.map(|prefix| self.flip(prefix));
        self.state = State::Ready;
        let tie = |a, b| is_before(&self.sources, self.direction, a, b);
        if let Some(rank) = rank {
            debug_assert!(rank >= winner.rank, "source {} goes backwards", winner.input);
            if (Node { rank, input: winner.input }).is_before(self.challenger, tie) {
                self.tree.keep(rank);
                return Ok(());
            }
        }
        self.tree.replay(rank, tie);
        self.challenger = self.tree.challenger(tie);
        Ok(())
    }
}

/// Whether the head of source `a` comes before that of `b`, by full key and then by age.
#[expect(clippy::indexing_slicing, reason = "per tie; the tree knows no other inputs than the sources")]
fn is_before<R: Record, S: Source<R>>(sources: &[S], direction: Direction, a: usize, b: usize) -> bool {
    match (sources[a].key().cmp(&sources[b].key()), direction) {
        (Ordering::Equal, _) => a < b,
        (order, Direction::Ascending) => order == Ordering::Less,
        (order, Direction::Descending) => order == Ordering::Greater,
    }
}

impl<R: Record, S: Source<R>> Source<R> for Contest<R, S> {
    #[inline]
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        match self.state {
            State::Ready => {}
            State::Passed => self.follow()?,
            State::Opening(_) => self.open()?,
        }
        let winner = self.tree.winner();
        Ok((!winner.is_ended()).then(|| self.flip(winner.rank)))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "per value; the caller has loaded a head, so there is a winner"
    )]
    #[inline]
    fn entry(&self) -> Entry<&R> {
        self.sources[self.tree.winner().input].entry()
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "per value; the caller has loaded a head, so there is a winner"
    )]
    #[inline]
    fn key(&self) -> R::Key {
        self.sources[self.tree.winner().input].key()
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "per value; the caller has loaded a head, so there is a winner"
    )]
    #[inline]
    fn advance(&mut self) {
        assert!(matches!(self.state, State::Ready), "advance needs a head that was loaded");
        self.sources[self.tree.winner().input].advance();
        self.state = State::Passed;
    }

    fn prefetch(&mut self) {
        self.sources.iter_mut().for_each(Source::prefetch);
    }
}
