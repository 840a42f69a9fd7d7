//! A crash at every storage operation of a small workload: what is found again is a checkpoint, whole, and not
//! older than the last one that was acknowledged.
use crate::common::{Model, User, create_sim, in_runs, open_sim, options, reboot, without_journal};
use understory::{Batch, Database, Error, Machine, Options};
use understory_io::CrashPolicy;

/// What the user knows of the database at an op.
struct History {
    /// Each op that was applied with the state after it.
    states: Vec<(u64, Model)>,
    /// The last op that is to survive: of an acknowledged commit, or without a journal of a checkpoint.
    acknowledged: u64,
}

impl History {
    fn state_at(&self, op: u64) -> &Model {
        let index = self.states.partition_point(|(at, _)| *at <= op);
        &self.states[index.checked_sub(1).expect("op 0 is a state")].1
    }
}

/// The workload; ends early when the machine stops.
fn run(machine: &Machine, options: &Options, history: &mut History) -> Result<(), Error> {
    let mut user = User::new(5, 400);
    let mut batch = Batch::new();
    let database = create_sim(machine, options)?;
    for round in 0..160 {
        user.fill(&mut batch, 60);
        match database.commit(&batch) {
            Ok(op) => {
                history.states.push((op.get(), user.model.clone()));
                if database.geometry().has_journal() {
                    history.acknowledged = op.get();
                }
            }
            Err(error) => {
                if let Error::CommitUnknown { op, .. } = error {
                    history.states.push((op.get(), user.model.clone()));
                }
                return Err(error);
            }
        }
        if round % 37 == 36 {
            checkpoint(&database, history)?;
        }
    }
    checkpoint(&database, history)
}

fn checkpoint(database: &Database, history: &mut History) -> Result<(), Error> {
    let covered = database.visible_op().get();
    database.checkpoint()?;
    history.acknowledged = covered;
    Ok(())
}

fn fresh_history() -> History {
    History { states: vec![(0, Model::default())], acknowledged: 0 }
}

/// Runs the workload up to a crash at `operation`, and opens what is left. Gives whether there was a database.
fn crash_at(options: &Options, operation: u64, policy: CrashPolicy) -> bool {
    let (machine, storage) = Machine::sim(3);
    storage.crash_at(operation, policy);
    let mut history = fresh_history();
    let error = run(&machine, options, &mut history).expect_err("the machine stops within the workload");
    assert!(storage.is_crashed(), "only the crash ends the workload: {error}");
    let (machine, storage) = reboot(&storage, operation);
    let database = match open_sim(&machine, options) {
        Ok(database) => database,
        Err(error) => {
            assert_eq!(history.states.len(), 1, "operation {operation}: {error}");
            return false;
        }
    };
    let op = database.visible_op().get();
    assert!(op >= history.acknowledged, "operation {operation}: op {op} is before {}", history.acknowledged);
    history.state_at(op).check(&database).unwrap();
    drop(database);
    // What was repaired at open stays repaired: open again.
    let (machine, _storage) = reboot(&storage, operation);
    let database = open_sim(&machine, options).unwrap();
    assert_eq!(database.visible_op().get(), op, "operation {operation}");
    history.state_at(op).check(&database).unwrap();
    true
}

fn operations(options: &Options) -> u64 {
    let (machine, storage) = Machine::sim(3);
    run(&machine, options, &mut fresh_history()).unwrap();
    storage.operations()
}

fn sweep(options: &Options, policy: impl Fn(u64) -> CrashPolicy) {
    let operations = operations(options);
    // A debug build takes a part of them.
    let stride = if cfg!(debug_assertions) { 17 } else { 1 };
    let crashes = (0..operations).step_by(stride);
    let (mut opened, mut total) = (0, 0);
    for operation in crashes {
        opened += u64::from(crash_at(options, operation, policy(operation)));
        total += 1;
    }
    println!("{operations} operations, {total} crashes, {opened} with a database before them");
    assert!(opened * 10 > total * 9, "the sweep is about databases that exist");
}

#[test]
fn nothing_unsynced_is_kept() {
    sweep(&options(), |_| CrashPolicy::DropUnsynced);
    sweep(&without_journal(), |_| CrashPolicy::DropUnsynced);
    sweep(&in_runs(), |_| CrashPolicy::DropUnsynced);
}

#[test]
fn some_sectors_of_what_is_unsynced_are_kept() {
    sweep(&options(), CrashPolicy::KeepSubset);
    sweep(&without_journal(), CrashPolicy::KeepSubset);
    sweep(&in_runs(), CrashPolicy::KeepSubset);
}

#[test]
fn a_reopened_file_goes_on_as_if_it_had_not_been_closed() {
    let (machine, storage) = Machine::sim(3);
    let mut history = fresh_history();
    run(&machine, &options(), &mut history).unwrap();
    let (machine, _storage) = reboot(&storage, 9);
    let database = open_sim(&machine, &options()).unwrap();
    let mut user = User::new(6, 400);
    user.model = history.state_at(u64::MAX).clone();
    let mut batch = Batch::new();
    for _ in 0..200 {
        user.fill(&mut batch, 60);
        database.commit(&batch).unwrap();
    }
    user.model.check(&database).unwrap();
}
