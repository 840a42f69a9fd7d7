//! What ought to hold inside a memtable, looked at as a whole.
//!
//! # Not here
//! What holds between runs: [`Runs::verify`](crate::run::Runs::verify).

use std::collections::BTreeMap;

use understory_format::{Key, Record, usize_of};

use super::Contents;
use crate::run::{Rank, index_of_word};

impl<R: Record> Contents<R> {
    /// Checks everything that ought to hold between values, runs and hash index. Costs as much as a sort.
    ///
    /// # Panics
    /// If something does not hold.
    pub fn verify(&self) {
        self.runs.verify();
        let mut is_listed = vec![false; usize_of(self.store.len())];
        for (start, end) in self.runs.newest_first() {
            let mut previous = None;
            for rank in (start..end).map(|slot| self.rank(slot)) {
                assert!(start <= rank.index() && rank.index() < end, "a run lists its own values");
                let listed = is_listed.get_mut(usize_of(rank.index())).expect("below len");
                assert!(!core::mem::replace(listed, true), "a run lists a value once");
                let key = self.store.value(rank.index()).key();
                assert!(rank.prefix() == key.prefix());
                let place = (key, !rank.index());
                assert!(previous.is_none_or(|before| before < place), "a run is sorted");
                previous = Some(place);
            }
        }
        for slot in self.runs.sorted()..self.store.len() {
            assert!(self.rank(slot).index() == slot, "what is unsorted is in arrival order");
        }
        self.verify_newest();
    }

    /// Compares hash index, count of tombstones and bounds with what the values give.
    fn verify_newest(&self) {
        let mut newest = BTreeMap::new();
        let mut tombstone_count = 0;
        for rank in (0..self.store.len()).map(|slot| self.rank(slot)) {
            tombstone_count += u32::from(rank.is_tombstone());
            let word = newest.entry(self.store.value(rank.index()).key()).or_insert(rank.word());
            if index_of_word(*word) < rank.index() {
                *word = rank.word();
            }
        }
        assert!(self.tombstone_count == tombstone_count, "tombstones are counted");
        let bounds = newest.first_key_value().zip(newest.last_key_value());
        assert!(
            self.bounds == bounds.map(|((min, _), (max, _))| (*min, *max)),
            "bounds are those of the keys"
        );
        assert!(self.newest.len() == newest.len(), "the index has each key once");
        for (key, word) in newest {
            let is_it = |&other: &u32| other == word;
            assert!(self.newest.find(key.hash(), is_it).is_some(), "the index has the newest");
        }
        self.verify_previous();
    }

    /// Each value follows the one before it of its key.
    fn verify_previous(&self) {
        let mut words = BTreeMap::new();
        let mut ranks: Vec<Rank> = (0..self.store.len()).map(|slot| self.rank(slot)).collect();
        ranks.sort_unstable_by_key(|rank| rank.index());
        for rank in ranks {
            let before = words.insert(self.store.value(rank.index()).key(), rank.word());
            assert!(self.store.previous(rank.index()) == before, "a value follows the version before it");
        }
    }
}
