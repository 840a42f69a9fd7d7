//! What the features `metrics` and `tracing` tell, beside what the statistics say.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says where")]

mod metrics;
mod tracing;

use std::path::Path;
use std::sync::Arc;

use understory::{Batch, Database, Error, Geometry, Machine, Options, Schema, record};
use understory_io::{InlineExecutor, SimStorage};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Account {
    id: U64,
    body: [u8; 40],
}
record!(Account: "accounts", key = { id: U64 });

fn options() -> Options {
    Options::default().memory(8 << 20).geometry(Geometry::small().with_journal())
}

/// Where all that happens, happens in the calling thread.
fn inline(image: Vec<u8>) -> (Machine, Arc<SimStorage>) {
    let (machine, storage) = Machine::sim_from(image, 1);
    (Machine { executor: Arc::new(InlineExecutor), ..machine }, storage)
}

fn create(machine: &Machine) -> Database {
    let (schema, options) = (Schema::new().tree::<Account>(), options());
    let path = Path::new("simulated");
    Database::format(machine, path, &schema, &options.geometry.unwrap(), &options).unwrap();
    open(machine).unwrap()
}

fn open(machine: &Machine) -> Result<Database, Error> {
    let schema = Schema::new().tree::<Account>();
    Database::open_machine(machine.clone(), Path::new("simulated"), &schema, &options(), false)
}

/// Commits so many batches of `count` accounts, many over others.
fn commit_some(database: &Database, batches: u64, count: u64) -> Result<(), Error> {
    let mut batch = Batch::new();
    for number in 0..batches {
        batch.clear();
        for n in 0..count {
            let id = (number * count + n) * 7919 % 3_001;
            batch.put(&Account { id: id.into(), body: [7; 40] });
        }
        let _op = database.commit(&batch)?;
    }
    Ok(())
}
