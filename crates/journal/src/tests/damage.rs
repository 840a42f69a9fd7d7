//! Damage of each byte and sector: what recovery says is foretold by a second, slower judgement from the undamaged
//! image.

use std::ops::Range;
use std::slice::from_ref;

use understory_format::GroupHeader;
use understory_io::{CrashPolicy, IoCause};

use super::*;
use crate::{Evidence, Fault};

/// Bytes of a header.
const HEADER: usize = 192;

/// An image, what its superblock says, and the groups in it.
struct Case {
    world: World,
    image: Vec<u8>,
    /// The groups that count, and lone witnesses behind them.
    chain: Vec<GroupHeader>,
    /// All groups of the last incarnation that stand where they say.
    all: Vec<GroupHeader>,
    head: Head,
}

/// What recovery must say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The head's op.
    Head(u64),
    /// First and last lost op, and the last good one.
    Damaged(u64, u64, u64),
}

impl Case {
    fn new(world: World, image: Vec<u8>) -> Self {
        let (machine, _) = machine_of(image.clone(), 1);
        let head = scan_quietly(&machine, &world.geometry, &world.superblock).unwrap();
        world.clone().replay(&machine, &head).unwrap();
        let mut case = Self { world, image, chain: Vec::new(), all: Vec::new(), head };
        let start = case.world.superblock;
        let limit = start.position + case.world.geometry.journal_size;
        let (mut position, mut parent) = (start.position, start.hash);
        while let Some((header, hash)) = case.group(position).filter(|_| position < limit) {
            let is_leftover = position >= head.position && header.incarnation != start.incarnation;
            let is_torn = position >= head.position && header.op_count > 0;
            if header.parent != parent || is_leftover || is_torn {
                break;
            }
            case.chain.push(header);
            (position, parent) = (header.end(), hash);
        }
        for position in (start.position..limit).step_by(4096) {
            let header = case.group(position).map(|(header, _)| header);
            case.all.extend(header.filter(|header| header.incarnation == start.incarnation));
        }
        case
    }

    /// Offset in the image.
    fn offset(&self, position: u64) -> usize {
        let in_ring = position % self.world.geometry.journal_size;
        usize::try_from(self.world.geometry.journal_offset() + in_ring).unwrap()
    }

    fn ring(&self) -> Range<usize> {
        let start = self.offset(0);
        start..start + usize::try_from(self.world.geometry.journal_size).unwrap()
    }

    fn group(&self, position: u64) -> Option<(GroupHeader, Checksum)> {
        let header = GroupHeader::decode(&self.image[self.offset(position)..]).ok();
        header.filter(|(header, _)| header.position == position)
    }

    /// Whether one of these bytes of the image belongs to a part of a group, from its start.
    fn hits(&self, header: &GroupHeader, size: u64, bytes: &[Range<usize>]) -> bool {
        (0..size).step_by(64).any(|at| {
            let start = self.offset(header.position + at);
            bytes.iter().any(|bytes| bytes.start < start + 64 && start < bytes.end)
        })
    }

    /// The verdict on the image with these bytes damaged.
    fn foretell(&self, damaged: &[Range<usize>]) -> Verdict {
        let start = self.world.superblock;
        let mut last_good = start.op_flushed.get();
        let mut bad = None;
        for group in &self.chain {
            if self.hits(group, group.size.into(), damaged) {
                bad = Some(group);
                break;
            }
            if group.op_count > 0 {
                last_good = group.op_next().get() - 1;
            }
        }
        let Some(bad) = bad else { return Verdict::Head(self.head.op.get()) };
        let seen = self.all.iter().filter(|group| {
            group.position >= bad.position && !self.hits(group, u64::try_from(HEADER).unwrap(), damaged)
        });
        let witness = seen.map(|group| group.witness_op.get()).max().unwrap_or(0);
        let acknowledged = witness.max(start.head_op.get()).max(start.op_checkpoint.get());
        if acknowledged > last_good {
            Verdict::Damaged(last_good + 1, acknowledged, last_good)
        } else {
            Verdict::Head(last_good)
        }
    }

    /// What recovery says of another image; what it accepts is replayed and compared.
    fn judge(&self, machine: &Machine) -> Verdict {
        let mut world = self.world.clone();
        match scan_quietly(machine, &world.geometry, &world.superblock) {
            Ok(head) => {
                world.replay(machine, &head).unwrap();
                Verdict::Head(head.op.get())
            }
            Err(JournalError::Damaged { first, last, last_good, evidence, position, .. }) => {
                assert!(position >= last_good.position);
                let superblock = world.superblock.head_op.max(world.superblock.op_checkpoint);
                assert_eq!(evidence == Evidence::Superblock, last == superblock);
                if last_good.op >= world.superblock.op_flushed {
                    world.replay(machine, &last_good).unwrap();
                }
                Verdict::Damaged(first.get(), last.get(), last_good.op.get())
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn check(&self, image: Vec<u8>, damaged: &[Range<usize>]) -> Verdict {
        let found = self.judge(&machine_of(image, 1).0);
        assert_eq!(found, self.foretell(damaged), "{damaged:?}");
        found
    }
}

/// Images: all synced and closed; several incarnations and a lap; groups that were not synced, torn ones behind.
fn cases() -> Vec<Case> {
    let often = Habits { sync: 3, witness: 3, checkpoint: 0 };
    let torn = |habits, groups| {
        let mut cases = (0..).map(|seed| case(seed, habits, groups, false));
        cases.find(|case| case.head.torn).expect("some seed tears a group")
    };
    vec![
        case(1, SYNCED, [5, 4, 6], true),
        case(2, Habits { checkpoint: 0, ..SYNCED }, [9, 9, 9], true),
        torn(BUFFERED, [5, 4, 6]),
        torn(often, [8, 7, 6]),
        idle(),
    ]
}

/// What was never synced is accepted by an opening after which nothing is written.
fn idle() -> Case {
    let geometry = geometry(16);
    let (machine, storage) = formatted(&geometry, 1);
    let mut world = World::new(geometry);
    let never = Habits { sync: 0, witness: 0, checkpoint: 0 };
    for groups in [3, 0] {
        drop(world.session(&machine, never, groups, &mut fastrand::Rng::with_seed(1)).unwrap());
    }
    Case::new(world, storage.image())
}

/// Three sessions; then the file is closed, or a fourth one ends by a crash.
fn case(seed: u64, habits: Habits, sizes: [u32; 3], closes: bool) -> Case {
    let mut random = fastrand::Rng::with_seed(seed);
    let geometry = geometry(16);
    let (machine, storage) = formatted(&geometry, seed);
    let mut world = World::new(geometry);
    for groups in sizes {
        let session = world.session(&machine, habits, groups, &mut random).unwrap();
        if closes {
            world.witness(&session).unwrap();
        }
    }
    if !closes {
        let session = world.session(&machine, habits, 2, &mut random).unwrap();
        world.sync(&session).unwrap();
        world.work(&session, Habits { sync: 0, witness: 0, ..habits }, 3, &mut random).unwrap();
        storage.crash(CrashPolicy::KeepSubset(seed));
    }
    Case::new(world, storage.image())
}

#[test]
fn the_cases_are_what_they_should_be() {
    let cases = cases();
    let has_lap = |case: &Case| case.world.superblock.position > case.world.geometry.journal_size;
    assert!(cases.iter().any(has_lap), "some are past the first lap");
    assert!(cases.iter().all(|case| case.chain.len() >= 3), "all have some groups");
    let incarnations = |case: &Case| {
        case.chain.iter().map(|group| group.incarnation).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert!(cases.iter().any(|case| incarnations(case) > 1), "some are of several incarnations");
    assert!(cases.iter().any(|case| case.head.torn), "some have torn ends");
    assert!(cases.iter().any(|case| case.chain.iter().any(|group| group.op_count == 0)));
    for case in &cases {
        assert_eq!(case.foretell(&[]), Verdict::Head(case.head.op.get()));
        let last = case.chain.iter().rfind(|group| group.op_count > 0).unwrap();
        assert_eq!(last.end(), case.head.position);
    }
}

#[test]
fn each_byte_flipped() {
    let (mut heads, mut damaged) = (0, 0);
    for case in cases() {
        for at in case.ring() {
            // Every byte of headers and of what is near them, a part of the rest.
            if at % 4096 >= 280 && at % 29 != 0 && at % 4096 < 4092 {
                continue;
            }
            let mut image = case.image.clone();
            image[at] ^= if at % 2 == 0 { 0x01 } else { 0xff };
            match case.check(image, from_ref(&(at..at + 1))) {
                Verdict::Head(_) => heads += 1,
                Verdict::Damaged(..) => damaged += 1,
            }
        }
    }
    assert!(heads > 5000 && damaged > 5000, "{heads} {damaged}");
}

#[test]
fn sectors_zeroed_and_filled() {
    for case in cases() {
        for first in case.ring().step_by(4096) {
            for second in case.ring().step_by(4096) {
                for fill in [0, 0xa5] {
                    let mut image = case.image.clone();
                    let damaged = [first..first + 4096, second..second + 4096];
                    let mut changed = Vec::new();
                    for range in damaged {
                        if image[range.clone()].iter().any(|&byte| byte != fill) {
                            image[range.clone()].fill(fill);
                            changed.push(range);
                        }
                    }
                    case.check(image, &changed);
                }
            }
        }
    }
}

#[test]
fn sectors_swapped_and_doubled() {
    for case in cases() {
        for first in case.ring().step_by(4096) {
            for second in case.ring().step_by(4096) {
                let (a, b) = (first..first + 4096, second..second + 4096);
                if case.image[a.clone()] == case.image[b.clone()] {
                    continue;
                }
                let mut doubled = case.image.clone();
                doubled.copy_within(a.clone(), second);
                case.check(doubled.clone(), from_ref(&b));
                let mut swapped = doubled;
                swapped[a.clone()].copy_from_slice(&case.image[b.clone()]);
                case.check(swapped, &[a, b]);
            }
        }
    }
}

/// Sectors that were not written though they should have been: those of earlier in the file's life are still there.
#[test]
fn lost_writes_are_damage() {
    let geometry = geometry(16);
    let (machine, storage) = formatted(&geometry, 5);
    let mut world = World::new(geometry);
    let mut random = fastrand::Rng::with_seed(5);
    let mut before = storage.image();
    for _ in 0..12 {
        let session = world.session(&machine, SYNCED, 4, &mut random).unwrap();
        world.witness(&session).unwrap();
        drop(session);
        let case = Case::new(world.clone(), storage.image());
        for sector in case.ring().step_by(4096) {
            let range = sector..sector + 4096;
            if before[range.clone()] == case.image[range.clone()] {
                continue;
            }
            let mut image = case.image.clone();
            image[range.clone()].copy_from_slice(&before[range.clone()]);
            case.check(image, from_ref(&range));
        }
        before = storage.image();
    }
}

/// Damage that nobody can know of is only that of groups that no later one witnesses.
#[test]
fn what_was_witnessed_is_never_silently_lost() {
    for case in cases() {
        for (index, group) in case.chain.iter().enumerate() {
            let behind = &case.chain[index + 1..];
            let witnessed = behind.iter().any(|later| {
                later.incarnation == case.world.superblock.incarnation
                    && later.witness_op.get() + 1 >= group.op_next().get()
            });
            if !witnessed || group.op_count == 0 {
                continue;
            }
            let at = case.offset(group.position) + 200;
            let mut image = case.image.clone();
            image[at] ^= 1;
            let found = case.check(image, from_ref(&(at..at + 1)));
            assert!(matches!(found, Verdict::Damaged(..)), "{found:?}");
        }
    }
}

/// Sectors that cannot be read are as bad as wrong ones, and no worse: what is beside them is saved.
#[test]
fn sectors_that_cannot_be_read() {
    for case in cases() {
        for first in case.ring().step_by(4096) {
            for second in case.ring().step_by(4096) {
                let damaged = [first..first + 4096, second..second + 4096];
                let (machine, storage) = machine_of(case.image.clone(), 1);
                for range in &damaged {
                    let at = u64::try_from(range.start).unwrap();
                    storage.add_unreadable(at..at + 4096);
                }
                assert_eq!(case.judge(&machine), case.foretell(&damaged), "{damaged:?}");
            }
        }
    }
}

#[test]
fn the_fault_says_what_cannot_be_read() {
    let case = &cases()[0];
    for group in &case.chain[..2] {
        for at in (group.position..group.end()).step_by(4096) {
            let (machine, storage) = machine_of(case.image.clone(), 1);
            let offset = u64::try_from(case.offset(at)).unwrap();
            storage.add_unreadable(offset..offset + 4096);
            let error = scan_quietly(&machine, &case.world.geometry, &case.world.superblock).unwrap_err();
            let JournalError::Damaged { fault, position, .. } = error else { panic!("{error}") };
            assert_eq!(position, group.position);
            let Fault::Unreadable(error) = *fault else { panic!("{fault}") };
            assert_eq!((error.offset, error.source), (offset, IoCause::Os(5)));
        }
    }
}

/// A read of many sectors may fail though each of them can be read.
#[test]
fn large_reads_that_fail() {
    for case in cases() {
        for piece in 1..3 {
            let (machine, storage) = machine_of(case.image.clone(), 1);
            storage.inject(piece, IoCause::Os(5));
            assert_eq!(case.judge(&machine), case.foretell(&[]), "what can be read is saved");
        }
    }
}

/// A machine that fails otherwise than by its media: nothing is concluded from that.
#[test]
fn other_failures_of_reads_are_errors() {
    let case = &cases()[0];
    for cause in [IoCause::Os(12), IoCause::Abandoned, IoCause::NoSpace] {
        let (machine, storage) = machine_of(case.image.clone(), 1);
        storage.inject(1, cause);
        let error = scan_quietly(&machine, &case.world.geometry, &case.world.superblock).unwrap_err();
        assert!(matches!(error, JournalError::Io(error) if error.source == cause));
    }
}

#[test]
fn a_file_cut_in_the_ring_is_damage() {
    let case = &cases()[0];
    let cut = case.offset(case.chain[0].position);
    let found = case.judge(&machine_of(case.image[..cut].to_vec(), 1).0);
    assert_eq!(found, case.foretell(from_ref(&(cut..case.image.len()))));
    assert!(matches!(found, Verdict::Damaged(..)));
}

/// The caller gives up what is damaged: the file goes on from the last good op, and what was behind never comes back.
#[test]
fn salvage() {
    let mut salvaged = 0;
    for case in cases() {
        for group in &case.chain {
            let mut image = case.image.clone();
            image[case.offset(group.position) + 100] ^= 1;
            let (machine, storage) = machine_of(image.clone(), 1);
            let mut world = case.world.clone();
            let result = scan_quietly(&machine, &world.geometry, &world.superblock);
            let Err(JournalError::Damaged { last_good, fault, .. }) = result else { continue };
            assert!(matches!(*fault, Fault::Wrong(_)));
            if last_good.op < world.superblock.op_checkpoint {
                continue;
            }
            world.replay(&machine, &last_good).unwrap();
            world.accept(&last_good);
            // The damage heals, as that of a bad cable does: what was given up stays so.
            storage.corrupt(u64::try_from(case.offset(group.position) + 100).unwrap(), 1);
            let again = world.recover(&machine).unwrap();
            assert_eq!(
                (again.op, again.hash, again.position),
                (last_good.op, last_good.hash, last_good.position)
            );
            let session = world.begin(&machine, &again);
            world.work(&session, SYNCED, 4, &mut fastrand::Rng::with_seed(1)).unwrap();
            drop(session);
            let head = world.recover(&machine).unwrap();
            assert_eq!(head.op.get(), world.promised);
            salvaged += 1;
        }
    }
    assert!(salvaged > 5, "{salvaged}");
}
