//! Every wait goes through here, so that a simulator can take it over.
//!
//! A wait names a key and a condition. Who changes the condition does so first and calls [`Park::wake`] with
//! the key afterwards. Keys only route wake-ups: two unrelated waits with one key cost a spurious check, nothing
//! else.
//!
//! # Invariants
//! - No wake-up is lost if the state is changed before `wake` (stress test `no_wake_up_is_lost`).
//! - The condition is evaluated with no lock of this module held, so it may take locks that a waker holds.
//! - A wait with a deadline ends there, whatever else happens (test `a_deadline_ends_a_wait`).
//!
//! # Not here
//! What is waited for; see [`Pending`](crate::Pending) for handing one value over.

use std::fmt::Debug;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::{Clock, MonotonicClock};

/// Waiting and waking.
pub trait Park: Send + Sync + Debug {
    /// Returns once `ready` gives true. `ready` is evaluated at once and again after each `wake(key)`, perhaps
    /// more often. The caller holds no lock that `ready` or the waker needs.
    fn park_until(&self, key: u64, ready: &mut dyn FnMut() -> bool);

    /// Makes every `park_until` of this key evaluate its condition again. To be called after the state changed, and
    /// with no lock held that others take: a simulation may let others go on first.
    fn wake(&self, key: u64);

    /// The time that deadlines are compared with. A park that has none stands still.
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    /// Like `park_until`, but returns when [`now`](Self::now) has reached `deadline`. Returns what `ready` gave last.
    /// A park without a time waits without end.
    fn park_until_deadline(&self, key: u64, deadline: Duration, ready: &mut dyn FnMut() -> bool) -> bool {
        let _never = deadline;
        self.park_until(key, ready);
        true
    }
}

/// Number of condition variables that keys are spread over: enough for a hundred threads that wait to rarely share one.
const SHARD_COUNT: usize = 1024;
const SHARD_BITS: u32 = SHARD_COUNT.trailing_zeros();

/// Each shard on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// Number of wakes so far.
    wakes: Mutex<u64>,
    changed: Condvar,
}

/// Waits of real threads: condition variables, sharded by key.
#[derive(Debug)]
pub struct ThreadPark {
    shards: [Shard; SHARD_COUNT],
    clock: MonotonicClock,
}

impl ThreadPark {
    /// A park of its own.
    pub fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Shard::default()), clock: MonotonicClock::new() }
    }

    fn shard(&self, key: u64) -> &Shard {
        // Fibonacci hashing: neighbouring keys go to different shards.
        let mixed = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - SHARD_BITS);
        self.shards.get(crate::usize_of(mixed)).expect("the top bits of the hash are below the shard count")
    }
}

impl Default for ThreadPark {
    fn default() -> Self {
        Self::new()
    }
}

impl ThreadPark {
    fn wait(&self, key: u64, deadline: Option<Duration>, ready: &mut dyn FnMut() -> bool) -> bool {
        let shard = self.shard(key);
        loop {
            // Taken before the condition is evaluated: a state change that `ready` misses is followed by a wake
            // that moves the number on.
            let seen = *shard.wakes.lock();
            if ready() {
                return true;
            }
            let left = deadline.map(|deadline| deadline.saturating_sub(self.clock.now()));
            if left == Some(Duration::ZERO) {
                return false;
            }
            let mut wakes = shard.wakes.lock();
            while *wakes == seen {
                match left {
                    None => shard.changed.wait(&mut wakes),
                    // Too early or not, the condition and the time are looked at again.
                    Some(left) if shard.changed.wait_for(&mut wakes, left).timed_out() => break,
                    Some(_) => {}
                }
            }
        }
    }
}

impl Park for ThreadPark {
    fn park_until(&self, key: u64, ready: &mut dyn FnMut() -> bool) {
        let _ready = self.wait(key, None, ready);
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn park_until_deadline(&self, key: u64, deadline: Duration, ready: &mut dyn FnMut() -> bool) -> bool {
        self.wait(key, Some(deadline), ready)
    }

    fn wake(&self, key: u64) {
        let shard = self.shard(key);
        {
            let mut wakes = shard.wakes.lock();
            *wakes = wakes.wrapping_add(1);
        }
        let _woken = shard.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Two threads pass a turn back and forth; a lost wake-up would stop them for ever.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test races real threads")]
    fn no_wake_up_is_lost() {
        const TURNS: u64 = 20_000;
        let park = ThreadPark::new();
        for (even, odd) in [(1, 2), (1, 1)] {
            let turn = AtomicU64::new(0);
            let play = |own: u64, own_key: u64, other_key: u64| {
                for next in (own..TURNS).step_by(2) {
                    park.park_until(own_key, &mut || turn.load(Ordering::Relaxed) == next);
                    turn.store(next + 1, Ordering::Relaxed);
                    park.wake(other_key);
                }
            };
            std::thread::scope(|scope| {
                scope.spawn(|| play(0, even, odd));
                scope.spawn(|| play(1, odd, even));
            });
            assert_eq!(turn.into_inner(), TURNS);
        }
    }

    /// Many waiters of few keys, woken by one thread: each must see its turn come.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test races real threads")]
    fn all_waiters_of_a_key_are_woken() {
        const WAITERS: u64 = 8;
        const ROUNDS: u64 = 500;
        let park = ThreadPark::new();
        let round = AtomicU64::new(0);
        let arrived = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for waiter in 0..WAITERS {
                let (park, round, arrived) = (&park, &round, &arrived);
                scope.spawn(move || {
                    for wanted in 1..=ROUNDS {
                        park.park_until(waiter % 2, &mut || round.load(Ordering::Acquire) >= wanted);
                        arrived.fetch_add(1, Ordering::AcqRel);
                        park.wake(99);
                    }
                });
            }
            for wanted in 1..=ROUNDS {
                round.store(wanted, Ordering::Release);
                park.wake(0);
                park.wake(1);
                park.park_until(99, &mut || arrived.load(Ordering::Acquire) == wanted * WAITERS);
            }
        });
    }

    #[test]
    fn a_deadline_ends_a_wait() {
        let park = ThreadPark::new();
        let deadline = park.now() + Duration::from_millis(30);
        assert!(!park.park_until_deadline(5, deadline, &mut || false));
        assert!(park.now() >= deadline);
        assert!(!park.park_until_deadline(5, Duration::ZERO, &mut || false));
        let mut calls = 0;
        let ready = park.park_until_deadline(5, Duration::ZERO, &mut || {
            calls += 1;
            true
        });
        assert!(ready && calls == 1, "what holds already is never late");
    }

    /// Wakes of the key that change nothing do not put the deadline off.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test races real threads")]
    fn a_deadline_stays_under_wakes() {
        let park = ThreadPark::new();
        let over = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while over.load(Ordering::Acquire) == 0 {
                    park.wake(5);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let deadline = park.now() + Duration::from_millis(50);
            assert!(!park.park_until_deadline(5, deadline, &mut || false));
            over.store(1, Ordering::Release);
        });
    }

    #[test]
    fn a_condition_that_holds_does_not_wait() {
        let mut calls = 0;
        ThreadPark::new().park_until(5, &mut || {
            calls += 1;
            true
        });
        assert_eq!(calls, 1);
    }

    #[test]
    fn neighbouring_keys_spread_over_shards() {
        let park = ThreadPark::new();
        let mut shards: Vec<_> = (0..16).map(|key| std::ptr::from_ref(park.shard(key))).collect();
        shards.sort_unstable();
        shards.dedup();
        assert!(shards.len() > 12, "16 keys meet in {} shards", shards.len());
    }
}
