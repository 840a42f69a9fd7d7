//! The free set against a model of three plain sets, from a seed.

use std::collections::{BTreeMap, BTreeSet};

use understory_format::u64_of;
use understory_testkit::{Coverage, Fuzzer};

use super::*;

const FUZZER: Fuzzer = Fuzzer {
    target: "free-set",
    seeds: 60,
    seeds_optimised: 1_000,
    goals: &[
        ("reservations", 1_000),
        ("reservations refused", 100),
        ("reservations of all that is left", 50),
        ("blocks acquired", 5_000),
        ("blocks released", 3_000),
        ("blocks freed", 1_000),
        ("sets read back and gone on with", 200),
        ("most reservations at once", 8),
        ("most words", 5),
    ],
};

#[test]
fn agrees_with_the_model() {
    FUZZER.run(|seed, coverage| run(seed, 200, coverage));
}

/// So many random steps, with everything compared after each.
fn run(seed: u64, steps: u64, coverage: &mut Coverage) {
    let mut fuzz = Fuzz::new(seed, coverage);
    for _ in 0..steps {
        fuzz.step();
        fuzz.model.check(&fuzz.set);
        // The file holds all that is in use or promised, and perhaps more.
        let least = fuzz.set.highest_promised().min(fuzz.model.limit);
        let in_file = fuzz.random.u64(least..=fuzz.model.limit);
        fuzz.model.check_back(&fuzz.set, fuzz.random.u64(0..80), in_file);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generation {
    Due,
    Older,
    Fresh,
}

/// Acquired, released with generation, reserved: plain sets of addresses.
#[derive(Debug, Default)]
struct Model {
    limit: u64,
    acquired: BTreeSet<u64>,
    released: BTreeMap<u64, Generation>,
    /// What each live reservation may still hand out, and the end of its range.
    reserved: Vec<(BTreeSet<u64>, u64)>,
}

impl Model {
    fn reserve(&mut self, count: u64) -> Result<(), Exhausted> {
        let start = self.reserved.iter().map(|(_, end)| *end).max().unwrap_or(1);
        let free = (start..=self.limit).filter(|address| !self.acquired.contains(address));
        let blocks: BTreeSet<u64> = free.take(usize::try_from(count).unwrap()).collect();
        if blocks.len() < usize::try_from(count).unwrap() {
            let promised: usize = self.reserved.iter().map(|(blocks, _)| blocks.len()).sum();
            let used = u64::try_from(self.acquired.len() + promised).unwrap();
            return Err(Exhausted { needed: count, free: self.limit - used });
        }
        let end = blocks.last().map_or(start, |last| last + 1);
        self.reserved.push((blocks, end));
        Ok(())
    }

    /// What a reservation could still get.
    fn left(&self) -> u64 {
        let start = self.reserved.iter().map(|(_, end)| *end).max().unwrap_or(1);
        u64_of((start..=self.limit).filter(|address| !self.acquired.contains(address)).count())
    }

    fn acquire(&mut self, reservation: usize) -> u64 {
        let address = self.reserved[reservation].0.pop_first().unwrap();
        assert!(self.acquired.insert(address));
        address
    }

    fn free_due(&mut self) -> u64 {
        let before = self.acquired.len();
        let released = &mut self.released;
        self.acquired.retain(|address| released.get(address) != Some(&Generation::Due));
        released.retain(|_, generation| *generation != Generation::Due);
        u64::try_from(before - self.acquired.len()).unwrap()
    }

    fn rotate(&mut self) {
        for generation in self.released.values_mut() {
            *generation = match generation {
                Generation::Due | Generation::Older => Generation::Due,
                Generation::Fresh => Generation::Older,
            };
        }
    }

    /// Addresses up to `in_file` and then on that are free and not promised, as far as there are `count`.
    fn check_back(&self, set: &FreeSet, count: u64, in_file: u64) {
        let promised = |address: &u64| self.reserved.iter().any(|(blocks, _)| blocks.contains(address));
        let free = (1..=self.limit).filter(|address| !self.acquired.contains(address) && !promised(address));
        let free: Vec<u64> = free.collect();
        let found = set.back_target(count, in_file);
        let needed = usize::try_from(count).unwrap();
        let expected = match needed.checked_sub(1).map(|last| free.get(last)) {
            None => Ok(None),
            Some(Some(&last)) => Ok((last > in_file).then_some(last)),
            Some(None) => Err(Exhausted { needed: count, free: u64::try_from(free.len()).unwrap() }),
        };
        assert_eq!(found, expected, "{count} of {in_file}");
    }

    fn check(&self, set: &FreeSet) {
        set.verify();
        let space = set.space();
        assert_eq!(space.acquired, u64::try_from(self.acquired.len()).unwrap());
        assert_eq!(space.released, u64::try_from(self.released.len()).unwrap());
        assert_eq!(space.free, self.limit - space.acquired);
        assert_eq!(space.highest, self.acquired.last().copied().unwrap_or(0));
        assert_eq!(set.reservations(), self.reserved.len());
        let due = self.released.values().filter(|generation| **generation == Generation::Due).count();
        assert_eq!(set.due(), u64::try_from(due).unwrap());
        for number in 1..=self.limit + 70 {
            assert_eq!(set.is_acquired(address(number)), self.acquired.contains(&number));
            assert_eq!(set.is_released(address(number)), self.released.contains_key(&number));
        }
    }
}

struct Fuzz<'a> {
    coverage: &'a mut Coverage,
    random: fastrand::Rng,
    set: FreeSet,
    model: Model,
    reservations: Vec<Reservation>,
}

impl<'a> Fuzz<'a> {
    fn new(seed: u64, coverage: &'a mut Coverage) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        // Some limits are multiples of a word, most are not; some are reached.
        let limit = if random.bool() { 64 * random.u64(1..5) } else { random.u64(0..300) };
        let model = Model { limit, ..Model::default() };
        coverage.most("most words", limit.div_ceil(64));
        Self { coverage, random, set: FreeSet::new(limit), model, reservations: Vec::new() }
    }

    fn reserve(&mut self) {
        let count = match self.random.u32(0..10) {
            0 => 0,
            1 => self.random.u64(0..2 * self.model.limit.max(1)),
            // All that can be promised, or one block more.
            2 => self.model.left() + u64::from(self.random.bool()),
            _ => self.random.u64(1..20),
        };
        let before = self.set.clone();
        match (self.set.reserve(count), self.model.reserve(count)) {
            (Ok(reservation), Ok(())) => {
                self.coverage.count("reservations", 1);
                self.coverage.count("reservations of all that is left", u64::from(self.model.left() == 0));
                self.reservations.push(reservation);
                self.coverage.most("most reservations at once", u64_of(self.reservations.len()));
            }
            (Err(found), Err(expected)) => {
                self.coverage.count("reservations refused", 1);
                assert_eq!(found, expected);
                assert_eq!(self.set, before, "nothing changed");
            }
            (found, expected) => panic!("found {found:?}, expected {expected:?}"),
        }
    }

    fn acquire(&mut self) {
        if self.reservations.is_empty() {
            return;
        }
        let at = self.random.usize(..self.reservations.len());
        for _ in 0..self.random.u32(0..20) {
            if self.reservations[at].left() == 0 {
                break;
            }
            let found = self.set.acquire(&mut self.reservations[at]);
            assert_eq!(found.get(), self.model.acquire(at));
            self.coverage.count("blocks acquired", 1);
        }
    }

    fn forfeit(&mut self, at: usize) {
        self.set.forfeit(self.reservations.remove(at));
        drop(self.model.reserved.remove(at));
    }

    fn forfeit_all(&mut self) {
        while !self.reservations.is_empty() {
            let at = self.random.usize(..self.reservations.len());
            self.forfeit(at);
        }
    }

    fn release(&mut self) {
        let live: Vec<u64> =
            self.model.acquired.iter().copied().filter(|at| !self.model.released.contains_key(at)).collect();
        for _ in 0..self.random.usize(0..10).min(live.len()) {
            let number = live[self.random.usize(..live.len())];
            // The same may be drawn twice.
            if self.model.released.insert(number, Generation::Fresh).is_none() {
                self.set.release(address(number));
                self.coverage.count("blocks released", 1);
            }
        }
    }

    /// As the grid does it; then reads the set back and goes on with what was read.
    fn checkpoint(&mut self) {
        self.forfeit_all();
        let bytes = encoded(&self.set);
        let mut trailers = Vec::new();
        if self.model.reserve(2).is_ok() {
            let mut reservation = self.set.reserve(2).unwrap();
            for _ in 0..2 {
                trailers.push(self.set.acquire(&mut reservation));
                assert_eq!(trailers.last().unwrap().get(), self.model.acquire(0));
            }
            self.set.forfeit(reservation);
            self.model.reserved.clear();
        }
        self.set.rotate();
        self.model.rotate();
        let read = FreeSet::decode(&bytes, trailers, self.set.highest(), self.model.limit).unwrap();
        assert_eq!(read, self.set);
        if self.random.bool() {
            self.set = read;
            self.coverage.count("sets read back and gone on with", 1);
        }
    }

    fn free_due(&mut self) {
        self.forfeit_all();
        let freed = self.set.free_due();
        assert_eq!(freed, self.model.free_due());
        self.coverage.count("blocks freed", freed);
    }

    fn step(&mut self) {
        match self.random.u32(0..100) {
            0..30 => self.reserve(),
            30..60 => self.acquire(),
            60..70 if !self.reservations.is_empty() => {
                let at = self.random.usize(..self.reservations.len());
                self.forfeit(at);
            }
            70..88 => self.release(),
            88..94 => self.checkpoint(),
            94..98 => self.free_due(),
            _ => {}
        }
    }
}
