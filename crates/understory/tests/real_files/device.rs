//! A device that fails under its file system: writes that the kernel answers with errors.
//!
//! The first is a loop device over a sparse image in a memory that is full: whatever needs new space of it fails. The
//! second is a file system that is shut down in the middle of its work.

use understory::{Database, Error};

use crate::child::say;
use crate::ledger::Ledger;
use crate::load::{self, schema, small};
use crate::poison::{check_poisoned, check_refusals, check_reopened, commit_until_failure, io_error};
use crate::volume::{Volume, inside};

const MIB: u64 = 1 << 20;

#[test]
fn without_the_space_it_promised() {
    inside("device::without_the_space_it_promised", |folder| {
        for step in 0..if cfg!(debug_assertions) { 2 } else { 6 } {
            let size = 12 * MIB + step * 200_000;
            let memory = Volume::memory(folder, &format!("memory{step}"), size)?;
            let image = memory.path.join("image");
            let volume = Volume::ext4(folder, &format!("volume{step}"), &image, 64 * MIB)?;
            let path = volume.path.join("forest.understory");
            let mut ledger = Ledger::default();
            let database = Database::create(&path, &schema(), &small()).unwrap();
            let first = io_error(&commit_until_failure(&database, &mut ledger));
            check_refusals(&database, &ledger, first);
            // The device has lost what was written and not synced: the newest tables, perhaps.
            let read = load::check(&database);
            let is_loss = matches!(read, Err(Error::Corrupt(_) | Error::Unreadable { .. }));
            say(&format!("{} batches, then {first}; newest tables lost: {is_loss}", ledger.heard));
            if !is_loss {
                ledger.clone().find(&read.unwrap());
            }
            drop(database);
            memory.remount(&format!("size={}", size + 30 * MIB))?;
            // Its own journal may have failed: then it is for reading only, until it is mounted again.
            volume.unmount()?;
            volume.mount(&image)?;
            check_reopened(&path, &mut ledger);
            volume.unmount()?;
            memory.unmount()?;
        }
        Ok(())
    });
}

#[test]
fn shut_down_with_its_file_system() {
    inside("device::shut_down_with_its_file_system", |folder| {
        let image = folder.join("image");
        let volume = Volume::ext4(folder, "volume", &image, 64 * MIB)?;
        let path = volume.path.join("forest.understory");
        let mut ledger = Ledger::default();
        drop(Database::create(&path, &schema(), &small()).unwrap());
        for round in 0..4_u64 {
            let database = Database::open(&path, &schema(), &small()).unwrap();
            let next = ledger.next(0);
            for number in next..next + 40 + 7 * round {
                ledger.acknowledge(0, number, load::commit(&database, 0, number).unwrap());
            }
            volume.remount("abort")?;
            let first = io_error(&commit_until_failure(&database, &mut ledger));
            say(&format!("{first}"));
            check_poisoned(&database, &ledger, first);
            drop(database);
            volume.unmount()?;
            volume.mount(&image)?;
            check_reopened(&path, &mut ledger);
        }
        volume.unmount()
    });
}
