//! A second database that is told what survived of the first, op by op, and never disturbed: at the same op both have the
//! same checkpoint, to the bit.
//!
//! # Invariants
//! - What is compared is the id of the checkpoint state, which covers everything reachable from it by checksums.

use std::path::Path;

use understory::{Batch, Database, Error};
use understory_format::{Checksum, RecordKind};
use understory_io::Machine;

use crate::chronicle::{Deed, Entry};
use crate::trace::Violation;
use crate::world::{PATH, World};

/// Where the first database stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// The last op before its last checkpoint was asked for.
    op: u64,
    number: u64,
    id: Checksum,
}

impl End {
    /// Before the last checkpoint.
    pub(crate) fn of(database: &Database) -> Self {
        Self { op: database.visible_op().get(), number: 0, id: Checksum::ZERO }
    }

    /// And after it.
    pub(crate) fn with(self, database: &Database) -> Self {
        Self { number: database.stats().checkpoint_number, id: database.checkpoint_id(), ..self }
    }
}

/// Tells a twin everything up to `end`, and compares.
pub(crate) fn compare(world: &World<'_>, end: &End) -> Result<(), Violation> {
    let scenario = world.scenario;
    let chronicle = {
        let book = world.book.lock();
        let Some(ledger) =
            book.ledger().filter(|_| scenario.geometry.has_journal() || scenario.client_count == 1)
        else {
            world.tally.count("twins, none: who comes first is not known");
            return Ok(());
        };
        ledger.chronicle(&scenario.geometry, end.op)?
    };
    let (machine, storage) = Machine::sim(1);
    let options = world.options();
    let problem = |what: &str, error: &Error| Violation::new(format!("the twin cannot {what}: {error}"));
    Database::format(&machine, Path::new(PATH), &scenario.schema(), &scenario.geometry, &options)
        .map_err(|error| problem("be made", &error))?;
    let twin = Database::open_machine(machine, Path::new(PATH), &scenario.schema(), &options, false)
        .map_err(|error| problem("be opened", &error))?;
    let told = tell(world, &twin, &chronicle);
    let result = match told {
        Ok(true) => {
            twin.checkpoint().map_err(|error| problem("take a checkpoint", &error))?;
            world.tally.count("twins, compared");
            judge(world, &twin, end)
        }
        Ok(false) => {
            world.tally.count("twins, none: an op that lacked space");
            Ok(())
        }
        Err(violation) => Err(violation),
    };
    drop(twin);
    storage.scheduler().shut_down();
    result
}

/// Does every op again. False if one cannot be asked for: where space was short, it depends on how short.
fn tell(world: &World<'_>, twin: &Database, chronicle: &[Entry]) -> Result<bool, Violation> {
    let mut batch = Batch::new();
    for (op, entry) in (1_u64..).zip(chronicle) {
        let done = match entry {
            Entry::Close => twin.move_clock(RecordKind::Close),
            Entry::Drain => twin.move_clock(RecordKind::Drain),
            Entry::Settle => twin.move_clock(RecordKind::Settle),
            Entry::Batch(deed) => {
                fill(world, &mut batch, deed);
                twin.commit(&batch)
            }
        };
        match done {
            Ok(reached) if reached.get() == op => {}
            Ok(reached) => {
                return Err(Violation::new(format!("op {op}, of {entry:?}, is {reached} of the twin")));
            }
            // An op that lacked space half way, and was gone on with when there was some.
            Err(Error::OutOfSpace { .. }) if world.scenario.size_limit.is_some() => return Ok(false),
            Err(error) => return Err(Violation::new(format!("the twin fails at op {op}: {error}"))),
        }
    }
    Ok(true)
}

fn fill(world: &World<'_>, batch: &mut Batch, deed: &Deed) {
    batch.clear();
    for effect in deed.effects.iter() {
        let plot = world.scenario.plots.get(effect.tree).expect("a tree of the schema");
        match effect.put {
            Some(number) => plot.tree.put(batch, effect.place, number),
            None => plot.tree.remove(batch, effect.place),
        }
    }
}

fn judge(world: &World<'_>, twin: &Database, end: &End) -> Result<(), Violation> {
    let (number, id) = (twin.stats().checkpoint_number, twin.checkpoint_id());
    if (number, id) == (end.number, end.id) {
        return Ok(());
    }
    let state = twin.with_forest(|forest| forest.grid().checkpoint_state());
    let known = world.watch.lock().checkpoints().get(&number).copied();
    Err(Violation::new(format!(
        "the twin differs: its checkpoint {number} is {id:?}, not {end:?} (that of this number was {known:?}); it is \
         {state:?}"
    )))
}
