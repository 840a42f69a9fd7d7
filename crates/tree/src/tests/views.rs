//! What a read sees while others write: what was published when it began, or, if it takes too long, an error.

use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;
use parking_lot::Mutex;
use understory_table::TableError;
use understory_testkit::{KeyPool, KeyShape, Pair, Quad, TestRecord, key_range};

use super::*;
use crate::{Publication, Scan};

pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Ascending, Direction::Descending];

pub(super) fn all<K: Key>() -> KeyRange<K> {
    KeyRange::new(K::MIN, K::MAX).unwrap()
}

/// A scan under way, with what it has still to give.
struct Reading<'a, R: TestRecord> {
    scan: Scan<'a, R>,
    expected: std::vec::IntoIter<(R::Key, u64)>,
    /// Swaps of memtables before it began.
    swaps: u64,
}

impl<'a, R: TestRecord> Reading<'a, R> {
    fn begin(
        tree: &'a Tree<R>,
        model: &BTreeMap<R::Key, u64>,
        (min, max): (R::Key, R::Key),
        direction: Direction,
        swaps: u64,
    ) -> Self {
        let mut expected: Vec<_> = model.range(min..=max).map(|(key, version)| (*key, *version)).collect();
        if !direction.is_ascending() {
            expected.reverse();
        }
        let scan = tree.scan(KeyRange::new(min, max).unwrap(), direction);
        Self { scan, expected: expected.into_iter(), swaps }
    }

    /// Reads up to `count` records; whether it can go on, or why not.
    fn go_on(&mut self, count: usize) -> Result<bool, TableError> {
        for _ in 0..count {
            match (self.scan.next()?, self.expected.next()) {
                (Some(record), Some((key, version))) => {
                    assert_eq!(record.key(), key);
                    record.expect(key, version);
                }
                (None, None) => return Ok(false),
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            }
        }
        Ok(true)
    }

    /// Reads to the end.
    fn finish(mut self) {
        assert!(!self.go_on(usize::MAX).unwrap());
    }

    /// Reads until it has expired, and after.
    fn expire(mut self) {
        for _ in 0..3 {
            assert!(matches!(self.go_on(usize::MAX), Err(TableError::Expired)));
        }
    }
}

/// A reading of all.
fn whole<'a, R: TestRecord>(
    tree: &'a Tree<R>,
    model: &BTreeMap<R::Key, u64>,
    direction: Direction,
) -> Reading<'a, R> {
    Reading::begin(tree, model, (R::Key::MIN, R::Key::MAX), direction, 0)
}

/// Puts without publishing; the model is told.
fn put_unseen(rig: &mut Rig<Pair>, key: u64, tombstone: bool) {
    rig.version += 1;
    rig.tree.put(&Pair::make(key, rig.version), tombstone).unwrap();
    if tombstone {
        rig.model.remove(&key);
    } else {
        rig.model.insert(key, rig.version);
    }
}

fn publish(rig: &Rig<Pair>) {
    rig.tree.publish();
}

/// What was published is what the model was then; afterwards, what it is now.
fn check_published(rig: &Rig<Pair>, published: &BTreeMap<u64, u64>) {
    for key in 0..40 {
        let found = rig.tree.get(key).unwrap();
        assert_eq!(found.is_some(), published.contains_key(&key), "key {key}");
        if let Some(record) = found {
            record.expect(key, published[&key]);
        }
    }
    DIRECTIONS.into_iter().for_each(|direction| whole(&rig.tree, published, direction).finish());
}

/// Values that were not published yet are not there, wherever they are: in the open beat, in a run, in the memtable that
/// waits to be flushed; on top of nothing, of values and of tombstones, once or many times.
#[test]
fn what_is_not_published_is_not_seen() {
    let mut rig = Rig::<Pair>::new(Geometry::small());
    (0..40).step_by(3).for_each(|key| put_unseen(&mut rig, key, false));
    check_published(&rig, &BTreeMap::new());
    (0..40).step_by(6).for_each(|key| put_unseen(&mut rig, key, true));
    publish(&rig);
    let published = rig.model.clone();
    check_published(&rig, &published);
    for round in 0..50 {
        put_unseen(&mut rig, 6, round % 3 == 0);
        put_unseen(&mut rig, 7, round % 2 == 0);
        put_unseen(&mut rig, 9, false);
        put_unseen(&mut rig, 12, true);
    }
    (30..40).for_each(|key| put_unseen(&mut rig, key, key % 2 == 0));
    check_published(&rig, &published);
    rig.close_beat();
    check_published(&rig, &published);
    rig.end_bar();
    check_published(&rig, &published);
    // Also in the next memtable nothing is seen before its time.
    put_unseen(&mut rig, 0, true);
    put_unseen(&mut rig, 1, false);
    check_published(&rig, &published);
    publish(&rig);
    let published = rig.model.clone();
    check_published(&rig, &published);
    put_unseen(&mut rig, 1, true);
    check_published(&rig, &published);
    rig.push(0);
    check_published(&rig, &published);
}

#[test]
#[should_panic(expected = "what is flushed was published")]
fn what_is_not_published_is_not_flushed() {
    let mut rig = Rig::<Pair>::new(Geometry::small());
    put_unseen(&mut rig, 1, false);
    rig.end_bar();
    rig.push(0);
}

/// To the bar, how long a scan may take whose values are all in memory.
#[test]
fn a_scan_may_go_on_for_two_swaps() {
    for direction in DIRECTIONS {
        let mut rig = Rig::<Pair>::new(Geometry::small());
        let tree = Arc::clone(&rig.tree);
        // More than is gathered at once.
        (0..400).for_each(|key| rig.put(2 * key));
        rig.end_bar();
        (0..400).for_each(|key| rig.put(2 * key + 1));
        let begin = |rig: &Rig<Pair>| {
            let mut reading = whole(&tree, &rig.model, direction);
            assert!(reading.go_on(3).unwrap());
            reading
        };
        // Two in a row sees both memtables; the other asks for nothing before it is late.
        let (mut slow, idle) = (begin(&rig), whole(&tree, &rig.model, direction));
        let (in_time, too_late, done) = (begin(&rig), begin(&rig), begin(&rig));
        (300..500).for_each(|key| rig.put(key));
        assert!(slow.go_on(50).unwrap());
        rig.push(0);
        assert!(slow.go_on(50).unwrap());
        done.finish();
        rig.end_bar();
        assert!(slow.go_on(50).unwrap());
        (100..700).for_each(|key| rig.remove(key));
        rig.push(0);
        assert!(slow.go_on(50).unwrap());
        in_time.finish();
        rig.end_bar();
        // The older memtable is used again.
        (0..800).for_each(|key| rig.put(key));
        slow.expire();
        too_late.expire();
        idle.expire();
        whole(&tree, &rig.model, direction).finish();
    }
}

/// A scan that has all it needs is not disturbed, nor is one of tables alone.
#[test]
fn a_scan_expires_only_if_it_must() {
    let mut rig = Rig::<Pair>::new(Geometry { share_size: 1 << 18, ..Geometry::small() });
    let tree = Arc::clone(&rig.tree);
    (0..3_000).for_each(|key| rig.put(3 * key));
    rig.end_bar();
    rig.push(0);
    rig.push(1);
    // The memtable holds nothing that is seen, or so little that it is gathered at once.
    let tables_only = whole(&tree, &rig.model, Direction::Ascending);
    rig.put(50);
    rig.remove(9_000 - 3);
    let mut gathered = whole(&tree, &rig.model, Direction::Descending);
    assert!(gathered.go_on(10).unwrap());
    for bar in 0..4 {
        (0..500).for_each(|key| rig.put(3 * key + bar));
        rig.end_bar();
        rig.push(0);
    }
    tables_only.finish();
    gathered.finish();
}

fn write_some<R: TestRecord>(rig: &mut Rig<R>, rng: &mut Rng, keys: &KeyPool<R::Key>, puts: u32) {
    for _ in 0..rng.u32(..=puts) {
        let key = if rng.bool() { keys.pick_hot(rng) } else { keys.pick(rng) };
        if rng.u8(..4) == 0 { rig.remove(key) } else { rig.put(key) }
    }
}

/// Random histories with scans of any age beside them; how many came to their end, and how many expired.
fn check_history<R: TestRecord>(geometry: Geometry, seed: u64, bars: u32, puts: u32) -> [u64; 2] {
    let mut rng = Rng::with_seed(seed);
    let keys = KeyPool::<R::Key>::new(&mut rng, KeyShape::Mixed, 700);
    let mut rig = Rig::<R>::new(geometry);
    let tree = Arc::clone(&rig.tree);
    let mut readings: Vec<Reading<'_, R>> = Vec::new();
    let (mut swaps, mut ended, mut expired) = (0, 0, 0);
    for half in 0..2 * bars {
        let targets: &[u8] = if half % 2 == 0 { &[1] } else { &[0, 2] };
        let jobs: Vec<_> = targets.iter().flat_map(|target| rig.jobs(*target, 1)).collect();
        for _ in 0..8 {
            write_some(&mut rig, &mut rng, &keys, puts);
            if readings.len() < 30 {
                let direction = DIRECTIONS[rng.usize(..2)];
                let range = if rng.bool() { (R::Key::MIN, R::Key::MAX) } else { key_range(&mut rng, &keys) };
                readings.push(Reading::begin(&tree, &rig.model, range, direction, swaps));
            }
            readings.retain_mut(|reading| match reading.go_on(rng.usize(..20)) {
                Ok(is_left) => {
                    ended += u64::from(!is_left);
                    is_left
                }
                Err(TableError::Expired) => {
                    assert!(swaps - reading.swaps >= 2, "no scan expires in its own bar or the next");
                    expired += 1;
                    false
                }
                Err(error) => panic!("{error}"),
            });
        }
        rig.close_beat();
        for mut job in jobs {
            let quota = job.remaining();
            rig.run(&mut *job, quota);
            rig.apply(job);
        }
        if half % 2 == 1 {
            swaps += 1;
            rig.tree.swap_memtables();
        }
        rig.check_all();
    }
    [ended, expired]
}

#[test]
fn scans_of_any_age_see_their_moment() {
    let geometry = Geometry { table_blocks: 1, ..Geometry::small() };
    let mut counts = [0, 0];
    for seed in 0..4 {
        let [ended, expired] = check_history::<Pair>(geometry, seed, 14, 100);
        counts = [counts[0] + ended, counts[1] + expired];
    }
    let [ended, expired] = check_history::<Quad>(geometry, 9, 14, 60);
    assert!(ended + counts[0] > 200 && expired + counts[1] > 100, "{ended} {expired} {counts:?}");
}

/// Of several trees that are published together none is ahead of another: see also `beside`.
#[test]
fn a_reader_waits_for_a_publication() {
    let publication = Publication::default();
    let order = Mutex::new(Vec::new());
    let is_in = AtomicBool::new(false);
    #[expect(clippy::disallowed_methods, reason = "the subject is threads")]
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_in.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            publication.capture(|| ());
            order.lock().push("captured");
        });
        publication.publish(|| {
            is_in.store(true, Ordering::Release);
            std::thread::sleep(std::time::Duration::from_millis(30));
            order.lock().push("published");
        });
        reader.join().unwrap();
    });
    assert_eq!(*order.lock(), ["published", "captured"]);
    // And one that was interrupted captures again.
    let mut captures = 0;
    publication.capture(|| {
        captures += 1;
        if captures < 3 {
            publication.publish(|| ());
        }
    });
    assert_eq!(captures, 3);
}
