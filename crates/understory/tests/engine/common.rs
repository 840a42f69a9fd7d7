//! What the tests of the whole engine share: three trees, a model of them, and a random user of both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use understory::{Batch, Database, Error, Geometry, Machine, Options, Schema, record};
use understory_io::SimStorage;
use zerocopy::little_endian::{U16, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An object of 48 bytes under a `u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Account {
    pub(crate) id: U64,
    pub(crate) body: [u8; 40],
}
record!(Account: "accounts", key = { id: U64 });

/// An index entry whose key is all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ByOwner {
    pub(crate) owner: U16,
    pub(crate) id: U64,
}
record!(ByOwner: "accounts.owner", key = { owner: U16, id: U64 });

/// A record under a `u128` that does not stand first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Event {
    pub(crate) amount: U64,
    pub(crate) time: U128,
}
record!(Event: "events", key = { time: U128 });

pub(crate) fn schema() -> Schema {
    Schema::new().tree::<Account>().tree::<ByOwner>().tree::<Event>()
}

/// A small geometry with a journal, and the least memory that it works with and a little cache.
pub(crate) fn options() -> Options {
    Options::default().memory(8 << 20).geometry(Geometry::small().with_journal())
}

/// The same without a journal.
pub(crate) fn without_journal() -> Options {
    Options::default().memory(8 << 20).geometry(Geometry::small())
}

/// With level 0 in runs, and filters.
pub(crate) fn in_runs() -> Options {
    Options::default()
        .memory(8 << 20)
        .geometry(Geometry::small().with_runs(3).with_filters(10).with_journal())
}

pub(crate) fn create_sim(machine: &Machine, options: &Options) -> Result<Database, Error> {
    let geometry = options.geometry.unwrap_or_default();
    Database::format(machine, Path::new("simulated"), &schema(), &geometry, options)?;
    open_sim(machine, options)
}

pub(crate) fn open_sim(machine: &Machine, options: &Options) -> Result<Database, Error> {
    Database::open_machine(machine.clone(), Path::new("simulated"), &schema(), options, false)
}

/// A machine over what `storage` holds now.
pub(crate) fn reboot(storage: &SimStorage, seed: u64) -> (Machine, Arc<SimStorage>) {
    Machine::sim_from(storage.image(), seed)
}

/// What the three trees ought to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) accounts: BTreeMap<u64, Account>,
    pub(crate) owners: BTreeMap<(u16, u64), ByOwner>,
    pub(crate) events: BTreeMap<u128, Event>,
}

impl Model {
    pub(crate) fn len(&self) -> usize {
        self.accounts.len() + self.owners.len() + self.events.len()
    }

    /// Compares every tree in both directions.
    pub(crate) fn check(&self, database: &Database) -> Result<(), Error> {
        let rows = database.scan::<Account>(..)?.collect::<Result<Vec<_>, _>>()?;
        assert!(rows.iter().eq(self.accounts.values()), "accounts differ");
        let rows = database.scan_rev::<Account>(..)?.collect::<Result<Vec<_>, _>>()?;
        assert!(rows.iter().eq(self.accounts.values().rev()), "accounts differ backwards");
        let rows = database.scan::<ByOwner>(..)?.collect::<Result<Vec<_>, _>>()?;
        assert!(rows.iter().eq(self.owners.values()), "owners differ");
        let rows = database.scan_rev::<ByOwner>(..)?.collect::<Result<Vec<_>, _>>()?;
        assert!(rows.iter().eq(self.owners.values().rev()), "owners differ backwards");
        let rows = database.scan::<Event>(..)?.collect::<Result<Vec<_>, _>>()?;
        assert!(rows.iter().eq(self.events.values()), "events differ");
        let rows = database.scan_rev::<Event>(..)?.collect::<Result<Vec<_>, _>>()?;
        assert!(rows.iter().eq(self.events.values().rev()), "events differ backwards");
        Ok(())
    }
}

/// A random user: puts, overwrites and removes in batches over the three trees, near misses among them.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) rng: fastrand::Rng,
    pub(crate) model: Model,
    /// Account ids are below this.
    pub(crate) id_max: u64,
    /// Puts and removes so far.
    pub(crate) effects: u64,
    next_time: u128,
}

impl User {
    pub(crate) fn new(seed: u64, id_max: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { rng, model: Model::default(), id_max, effects: 0, next_time: 1 }
    }

    /// An id from the whole range, from a hot corner of it, or at its edges.
    pub(crate) fn id(&mut self) -> u64 {
        match self.rng.u8(0..20) {
            0..=3 => self.rng.u64(0..(self.id_max / 50).max(1)),
            4 => self.id_max - 1 - self.rng.u64(0..3.min(self.id_max)),
            5 => u64::MAX - self.rng.u64(0..3),
            _ => self.rng.u64(0..self.id_max),
        }
    }

    /// Fills `batch` with `count` effects and applies them to the model.
    pub(crate) fn fill(&mut self, batch: &mut Batch, count: u64) {
        batch.clear();
        for _ in 0..count {
            match self.rng.u8(0..100) {
                0..=39 => self.put_account(batch),
                40..=59 => self.remove_account(batch),
                60..=84 => self.put_event(batch),
                _ => self.remove_event(batch),
            }
        }
        self.effects += batch.len();
    }

    fn put_account(&mut self, batch: &mut Batch) {
        let id = self.id();
        let mut body = [0; 40];
        self.rng.fill(&mut body);
        if let Some(old) = self.model.accounts.get(&id) {
            let owner = owner_of(old);
            batch.remove::<ByOwner>((owner, id));
            self.model.owners.remove(&(owner, id));
        }
        let account = Account { id: id.into(), body };
        let entry = ByOwner { owner: owner_of(&account).into(), id: id.into() };
        batch.put(&account);
        batch.put(&entry);
        self.model.accounts.insert(id, account);
        self.model.owners.insert((owner_of(&account), id), entry);
    }

    fn remove_account(&mut self, batch: &mut Batch) {
        let id = self.id();
        if let Some(old) = self.model.accounts.remove(&id) {
            batch.remove::<ByOwner>((owner_of(&old), id));
            self.model.owners.remove(&(owner_of(&old), id));
        }
        batch.remove::<Account>(id);
    }

    fn put_event(&mut self, batch: &mut Batch) {
        let time = match self.rng.u8(0..10) {
            0 if !self.model.events.is_empty() => self.old_time(),
            _ => {
                self.next_time += u128::from(self.rng.u8(1..4)) << self.rng.u8(0..3);
                self.next_time
            }
        };
        let event = Event { amount: self.rng.u64(..).into(), time: time.into() };
        batch.put(&event);
        self.model.events.insert(time, event);
    }

    fn remove_event(&mut self, batch: &mut Batch) {
        let time = self.old_time();
        batch.remove::<Event>(time);
        self.model.events.remove(&time);
    }

    /// A time that may have been used, or lies beside one that was.
    pub(crate) fn old_time(&mut self) -> u128 {
        self.rng.u128(0..=self.next_time + 1)
    }
}

pub(crate) fn owner_of(account: &Account) -> u16 {
    u16::from(account.body[0] % 16)
}
