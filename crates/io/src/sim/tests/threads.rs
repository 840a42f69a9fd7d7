//! Simulated threads and jobs: one at a time, by the seed, and found out when they wait for nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;

use super::*;
use crate::{Park, fresh_key};

type Body<'a> = Box<dyn FnOnce() + Send + 'a>;

/// What a panic says.
fn message(act: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(act)).expect_err("a panic");
    let text = payload.downcast_ref::<String>().cloned();
    text.or(payload.downcast_ref::<&str>().map(ToString::to_string)).expect("a message")
}

fn run(scheduler: &SimScheduler, threads: Vec<(&str, Body<'_>)>) {
    SimThreads::run(scheduler, threads);
}

/// A lock that waits through the park.
struct Turn {
    key: u64,
    taken: AtomicBool,
}

impl Turn {
    fn new() -> Self {
        Self { key: fresh_key(), taken: AtomicBool::new(false) }
    }

    fn with<T>(&self, park: &dyn Park, act: impl FnOnce() -> T) -> T {
        park.park_until(self.key, &mut || !self.taken.swap(true, Ordering::AcqRel));
        let result = act();
        self.taken.store(false, Ordering::Release);
        park.wake(self.key);
        result
    }
}

/// Threads and jobs that write, read, wait for one another and take turns: the order in which they did it.
fn busy(seed: u64) -> (Vec<(u64, u64)>, u64, Vec<String>) {
    let (machine, storage) = Machine::sim(seed);
    storage.grow(at(SECTORS)).expect("grown");
    let scheduler = storage.scheduler();
    let events = Arc::new(Mutex::new(Vec::new()));
    let shown = Arc::clone(&events);
    scheduler.set_trace(move |event| {
        if !matches!(event.action, SimAction::Park(_)) {
            shown.lock().push(event.to_string());
        }
    });
    let (order, turn) = (Mutex::new(Vec::new()), Turn::new());
    let buffers = pool(1, 8);
    let body = |thread: u64| -> Body<'_> {
        let (machine, order, turn, buffers) = (&machine, &order, &turn, &buffers);
        Box::new(move || {
            for round in 0..5 {
                let parts = smallvec![WritePart { buffer: Arc::new(filled(buffers, 1)), len: SECTOR }];
                machine.storage.write(at(thread), parts).wait().result.expect("written");
                let park = machine.park.as_ref();
                turn.with(park, || {
                    let buffer = buffers.take().expect("free");
                    machine.storage.read_now(at(9), buffer).result.expect("read");
                    order.lock().push((thread, round));
                });
                let clock = Arc::clone(&machine.clock);
                assert!(machine.spawn(move || clock.now()).wait() > Duration::ZERO);
            }
        })
    };
    run(&scheduler, vec![("a", body(0)), ("b", body(1)), ("c", body(2))]);
    storage.verify();
    let events = events.lock().clone();
    let order = order.lock().clone();
    (order, scheduler.trace_hash(), events)
}

#[test]
fn one_seed_one_interleaving() {
    let mut hashes: Vec<u64> = (0..30)
        .map(|seed| {
            let (order, hash, events) = busy(seed);
            assert_eq!(order.len(), 15);
            assert!(events.iter().any(|event| event.contains(" b: submits operation ")), "{events:#?}");
            assert!(events.iter().any(|event| event.contains(" job 3: ends")), "{events:#?}");
            let again = busy(seed);
            assert_eq!((again.0, again.2), (order, events));
            assert_eq!(again.1, hash);
            hash
        })
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 30, "every seed has its own");
}

/// A read and a write of one number that belong together, by two threads: in how many of 60 seeds is one lost?
fn lost_updates(percent: u32) -> usize {
    let lost = |seed: &u64| {
        let scheduler = SimScheduler::new(*seed);
        scheduler.set_preempt_percent(percent);
        let number = AtomicU64::new(0);
        let body = || -> Body<'_> {
            Box::new(|| {
                for _ in 0..3 {
                    let read = number.load(Ordering::Relaxed);
                    scheduler.pause();
                    number.store(read + 1, Ordering::Relaxed);
                }
            })
        };
        run(&scheduler, vec![("one", body()), ("other", body())]);
        number.load(Ordering::Relaxed) < 6
    };
    (0..60).filter(lost).count()
}

#[test]
fn threads_are_interrupted_as_asked() {
    assert_eq!(lost_updates(0), 0);
    let lost = lost_updates(50);
    assert!((20..60).contains(&lost), "lost in {lost} of 60");
}

/// Who wakes another may find that it has gone on before the next statement.
fn overtaken(percent: u32) -> usize {
    let overtaken = |seed: &u64| {
        let (machine, storage) = Machine::sim(*seed);
        storage.scheduler().set_preempt_percent(percent);
        let (key, flag, next) = (fresh_key(), AtomicBool::new(false), AtomicBool::new(false));
        let wait: Body<'_> = Box::new(|| {
            machine.park.park_until(key, &mut || flag.load(Ordering::Relaxed));
            flag.store(next.load(Ordering::Relaxed), Ordering::Relaxed);
        });
        let set: Body<'_> = Box::new(|| {
            flag.store(true, Ordering::Relaxed);
            machine.park.wake(key);
            next.store(true, Ordering::Relaxed);
        });
        run(&storage.scheduler(), vec![("waiter", wait), ("setter", set)]);
        !flag.load(Ordering::Relaxed)
    };
    (0..60).filter(overtaken).count()
}

#[test]
fn a_wake_may_hand_over() {
    assert_eq!(overtaken(0), 0);
    assert!((5..50).contains(&overtaken(50)));
}

/// A flag that one thread waits for and another sets, with a wake or without.
fn flag(seed: u64, wakes: bool) {
    let (machine, storage) = Machine::sim(seed);
    let key = fresh_key();
    let flag = AtomicBool::new(false);
    let wait: Body<'_> = Box::new(|| machine.park.park_until(key, &mut || flag.load(Ordering::Relaxed)));
    let set: Body<'_> = Box::new(|| {
        storage.sync().wait().result.expect("synced");
        flag.store(true, Ordering::Relaxed);
        if wakes {
            machine.park.wake(key);
        }
        storage.sync().wait().result.expect("synced");
    });
    run(&storage.scheduler(), vec![("waiter", wait), ("setter", set)]);
}

#[test]
fn a_missing_wake_is_found() {
    let mut found = 0;
    for seed in 0..40 {
        flag(seed, true);
        let Err(payload) = catch_unwind(|| flag(seed, false)) else { continue };
        let text = payload.downcast_ref::<String>().expect("a text");
        assert!(text.starts_with("deadlock in the simulation: nothing is in flight or queued; "), "{text}");
        assert!(text.contains("; waiter: the wait on key ") && !text.contains("setter"), "{text}");
        found += 1;
    }
    assert!(found > 10, "found with {found} of 40 seeds");
}

#[test]
fn a_deadlock_names_all_who_wait() {
    let (machine, storage) = Machine::sim(3);
    let waits = |key| -> Body<'_> {
        let park = &machine.park;
        Box::new(move || park.park_until(key, &mut || false))
    };
    let park = Arc::clone(&machine.park);
    let _join = machine.spawn(move || park.park_until(303, &mut || false));
    let text = message(|| run(&storage.scheduler(), vec![("left", waits(101)), ("right", waits(202))]));
    for wait in ["left: the wait on key 101", "right: the wait on key 202", "job 1: the wait on key 303"] {
        assert!(text.contains(wait), "{text}");
    }
    assert!(text.contains("outside: the wait on key"), "{text}");
    // The threads are gone, and the simulation goes on.
    storage.grow(at(1)).expect("grown");
    storage.sync().wait().result.expect("synced");
    assert_eq!(machine.spawn(|| 5).wait(), 5);
}

#[test]
fn no_progress_is_a_panic() {
    let (machine, storage) = Machine::sim(3);
    storage.scheduler().set_step_max(Some(500));
    let park = machine.park.as_ref();
    let toss = |own: u64, other: u64| -> Body<'_> {
        Box::new(move || {
            park.park_until(own, &mut || {
                park.wake(other);
                false
            });
        })
    };
    let text = message(|| run(&storage.scheduler(), vec![("left", toss(1, 2)), ("right", toss(2, 1))]));
    assert!(text.starts_with("no progress in the simulation after 500 steps; "), "{text}");
    assert!(text.contains("left: ") && text.contains("right: "), "{text}");
}

/// Counts its drop, in which it waits for a sync.
struct WaitsInDrop<'a>(&'a SimStorage, &'a AtomicU32);

impl Drop for WaitsInDrop<'_> {
    fn drop(&mut self) {
        self.0.sync().wait().result.expect("synced");
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_panic_ends_all_threads() {
    for seed in 0..40 {
        let (machine, storage) = Machine::sim(seed);
        let ended = AtomicU32::new(0);
        let waits = |key| -> Body<'_> {
            let (park, storage, ended) = (&machine.park, &storage, &ended);
            Box::new(move || {
                let _waits = WaitsInDrop(storage, ended);
                park.park_until(key, &mut || false);
            })
        };
        let park = Arc::clone(&machine.park);
        let (promise, pending) = handoff::<()>(Arc::clone(&machine.park));
        let _join = machine.spawn(move || {
            park.park_until(8, &mut || false);
            drop(promise);
        });
        let panics: Body<'_> = Box::new(|| {
            let _waits = WaitsInDrop(&storage, &ended);
            storage.sync().wait().result.expect("synced");
            panic!("on purpose, seed {seed}");
        });
        let text = message(|| {
            run(&storage.scheduler(), vec![("left", waits(6)), ("right", waits(7)), ("bad", panics)])
        });
        assert_eq!(text, format!("bad panicked in the simulation: on purpose, seed {seed}"));
        assert!((1..=3).contains(&ended.load(Ordering::Relaxed)), "those that had started unwound");
        assert!(pending.is_done(), "the job too");
    }
}

/// What unwinds waits for what can never come: it is told so, the run ends all the same.
#[test]
fn a_wait_without_end_while_unwinding_returns() {
    struct Waits<'a>(&'a dyn Park);
    impl Drop for Waits<'_> {
        fn drop(&mut self) {
            self.0.park_until(77, &mut || false);
        }
    }
    let (machine, storage) = Machine::sim(1);
    let bad: Body<'_> = Box::new(|| {
        let _waits = Waits(machine.park.as_ref());
        panic!("on purpose");
    });
    let text = message(|| run(&storage.scheduler(), vec![("bad", bad)]));
    assert_eq!(text, "bad panicked in the simulation: on purpose");
}

/// Not what the panic left behind: a promise that nobody fulfilled.
#[test]
fn a_panic_of_a_job_reaches_who_waits() {
    for seed in 0..40 {
        let (machine, storage) = Machine::sim(seed);
        storage.scheduler().set_preempt_percent(80);
        let (synced, ended) = (Arc::clone(&storage), AtomicU32::new(0));
        let (promise, pending) = handoff::<()>(Arc::clone(&machine.park));
        let waits = seed % 2 == 0;
        let _join = machine.spawn(move || {
            let _waits = waits.then(|| WaitsInDrop(&synced, &ended));
            let _promise = promise;
            panic!("on purpose");
        });
        let text = message(|| assert_eq!(pending.wait(), Some(())));
        assert_eq!(text, "job 1 panicked in the simulation: on purpose");
        storage.sync().wait().result.expect("the simulation goes on");
    }
}

#[test]
fn a_panic_of_a_task_reaches_who_waits() {
    let (_machine, storage) = Machine::sim(1);
    storage.scheduler().add(Box::new(|| panic!("on purpose")));
    let text = message(|| storage.scheduler().run_all());
    assert_eq!(text, "a task panicked in the simulation: on purpose");
    let park = SimPark::new(storage.scheduler());
    storage.scheduler().add(Box::new(move || park.park_until(1, &mut || false)));
    let text = message(|| storage.scheduler().run_all());
    assert!(text.contains("a task of the simulation does not wait"), "{text}");
}

/// A job waits for what its waiter does after another wait: nested on one stack they would never end.
/// Who is interrupted with a lock that others take stops the simulation, and that is said.
#[test]
fn a_lock_across_an_interruption_is_found() {
    let (_machine, storage) = Machine::sim(1);
    let scheduler = storage.scheduler();
    scheduler.set_preempt_percent(100);
    scheduler.set_patience(Duration::from_millis(200));
    let lock = Mutex::new(0);
    let body = || -> Body<'_> {
        Box::new(|| {
            for _ in 0..20 {
                let mut locked = lock.lock();
                scheduler.pause();
                *locked += 1;
            }
        })
    };
    let text = message(|| run(&scheduler, vec![("one", body()), ("other", body())]));
    assert!(text.starts_with("the simulation stands still: "), "{text}");
    assert!(text.contains("holds the token and made no step in 200ms"), "{text}");
    assert!(text.contains("; one: can go on; other: can go on"), "{text}");
    drop(lock.try_lock().expect("all have ended"));
}

#[test]
fn jobs_wait_for_those_who_wait() {
    for seed in 0..40 {
        let (machine, _storage) = Machine::sim(seed);
        let (go, gone) = handoff::<u32>(Arc::clone(&machine.park));
        let first = machine.spawn(move || gone.wait().expect("sent"));
        let second = machine.spawn(|| 2);
        assert_eq!(second.wait(), 2);
        go.fulfil(1);
        assert_eq!(first.wait(), 1);
    }
}

#[test]
fn as_many_jobs_as_workers_are_under_way() {
    for workers in [1, 2, 5] {
        let (machine, storage) = Machine::sim(workers);
        let executor = SimExecutor::new(storage.scheduler(), usize_of(workers));
        let (started, active, most) =
            (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
        let most = Arc::new(most);
        let pending: Vec<_> = (0..12_u32)
            .map(|job| {
                let (promise, pending) = handoff(Arc::clone(&machine.park));
                let (storage, started) = (Arc::clone(&machine.storage), Arc::clone(&started));
                let (active, most) = (Arc::clone(&active), Arc::clone(&most));
                executor.submit(Box::new(move || {
                    started.lock().push(job);
                    most.fetch_max(active.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    storage.sync().wait().result.expect("synced");
                    storage.sync().wait().result.expect("synced");
                    active.fetch_sub(1, Ordering::Relaxed);
                    promise.fulfil(());
                }));
                pending
            })
            .collect();
        assert_eq!(storage.scheduler().pending(), 12);
        pending.into_iter().for_each(|pending| pending.wait().expect("done"));
        assert_eq!(most.load(Ordering::Relaxed), workers);
        let started = started.lock();
        let early = started
            .iter()
            .zip(0..)
            .all(|(job, place)| job.abs_diff(place) <= u32::try_from(workers).expect("few"));
        assert!(early, "{workers} workers take jobs in their order: {started:?}");
    }
}

#[test]
fn the_end_of_a_simulation_ends_its_jobs() {
    let (machine, storage) = Machine::sim(5);
    let (promises, pending): (Vec<_>, Vec<_>) =
        (0..4).map(|_| handoff::<()>(Arc::clone(&machine.park))).unzip();
    for promise in promises {
        let park = Arc::clone(&machine.park);
        let _join = machine.spawn(move || {
            park.park_until(9, &mut || false);
            promise.fulfil(());
        });
    }
    storage.scheduler().run_all();
    assert!(pending.iter().all(|pending| !pending.is_done()));
    storage.scheduler().shut_down();
    assert!(pending.iter().all(crate::Pending::is_done));
    assert!(pending.into_iter().all(|pending| pending.wait().is_none()));
    let debug = format!("{:?}", storage.scheduler());
    assert!(debug.contains("threads: 0") && debug.contains("pending: 0"), "{debug}");
    storage.scheduler().shut_down();
}

#[test]
fn time_moves_on_when_nothing_else_can() {
    let (machine, storage) = Machine::sim(5);
    let order = Arc::new(Mutex::new(Vec::new()));
    for seconds in [30, 10, 20] {
        let order = Arc::clone(&order);
        storage
            .scheduler()
            .add_after(Duration::from_secs(seconds), Box::new(move || order.lock().push(seconds)));
    }
    storage.sync().wait().result.expect("synced");
    assert!(machine.clock.now() < Duration::from_secs(1) && order.lock().is_empty());
    storage.scheduler().run_all();
    assert_eq!(*order.lock(), [10, 20, 30]);
    assert!(machine.clock.now() >= Duration::from_secs(30));
}

#[test]
#[should_panic(expected = "threads are run from outside the simulation")]
fn threads_do_not_run_threads() {
    let scheduler = SimScheduler::new(1);
    let inner: Body<'_> = Box::new(|| run(&scheduler, Vec::new()));
    run(&scheduler, vec![("outer", inner)]);
}

/// A simulation inside another, and none at all.
#[test]
fn simulations_do_not_meet() {
    run(&SimScheduler::new(1), Vec::new());
    let scheduler = SimScheduler::new(1);
    let body = || -> Body<'_> { Box::new(|| assert_eq!(busy(4).0.len(), 15)) };
    run(&scheduler, vec![("a", body()), ("b", body())]);
}

/// Threads that the simulation does not know may use it together, in whatever order the system has them.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test races real threads")]
fn real_threads_share_a_simulation() {
    for seed in 0..20 {
        let (machine, storage) = Machine::sim(seed);
        storage.grow(at(SECTORS)).expect("grown");
        let buffers = pool(1, 8);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (machine, buffers) = (&machine, &buffers);
                scope.spawn(move || {
                    for _ in 0..20 {
                        let buffer = buffers.take().expect("one each");
                        machine.storage.read(at(thread), buffer).wait().result.expect("read");
                        let storage = Arc::clone(&machine.storage);
                        machine.spawn(move || storage.sync().wait().result.expect("synced")).wait();
                    }
                });
            }
        });
        assert_eq!((storage.counters().reads, storage.counters().syncs), (80, 80));
    }
}
