//! A file system that fills: commits are refused before anything of them is done, reads go on, and so do commits when
//! there is space again; also after a reopen in between.

use std::fs;
use std::path::Path;

use understory::{Database, Error, OpenError};

use crate::child::say;
use crate::ledger::Ledger;
use crate::load::{self, schema, small};
use crate::volume::{Refused, Volume, inside};

const MIB: u64 = 1 << 20;

/// A thread of which two commits in three do not wait for a sync.
const THREAD: u16 = 5;

/// One thread that commits its batches in order.
struct User {
    next: u64,
    ledger: Ledger,
}

impl User {
    fn new() -> Self {
        Self { next: 1, ledger: Ledger::default() }
    }

    /// Commits up to so many batches; gives whether all of them were, and it was not space that stopped it.
    fn commit(&mut self, database: &Database, count: u64) -> bool {
        for _ in 0..count {
            match load::commit(database, THREAD, self.next) {
                Ok(op) => {
                    self.ledger.acknowledge(THREAD, self.next, op);
                    self.next += 1;
                }
                Err(Error::OutOfSpace { .. }) => return false,
                Err(other) => panic!("a full file system gives OutOfSpace, not {other}"),
            }
        }
        true
    }

    /// Everything acknowledged is there, and nothing else: refused batches are not.
    fn check(&mut self, database: &Database) {
        let heads = load::check(database).unwrap();
        assert_eq!(heads.get(&THREAD).copied().unwrap_or(0), self.next - 1, "what is refused is not done");
        self.ledger.find(&heads);
    }

    fn commit_until_full(&mut self, database: &Database) {
        assert!(!self.commit(database, 1_000_000), "space ends before that");
        // It stays so, and nothing comes of it.
        for _ in 0..5 {
            assert!(!self.commit(database, 1), "nobody has made space");
        }
        self.check(database);
    }
}

/// The same on every file system: `free` makes space for a while, `fill` leaves none.
fn check(path: &Path, mut free: impl FnMut() -> Result<(), Refused>, fill: impl Fn()) -> Result<(), Refused> {
    let mut user = User::new();
    let database = Database::create(path, &schema(), &small()).unwrap();
    user.commit_until_full(&database);
    let first = user.next;
    free()?;
    assert!(user.commit(&database, 200), "there is space again");
    user.check(&database);
    fill();
    user.commit_until_full(&database);
    let second = user.next;
    drop(database);

    let database = Database::open(path, &schema(), &small()).unwrap();
    user.check(&database);
    let _some_fit = user.commit(&database, 1_000_000);
    user.check(&database);
    // What has no space for a checkpoint stays in the journal.
    database.close().unwrap();
    let database = Database::open(path, &schema(), &small()).unwrap();
    user.check(&database);
    free()?;
    assert!(user.commit(&database, 200), "there is space again");
    database.settle().unwrap();
    user.check(&database);
    database.close().unwrap();
    let database = Database::open(path, &schema(), &small()).unwrap();
    user.check(&database);
    say(&format!("full after {first}, after {second}; {} batches in the end", user.next - 1));
    Ok(())
}

#[test]
fn in_memory() {
    inside("space::in_memory", |folder| {
        let volume = Volume::memory(folder, "volume", 6 * MIB)?;
        let mut size = 6 * MIB;
        let free = || {
            size += 6 * MIB;
            volume.remount(&format!("size={size}"))
        };
        check(&volume.path.join("forest.understory"), free, || drop(volume.fill()))?;
        volume.unmount()
    });
}

#[test]
fn on_a_disk() {
    inside("space::on_a_disk", |folder| {
        let volume = Volume::ext4(folder, "volume", &folder.join("image"), 24 * MIB)?;
        let spare: Vec<_> = (0..2).map(|number| volume.path.join(format!("spare{number}"))).collect();
        for path in &spare {
            fs::write(path, vec![1; 6 << 20]).unwrap();
        }
        let mut spare = spare.into_iter();
        let free = || {
            fs::remove_file(spare.next().expect("two are enough")).unwrap();
            Ok(())
        };
        check(&volume.path.join("forest.understory"), free, || drop(volume.fill()))?;
        volume.unmount()
    });
}

/// Somebody else takes all space and gives it back, over and over, at moments that fall anywhere in a bar.
#[test]
fn taken_by_others_now_and_then() {
    inside("space::taken_by_others_now_and_then", |folder| {
        let volume = Volume::ext4(folder, "volume", &folder.join("image"), 32 * MIB)?;
        let path = volume.path.join("forest.understory");
        let mut rng = fastrand::Rng::with_seed(7);
        let mut user = User::new();
        let mut database = Database::create(&path, &schema(), &small()).unwrap();
        let mut refused = 0;
        for round in 0..30 {
            user.commit(&database, rng.u64(1..30));
            let ballast = volume.fill();
            refused += u32::from(!user.commit(&database, rng.u64(1..60)));
            user.check(&database);
            match rng.u8(0..4) {
                0 => {
                    drop(database);
                    database = Database::open(&path, &schema(), &small()).unwrap();
                }
                1 => match database.checkpoint() {
                    Ok(()) | Err(Error::OutOfSpace { .. }) => {}
                    Err(other) => panic!("round {round}: {other}"),
                },
                _ => {}
            }
            user.check(&database);
            fs::remove_file(ballast).unwrap();
            assert!(user.commit(&database, 1), "round {round}: there is space again");
        }
        say(&format!("{refused} of 30 rounds met a full disk; {} batches", user.next - 1));
        drop(database);
        volume.unmount()
    });
}

#[test]
fn too_little_to_begin_with() {
    inside("space::too_little_to_begin_with", |folder| {
        // Less than the ring, and more than that but not enough for the first blocks.
        for (number, size) in [64 << 10, 300 << 10, 512 << 10].into_iter().enumerate() {
            let volume = Volume::memory(folder, &format!("volume{number}"), size)?;
            let path = volume.path.join("forest.understory");
            let error = match Database::create(&path, &schema(), &small()) {
                Err(error) => error,
                Ok(database) => {
                    (1..).find_map(|number| load::commit(&database, THREAD, number).err()).expect("it ends")
                }
            };
            let no_space = match &error {
                Error::OutOfSpace { .. } => true,
                Error::Io(source) | Error::Open(OpenError::Io { source, .. }) => source.is_no_space(),
                _ => false,
            };
            say(&format!("{size} bytes: {error}"));
            assert!(no_space, "{error:?}");
        }
        Ok(())
    });
}
