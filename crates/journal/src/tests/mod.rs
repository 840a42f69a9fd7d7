//! The journal on the simulated machine: a model of what was promised, and what recovery finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use understory_format::{Checksum, Geometry, Op, PartHeader, RecordKind, TreeId, part_size};
use understory_io::{Arena, Machine, Pool, SimOptions, SimStorage};

use crate::{GroupBuilder, Head, Journal, JournalError, Mark, Replay, Start, format, scan};

mod chain;
mod crash;
mod damage;
mod forged;
mod running;

const SECTOR: u64 = 4096;

/// Groups of up to 4 sectors in a ring of so many. Too small a ring for a database, large enough here.
fn geometry(sectors: u64) -> Geometry {
    Geometry {
        block_size: 4096,
        share_size: 12 << 10,
        batch_size_max: 12 << 10,
        journal_size: sectors * SECTOR,
        ..Geometry::small()
    }
}

fn machine_of(image: Vec<u8>, seed: u64) -> (Machine, Arc<SimStorage>) {
    let storage = Arc::new(SimStorage::from_image(image, SimOptions::seeded(seed)));
    (storage.machine(), storage)
}

fn formatted(geometry: &Geometry, seed: u64) -> (Machine, Arc<SimStorage>) {
    let (machine, storage) = Machine::sim(seed);
    format(&machine, geometry).unwrap();
    (machine, storage)
}

/// The superblock of a new file.
fn fresh() -> Start {
    Start {
        position: 0,
        hash: Checksum::ZERO,
        op_flushed: Op::ZERO,
        op_checkpoint: Op::ZERO,
        head_op: Op::ZERO,
        head_hash: Checksum::ZERO,
        incarnation: 0,
    }
}

fn scan_quietly(machine: &Machine, geometry: &Geometry, start: &Start) -> Result<Head, JournalError> {
    let mut done = 0;
    scan(machine, geometry, start, &mut |progress| {
        assert!(progress.done >= done && progress.done <= geometry.journal_size);
        assert_eq!(progress.total, geometry.journal_size);
        done = progress.done;
    })
}

/// The body of an op: none for a close, else one part with one value.
fn body(op: u64, incarnation: u64, random: &mut fastrand::Rng) -> Vec<u8> {
    if random.u8(0..8) == 0 {
        return Vec::new();
    }
    let size = if random.u8(0..4) == 0 { random.u32(1..9000) } else { random.u32(1..200) };
    let mut body = vec![0; usize::try_from(part_size(size, 1, op.is_multiple_of(3))).unwrap()];
    let header = PartHeader {
        tree: TreeId::new(1).unwrap(),
        value_size: size,
        count: 1,
        has_tombstones: op.is_multiple_of(3),
    };
    let (mut slots, rest) = header.start(&mut body);
    assert!(rest.is_empty());
    if op.is_multiple_of(3) {
        slots.set_tombstone(0);
    }
    let mut contents = fastrand::Rng::with_seed(op << 20 ^ incarnation);
    contents.fill(slots.value(0));
    body
}

fn push(builder: &mut GroupBuilder, body: &[u8]) -> Op {
    let size = u64::try_from(body.len()).unwrap();
    match size {
        0 => builder.push(RecordKind::Close, 0, 0, |_| ()),
        _ => builder.push(RecordKind::Batch, 1, size, |bytes| bytes.copy_from_slice(body)),
    }
}

/// What a file must hold, and its superblock: durable at once, as the grid's would be.
#[derive(Clone, Debug)]
struct World {
    geometry: Geometry,
    superblock: Start,
    /// The bodies of all ops from 1 on that may be found.
    ops: Vec<Vec<u8>>,
    /// The last op that must be found.
    promised: u64,
    /// Where a replay starts behind each op that is not flushed.
    marks: BTreeMap<u64, Mark>,
    /// Recovery has begun and not ended: it may have made durable what was not promised.
    recovering: bool,
}

/// How a session behaves.
#[derive(Clone, Copy, Debug)]
struct Habits {
    /// Of 8 groups, so many are synced.
    sync: u8,
    witness: u8,
    checkpoint: u8,
}

const SYNCED: Habits = Habits { sync: 8, witness: 1, checkpoint: 1 };
const BUFFERED: Habits = Habits { sync: 2, witness: 1, checkpoint: 1 };

/// An open journal, and the buffers of its groups.
struct Session {
    journal: Journal,
    groups: Pool,
}

impl World {
    fn new(geometry: Geometry) -> Self {
        let (ops, marks) = (Vec::new(), BTreeMap::new());
        Self { geometry, superblock: fresh(), ops, promised: 0, marks, recovering: false }
    }

    /// Both passes of recovery, checked against what was promised; then the superblock is written.
    fn recover(&mut self, machine: &Machine) -> Result<Head, JournalError> {
        self.recovering = true;
        let head = scan_quietly(machine, &self.geometry, &self.superblock)?;
        assert!(head.op.get() >= self.promised, "{head:?} and {} promised", self.promised);
        self.replay(machine, &head)?;
        self.accept(&head);
        self.recovering = false;
        Ok(head)
    }

    /// Replays up to the head; everything is what was written.
    fn replay(&mut self, machine: &Machine, head: &Head) -> Result<(), JournalError> {
        let mut op = self.superblock.op_flushed;
        let mut marks = BTreeMap::from([(
            op.get(),
            Mark { position: self.superblock.position, hash: self.superblock.hash },
        )]);
        let mut replay = Replay::new(machine, &self.geometry, &self.superblock, head)?;
        while let Some(group) = replay.next_group()? {
            assert_eq!(group.first_op(), op.next());
            for (record, mark) in group.records() {
                assert_eq!(record.op, op.next(), "ops follow one another");
                op = record.op;
                let expected = &self.ops[usize::try_from(op.get() - 1).unwrap()];
                assert_eq!(record.body, expected, "{op}");
                let kind = if expected.is_empty() { RecordKind::Close } else { RecordKind::Batch };
                assert_eq!(record.kind, kind);
                marks.insert(op.get(), mark);
            }
            assert_eq!(group.last_op(), op);
        }
        assert_eq!(op, head.op, "what was accepted was replayed");
        self.marks = marks;
        Ok(())
    }

    /// The superblock with this head.
    fn accept(&mut self, head: &Head) {
        self.superblock.incarnation += 1;
        self.superblock.head_op = head.op;
        self.superblock.head_hash = head.hash;
        self.ops.truncate(usize::try_from(head.op.get()).unwrap());
        self.promised = head.op.get();
    }

    fn begin(&self, machine: &Machine, head: &Head) -> Session {
        let size = Journal::arena_size(&self.geometry).unwrap();
        let group = usize::try_from(Journal::group_size_max(&self.geometry)).unwrap();
        let arena = Arena::new(size + Arena::needed(group, 2).unwrap()).unwrap();
        let (tail, incarnation) = (self.superblock.position, self.superblock.incarnation);
        let journal =
            Journal::begin(machine.clone(), &arena, &self.geometry, head, tail, incarnation).unwrap();
        assert_eq!(journal.head(), Mark { position: head.position, hash: head.hash });
        Session { journal, groups: arena.pool(group, 2).unwrap() }
    }

    /// Writes some groups, as the habits are.
    fn work(
        &mut self,
        session: &Session,
        habits: Habits,
        groups: u32,
        random: &mut fastrand::Rng,
    ) -> Result<(), JournalError> {
        for _ in 0..groups {
            self.write(session, random)?;
            if random.u8(0..8) < habits.sync {
                self.sync(session)?;
            }
            if random.u8(0..8) < habits.witness {
                self.witness(session)?;
            }
            if random.u8(0..8) < habits.checkpoint {
                self.checkpoint(session, random);
            }
        }
        Ok(())
    }

    fn write(&mut self, session: &Session, random: &mut fastrand::Rng) -> Result<(), JournalError> {
        let first = session.journal.written_op().next();
        let mut builder = GroupBuilder::new(session.groups.take().unwrap(), first);
        assert!(builder.is_empty());
        self.ops.truncate(usize::try_from(first.get() - 1).unwrap());
        for _ in 0..random.u32(1..5) {
            let op = u64::try_from(self.ops.len()).unwrap() + 1;
            let body = body(op, self.superblock.incarnation, random);
            if !builder.fits(u64::try_from(body.len()).unwrap()) {
                break;
            }
            assert_eq!(push(&mut builder, &body).get(), op);
            self.ops.push(body);
        }
        if session.journal.room() < builder.size() {
            self.sync(session)?;
            self.flush(session, self.promised, self.promised);
        }
        let (size, count) = (builder.size(), builder.op_count());
        let group = session.journal.write(builder, Checksum::of(b"checkpoint"))?;
        assert_eq!((group.size(), group.records().count()), (size, usize::try_from(count).unwrap()));
        self.marks.extend(group.records().map(|(record, mark)| (record.op.get(), mark)));
        assert_eq!(session.journal.written_op(), group.last_op());
        Ok(())
    }

    fn sync(&mut self, session: &Session) -> Result<(), JournalError> {
        session.journal.sync()?;
        assert_eq!(session.journal.synced_op(), session.journal.written_op());
        self.promised = session.journal.synced_op().get();
        Ok(())
    }

    fn witness(&mut self, session: &Session) -> Result<(), JournalError> {
        self.sync(session)?;
        session.journal.witness()
    }

    /// A checkpoint of some op that is durable, with some op before it as the last flushed one.
    fn checkpoint(&mut self, session: &Session, random: &mut fastrand::Rng) {
        let checkpoint = random.u64(self.superblock.op_checkpoint.get()..=self.promised);
        let flushed = random.u64(self.superblock.op_flushed.get()..=checkpoint);
        self.flush(session, flushed, checkpoint);
    }

    fn flush(&mut self, session: &Session, flushed: u64, checkpoint: u64) {
        let mark = self.marks[&flushed];
        self.superblock.position = mark.position;
        self.superblock.hash = mark.hash;
        self.superblock.op_flushed = Op::new(flushed);
        self.superblock.op_checkpoint = Op::new(checkpoint);
        session.journal.release(mark.position);
        self.marks.retain(|op, _| *op >= flushed);
    }

    /// Recovery, some groups, and perhaps a lone witness at the end.
    fn session(
        &mut self,
        machine: &Machine,
        habits: Habits,
        groups: u32,
        random: &mut fastrand::Rng,
    ) -> Result<Session, JournalError> {
        let head = self.recover(machine)?;
        let session = self.begin(machine, &head);
        self.work(&session, habits, groups, random)?;
        Ok(session)
    }
}
