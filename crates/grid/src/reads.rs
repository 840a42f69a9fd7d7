//! Reads in flight: equal reads join, a read ahead goes to the first who wants it.
//!
//! ```text
//!          try_lead()            finish()
//!   (none) ----------> Leading ------------> Done, off the table
//!                         |
//!                submit() v        claim
//!                     Submitted -----------> off the table, waited for by who claimed it
//! ```
//!
//! Who leads does not wait for anything but the storage's `read_now`; who claims a read ahead has taken it off the
//! table before waiting. So nobody ever waits for somebody who waits, and a simulation that runs one job inside the
//! wait of another does not come to a standstill. The price: two threads that want the same block while it is
//! being read ahead read it twice.
//!
//! # Invariants
//! - Of several equal reads one goes to the storage, the others get its result (`equal_reads_go_to_the_storage_once`).
//! - Whoever leads ends the flight: dropping a [`Lead`] fails it, so that nobody waits for ever.
//! - A wait for a leader ends when the lead does, whatever becomes of the flight before the waiter looks again
//!   (`a_read_ahead_that_is_claimed_leaves_nobody_waiting`).
//! - No lock is held while anybody waits.
//!
//! # Not here
//! What is read and how it is verified (`read`), the cache.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use understory_format::{BlockAddress, Checksum};
use understory_io::{IoCause, IoError, Operation, Park, Ticket, fresh_key};

use crate::cache::Key;
use crate::error::GridError;

#[derive(Debug)]
enum State<V> {
    /// Somebody is at it.
    Leading,
    /// With the storage; nobody has asked for it yet.
    Submitted(Ticket),
    /// Off the table with a claim; gives no result. Who waited for it while it was led enters the table anew.
    Claimed,
    Done(Result<V, GridError>),
}

#[derive(Debug)]
struct Flight<V> {
    /// For waiting.
    park_key: u64,
    state: Mutex<State<V>>,
}

impl<V> Flight<V> {
    fn is_led(&self) -> bool {
        matches!(*self.state.lock(), State::Leading)
    }
}

#[derive(Debug)]
struct Table<V> {
    flights: BTreeMap<Key, Arc<Flight<V>>>,
    /// Flights in the state `Submitted`.
    submitted: usize,
    /// Addresses of reads ahead that were claimed and may still be with the storage.
    claimed: Vec<BlockAddress>,
}

/// The table of reads in flight.
#[derive(Debug)]
pub(crate) struct Reads<V> {
    table: Mutex<Table<V>>,
    park: Arc<dyn Park>,
    /// Woken when a claimed read has ended.
    park_key: u64,
}

/// What someone who wants a key has to do.
#[derive(Debug)]
pub(crate) enum Role<'a, V: Clone> {
    /// Read it.
    Lead(Lead<'a, V>),
    /// Wait for the storage, then verify what it gives.
    Claimed(Claimed<'a, V>, Ticket),
    /// Nothing: another did.
    Done(Result<V, GridError>),
}

/// The duty to end a flight.
#[derive(Debug)]
pub(crate) struct Lead<'a, V: Clone> {
    reads: &'a Reads<V>,
    key: Key,
    flight: Arc<Flight<V>>,
    ended: bool,
}

/// A read ahead that left the table; to be dropped when the storage is done with it.
#[derive(Debug)]
pub(crate) struct Claimed<'a, V> {
    reads: &'a Reads<V>,
    key: Key,
}

impl<V: Clone> Reads<V> {
    pub(crate) fn new(park: Arc<dyn Park>) -> Self {
        let table = Table { flights: BTreeMap::new(), submitted: 0, claimed: Vec::new() };
        Self { table: Mutex::new(table), park, park_key: fresh_key() }
    }

    /// Takes part in the read of `key`; waits for it if another leads it.
    pub(crate) fn join(&self, key: Key) -> Role<'_, V> {
        loop {
            let flight = match self.enter(key) {
                Ok(role) => return role,
                Err(flight) => flight,
            };
            self.park.park_until(flight.park_key, &mut || !flight.is_led());
            if let State::Done(result) = &*flight.state.lock() {
                return Role::Done(result.clone());
            }
        }
    }

    /// Takes the lead of the read of `key`, unless it is in flight already.
    pub(crate) fn try_lead(&self, key: Key) -> Option<Lead<'_, V>> {
        let mut table = self.table.lock();
        if table.flights.contains_key(&key) { None } else { Some(self.lead(&mut table, key)) }
    }

    /// A role that needs no waiting, or the flight to wait for.
    fn enter(&self, key: Key) -> Result<Role<'_, V>, Arc<Flight<V>>> {
        let mut table = self.table.lock();
        let Some(flight) = table.flights.get(&key) else {
            return Ok(Role::Lead(self.lead(&mut table, key)));
        };
        let flight = Arc::clone(flight);
        match self.claim(&mut table, key, &flight, true) {
            Some((claimed, ticket)) => Ok(Role::Claimed(claimed, ticket)),
            None => Err(flight),
        }
    }

    fn lead<'a>(&'a self, table: &mut Table<V>, key: Key) -> Lead<'a, V> {
        let flight = Arc::new(Flight { park_key: fresh_key(), state: Mutex::new(State::Leading) });
        table.flights.insert(key, Arc::clone(&flight));
        Lead { reads: self, key, flight, ended: false }
    }

    fn claim<'a>(
        &'a self,
        table: &mut Table<V>,
        key: Key,
        flight: &Flight<V>,
        unfinished: bool,
    ) -> Option<(Claimed<'a, V>, Ticket)> {
        let mut state = flight.state.lock();
        let wanted = matches!(&*state, State::Submitted(ticket) if unfinished || ticket.is_done());
        if !wanted {
            return None;
        }
        let State::Submitted(ticket) = std::mem::replace(&mut *state, State::Claimed) else { return None };
        table.flights.remove(&key);
        table.submitted -= 1;
        table.claimed.push(key.address);
        Some((Claimed { reads: self, key }, ticket))
    }

    /// How many reads ahead nobody has asked for yet.
    pub(crate) fn submitted(&self) -> usize {
        self.table.lock().submitted
    }

    /// Takes over a read ahead: one that has ended, or, with `unfinished`, any.
    pub(crate) fn claim_any(&self, unfinished: bool) -> Option<(Claimed<'_, V>, Ticket)> {
        let mut table = self.table.lock();
        let flights: Vec<_> = table.flights.iter().map(|(&key, flight)| (key, Arc::clone(flight))).collect();
        flights.into_iter().find_map(|(key, flight)| self.claim(&mut table, key, &flight, unfinished))
    }

    /// Waits until no read of the blocks at these addresses, whole or of a page, is in flight. Reads ahead are given
    /// to `complete`.
    pub(crate) fn settle(
        &self,
        addresses: &RangeInclusive<BlockAddress>,
        mut complete: impl FnMut(Claimed<'_, V>, Ticket),
    ) {
        let first = Key { address: *addresses.start(), page: 0, checksum: Checksum::ZERO };
        let last = Key { address: *addresses.end(), page: u32::MAX, checksum: Checksum::new(u128::MAX) };
        loop {
            let found = {
                let mut table = self.table.lock();
                let flight = table.flights.range(first..=last).next();
                let Some((key, flight)) = flight.map(|(&key, flight)| (key, Arc::clone(flight))) else {
                    break;
                };
                self.claim(&mut table, key, &flight, true).ok_or(flight)
            };
            match found {
                Ok((claimed, ticket)) => complete(claimed, ticket),
                Err(flight) => self.park.park_until(flight.park_key, &mut || !flight.is_led()),
            }
        }
        let is_free = || !self.table.lock().claimed.iter().any(|address| addresses.contains(address));
        if !is_free() {
            self.park.park_until(self.park_key, &mut || is_free());
        }
    }
}

impl<V: Clone> Lead<'_, V> {
    /// Ends the flight: all who wait get `result`. What can be cached must be in the cache by now.
    pub(crate) fn finish(mut self, result: Result<V, GridError>) {
        self.end(result);
    }

    /// Leaves the flight to the first who wants it.
    pub(crate) fn submit(mut self, ticket: Ticket) {
        self.ended = true;
        let mut table = self.reads.table.lock();
        table.submitted += 1;
        *self.flight.state.lock() = State::Submitted(ticket);
        drop(table);
        self.reads.park.wake(self.flight.park_key);
    }

    fn end(&mut self, result: Result<V, GridError>) {
        self.ended = true;
        let removed = self.reads.table.lock().flights.remove(&self.key);
        assert!(removed.is_some(), "a flight is on the table until it ends");
        *self.flight.state.lock() = State::Done(result);
        self.reads.park.wake(self.flight.park_key);
    }
}

impl<V: Clone> Drop for Lead<'_, V> {
    fn drop(&mut self) {
        if !self.ended {
            let source = IoError::new(Operation::Read, 0, IoCause::Abandoned);
            self.end(Err(GridError::Unreadable { address: self.key.address, source }));
        }
    }
}

impl<V> Claimed<'_, V> {
    pub(crate) fn key(&self) -> Key {
        self.key
    }
}

impl<V> Drop for Claimed<'_, V> {
    fn drop(&mut self) {
        let mut table = self.reads.table.lock();
        let at = table.claimed.iter().position(|&address| address == self.key.address);
        let _ = table.claimed.swap_remove(at.expect("a claim is noted until it is dropped"));
        drop(table);
        self.reads.park.wake(self.reads.park_key);
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    type Step = Box<dyn FnOnce() + Send>;

    /// The first wait runs a step, after which it has to be over.
    #[derive(Default)]
    struct StepPark(Mutex<Option<Step>>);

    impl Park for StepPark {
        fn park_until(&self, _key: u64, ready: &mut dyn FnMut() -> bool) {
            while !ready() {
                let step = self.0.lock().take();
                step.expect("what was waited for has happened")();
            }
        }

        fn wake(&self, _key: u64) {}
    }

    impl fmt::Debug for StepPark {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("StepPark")
        }
    }

    /// Somebody waits for the leader of a read ahead; the read is submitted and claimed before he looks again.
    #[test]
    fn a_read_ahead_that_is_claimed_leaves_nobody_waiting() {
        let address = BlockAddress::new(7).unwrap();
        let key = Key { address, page: Key::WHOLE, checksum: Checksum::ZERO };
        let wait: [fn(&Reads<u8>, Key); 2] = [
            |reads, key| assert!(matches!(reads.join(key), Role::Lead(_)), "nobody is at it any more"),
            |reads, key| reads.settle(&(key.address..=key.address), |_, _| unreachable!("it was claimed")),
        ];
        for wait in wait {
            let park = Arc::new(StepPark::default());
            let shared: Arc<dyn Park> = Arc::<StepPark>::clone(&park);
            let reads: &'static Reads<u8> = Box::leak(Box::new(Reads::new(Arc::clone(&shared))));
            let lead = reads.try_lead(key).unwrap();
            *park.0.lock() = Some(Box::new(move || {
                let (_completer, ticket) = Ticket::pair(shared, Operation::Read, 0);
                lead.submit(ticket);
                let claimed = reads.claim_any(true);
                assert!(claimed.is_some());
            }));
            wait(reads, key);
        }
    }
}
